"""The strategy map: who competes with whom, when a cell is decided, and a picture in which nothing overlaps."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factory import make_case, make_certificate, make_record, uncorrected
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.machines import machines_of
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.analysis.strategy_map import strategy_maps
from hpcrnn.reporting.figures.canvas import WIDE_IN, drawing_style
from hpcrnn.reporting.figures.plan import plan_all
from hpcrnn.reporting.figures.strategy_map import (
    MOST_COLUMNS,
    MOST_PANELS,
    MOST_ROWS,
    boards_of,
    draw_map,
    plan_maps,
)
from hpcrnn.reporting.report.page import Picture
from hpcrnn.reporting.report.sections import make_page
from hpcrnn.reporting.tables.strategy_map import map_tables, remarks, verdict_text

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
SPREAD = np.linspace(0.98, 1.02, 9)
"""Nine samples: the 95 % interval runs from the second smallest to the second largest, ± 1.5 %."""
AXES = ("data", "pipeline", "time", "tensor")


def took(seconds, grid=None, *, samples=None, **changes):
    """A case whose median step is exactly so long, ± 2 %."""
    grid = grid or {"data": 1}
    steps = [seconds * s for s in SPREAD] if samples is None else samples
    return make_case(math.prod(grid.values()), samples=steps, grid=grid, **{"layers": 4, **changes})


def maps_of(*records):
    return strategy_maps([e for e in make_entries(records) if e.included])


def only_map(*records):
    (found,) = maps_of(*records)
    return found


def only_cell(*cases):
    """The one cell of several ranks."""
    (cell,) = [c for c in only_map(make_record(cases)).cells if c.n_ranks > 1]
    return cell


# --- who wins ---------------------------------------------------------------------------------------


def test_the_lowest_median_wins_and_each_strategy_competes_with_its_best_variant():
    cell = only_cell(
        took(4.0),
        took(2.4, {"data": 2}),
        took(2.6, {"pipeline": 2}, order="1f1b", microbatches=4),
        took(2.0, {"pipeline": 2}, order="zb_h1", microbatches=4),
        took(3.0, {"pipeline": 2}, order="fill_drain", microbatches=4),
        took(2.5, {"tensor": 2}),
    )
    assert [(c.strategy, c.n_variants) for c in cell.ranking] == [("pipeline", 3), ("data", 1), ("tensor", 1)]
    assert cell.ranking[0].entry.case.split.order == "zb_h1"
    assert (cell.leader, cell.runner_up, cell.undecided, cell.pays) == ("pipeline", "data", (), "yes")
    assert cell.gain.median == pytest.approx(1.2)
    assert (cell.gain.low, cell.gain.high) == pytest.approx((1.2 * 0.985 / 1.015, 1.2 * 1.015 / 0.985))
    assert cell.serial.ratio.median == pytest.approx(2.0)
    assert verdict_text(cell) == "pipeline 1.20× over data"


def test_intervals_that_overlap_leave_it_undecided_even_with_a_slower_third():
    near = only_cell(took(4.0), took(2.0, {"data": 2}), took(2.02, {"tensor": 2}))
    assert near.undecided == (("tensor", "intervals overlap"),)
    # The second is told apart; the third scatters so much that it is not.
    wide = [1.0, 1.5, 1.9, 2.0, 2.6, 2.6, 3.0, 3.5, 4.0]
    cell = only_cell(took(4.0), took(2.0, {"data": 2}), took(2.4, {"time": 2}), took(0, {"tensor": 2}, samples=wide))
    assert (cell.leader, cell.runner_up) == ("data", "time")
    assert cell.undecided == (("tensor", "intervals overlap"),)


def test_too_few_samples_decide_nothing():
    cell = only_cell(took(4.0), took(0, {"data": 2}, samples=[1.0] * 5), took(9.0, {"tensor": 2}))
    assert cell.undecided == (("tensor", "n too small"),)
    assert cell.pays == "undecided"
    assert remarks(cell) == ["may not pay"]


def test_a_variant_measured_three_times_counts_with_its_middle_measurement():
    records = [
        make_record([took(4.0), took(seconds, {"data": 2})], seed=k) for k, seconds in enumerate((1.8, 2.4, 2.2))
    ]
    found = only_map(*records, make_record([took(4.0), took(2.0, {"tensor": 2})], seed=9))
    cell = found.cells[-1]
    # Once in three tries data was faster; a strategy does not win for having been tried more often.
    assert [(c.strategy, c.entry.step.median) for c in cell.ranking] == [("tensor", 2.0), ("data", pytest.approx(2.2))]
    assert len(cell.ranking[1].runs) == 3


def test_a_machine_that_slowed_down_between_two_files_decides_nothing():
    fast = make_record([took(4.0), took(2.2, {"tensor": 2})], seed=1)
    slow = make_record([took(6.0), took(2.6, {"pipeline": 2})], seed=2)
    cell = only_map(fast, slow).cells[-1]
    assert cell.leader == "tensor"
    assert cell.undecided == (("pipeline", "speedups overlap"),)
    assert cell.duels[0].speedups.median == pytest.approx((4.0 / 2.2) / (6.0 / 2.6))
    # Beside their serial runs the two are as fast as can be told: 2 % apart, with intervals wider than that.
    close = make_record([took(5.0), took(2.8, {"pipeline": 2})], seed=2)
    assert only_map(fast, close).cells[-1].undecided == (("pipeline", "speedups overlap"),)
    # Files without a serial run tell nothing of drift: then times decide, as they do for ``hpcrnn compare``.
    lone = [make_record([case], seed=k) for k, case in enumerate((took(2.2, {"tensor": 2}), took(2.6, {"time": 2})))]
    assert only_map(*lone).cells[-1].undecided == ()
    # The winner was measured on the slower machine: then it is one all the more.
    slower = make_record([took(6.0), took(2.2, {"tensor": 2})], seed=1)
    faster = make_record([took(4.0), took(2.6, {"pipeline": 2})], seed=2)
    assert only_map(slower, faster).cells[-1].undecided == ()


def test_parallel_does_not_pay_where_one_rank_is_faster_than_every_way():
    cell = only_cell(took(1.0), took(2.0, {"data": 2}), took(1.5, {"tensor": 2}))
    assert (cell.leader, cell.runner_up, cell.pays, cell.undecided) == ("serial", "tensor", "no", ())
    assert cell.gain.median == pytest.approx(1.5)
    assert cell.gain.low < 1.5 < cell.gain.high
    assert verdict_text(cell) == "serial 1.50× over tensor"
    assert remarks(cell) == ["parallel does not pay"]
    close = only_cell(took(1.49), took(2.0, {"data": 2}), took(1.5, {"tensor": 2}))
    assert (close.leader, close.pays) == ("serial", "undecided")
    assert close.undecided == (("tensor", "intervals overlap"),)
    behind = only_cell(took(1.51), took(2.0, {"data": 2}), took(1.5, {"tensor": 2}))
    assert (behind.leader, behind.pays, behind.undecided) == ("tensor", "undecided", ())


def test_the_serial_run_beside_a_split_is_that_of_its_own_file():
    ours = make_record([took(4.0), took(2.0, {"data": 2}), took(2.5, {"time": 2})], seed=1)
    others = [make_record([took(1.0)], seed=k) for k in (2, 3)]
    cell = only_map(ours, *others).cells[-1]
    assert cell.serial.ratio.median == pytest.approx(2.0)


def test_one_strategy_alone_is_no_contest():
    cases = [took(4.0), took(2.0, {"data": 2})]
    assert maps_of(make_record(cases)) == ()
    cases += [took(t, g, hidden=512) for t, g in ((9.0, None), (5.0, {"data": 2}), (6.0, {"tensor": 2}))]
    alone, contested = only_map(make_record([*cases])).cells
    assert not alone.contested
    assert verdict_text(alone) == "data only, no contest"
    assert (alone.gain, alone.runner_up) == (None, "")
    assert contested.contested


# --- what never competes ----------------------------------------------------------------------------


def test_an_inexact_way_wins_nothing_and_is_named():
    kept = {"method": "tbptt_zero", "fold": 4, "certificate": uncorrected(make_certificate()), "gradient_error": 3e-2}
    cell = only_cell(
        took(4.0), took(2.0, {"data": 2}), took(2.5, {"tensor": 2}), took(1.0, {"time": 2}, **kept)
    )  # fmt: skip
    assert (cell.leader, [c.strategy for c in cell.ranking]) == ("data", ["data", "tensor"])
    assert cell.inexact.entry.case.method == "tbptt_zero"
    assert remarks(cell) == ["inexact: tbptt_zero 2.00×"]
    slower = only_cell(took(4.0), took(2.0, {"data": 2}), took(2.5, {"tensor": 2}), took(3.0, {"time": 2}, **kept))
    assert slower.inexact is None


def test_a_method_that_did_not_converge_competes_with_nobody():
    certificate = make_certificate(converges=False)
    kept = {"method": "picard", "fold": 4, "certificate": certificate, "layers": 1}
    cell = only_cell(
        took(4.0, layers=1), took(2.0, {"data": 2}, layers=1), took(2.5, {"tensor": 2}, layers=1),
        took(1.0, {"time": 2}, **kept),
    )  # fmt: skip
    assert [c.strategy for c in cell.ranking] == ["data", "tensor"]
    assert cell.inexact.strategy == "time"


def test_a_place_with_inexact_ways_only_has_no_winner():
    kept = {"method": "tbptt_zero", "fold": 4, "certificate": uncorrected(make_certificate()), "gradient_error": 3e-2}
    cases = [took(4.0), took(2.0, {"data": 2}), took(2.5, {"tensor": 2})]
    cases += [took(4.4, seq=128), took(2.1, {"data": 2}, seq=128), took(2.4, {"tensor": 2}, seq=128)]
    cases += [took(9.0, seq=256), took(1.0, {"time": 2}, seq=256, **kept)]
    found = only_map(make_record(cases))
    last = found.cells[-1]
    assert (last.leader, last.ranking, last.contested) == ("", (), False)
    assert verdict_text(last) == "no exact way measured"
    (table,) = map_tables([found])
    assert "no exact way" in table.rows[-1]
    with drawing_style():
        (sheet,) = plan_maps(analyse([make_record(cases)]))
        assert "no exact way" in texts_of(sheet.draw().figure)


def test_an_invalid_case_enters_no_map():
    cases = [took(4.0), took(2.0, {"data": 2}), took(2.5, {"tensor": 2}), took(0.1, {"time": 2}, valid=False)]
    assert [c.strategy for c in only_cell(*cases).ranking] == ["data", "tensor"]


def test_one_rank_that_folds_competes_with_the_serial_run():
    cases = [took(4.0), took(1.0, method="picard", fold=16, certificate=make_certificate())]
    (cell,) = only_map(make_record(cases)).cells
    assert (cell.leader, cell.runner_up, cell.gain.median, cell.pays) == ("folded", "serial", pytest.approx(4.0), "")


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "torch"},
        {"threads": 2},
        {"cell": "gru"},
        {"dtype": "float64"},
        {"workload": "synthetic"},
        {"mode": "gradient"},
        {"clip": 1.0},
    ],
    ids=str,
)
def test_what_sets_two_problems_or_their_means_apart_sets_two_maps_apart(changes):
    cases = [took(4.0), took(2.0, {"data": 2}), took(1.0, {"tensor": 2}, **changes)]
    assert maps_of(make_record(cases)) == ()
    assert len(maps_of(make_record([*cases, took(3.0, {"time": 2}), took(2.0, {"pipeline": 2}, **changes)]))) == 2


def test_kernels_and_simulated_cases_are_maps_of_their_own():
    cases = [took(2.0, {"data": 2}), replace(took(1.0, {"tensor": 2}), kernel="numpy matmul")]
    assert maps_of(make_record(cases)) == ()
    assert maps_of(make_record([cases[0], replace(took(1.0, {"tensor": 2}), simulated=True)])) == ()


def on(record, *hosts, cpu="Xeon"):
    environment = copy.deepcopy(record.environment)
    environment["hosts"] = [
        {**environment["hosts"][0], "hostname": name, "cpu_model": cpu, "affinity": "0-7"} for name in hosts
    ]
    return replace(record, environment=environment)


def test_other_hosts_and_other_processors_do_not_compete():
    here = make_record([took(2.0, {"data": 2})], seed=1)
    there = make_record([took(1.0, {"tensor": 2})], seed=2)
    assert len(only_map(on(here, "a", "a"), on(there, "a", "a")).contests) == 1
    assert maps_of(on(here, "a", "a"), on(there, "b", "b")) == ()
    assert maps_of(on(here, "a", "a"), on(there, "a", "a", cpu="EPYC")) == ()


def test_a_run_on_two_hosts_makes_them_one_machine_but_not_one_place():
    one = on(make_record([took(2.0, {"data": 2}), took(2.2, {"time": 2})], seed=1), "a", "a")
    two = on(make_record([took(1.0, {"tensor": 2}), took(1.5, {"data": 4}), took(1.6, {"time": 4})], seed=2), *"abab")
    assert {m.hosts for m in machines_of([one, two]).values()} == {frozenset("ab")}
    found = only_map(one, two)
    assert [(dict(c.place)["hosts"], c.n_ranks, [x.strategy for x in c.ranking]) for c in found.cells] == [
        ("a", 2, ["data", "time"]),
        ("a, b", 2, ["tensor"]),
        ("", 4, ["data", "time"]),
    ]
    assert found.facets == ("hosts",)
    assert "Hosts" in map_tables([found])[0].columns


@pytest.mark.parametrize(("cores", "shared"), [(2, True), (4, False), (1, True), ("unknown", False), (None, False)])
def test_more_threads_than_cores_are_said(cores, shared):
    record = make_record([took(1.5, {"data": 4}), took(1.6, {"time": 4})])
    for host in record.environment["hosts"]:
        host |= {"hostname": "a", "affinity": "0-7", "n_physical_cores": cores}
    (cell,) = only_map(record).cells
    assert cell.oversubscribed is shared
    assert ("CPUs shared" in remarks(cell)) is shared


# --- the axes ---------------------------------------------------------------------------------------


def grid_of(ranks, hidden, batch=(64,), seq=(64,), layers=(4,), ways=AXES, **changes):
    cases = []
    for h, b, t, depth in [(h, b, t, d) for h in hidden for b in batch for t in seq for d in layers]:
        size = {"hidden": h, "batch": b, "seq": t, "layers": depth, **changes}
        cases.append(took(8.0, **size))
        for n in ranks:
            cases += [took(8.0 / n * (1 + 0.1 * k), {axis: n}, **size) for k, axis in enumerate(ways)]
    return cases


@pytest.mark.parametrize(
    ("sizes", "x", "y", "facets", "n_panels"),
    [
        ({"ranks": (2, 4), "hidden": (64, 128)}, "ranks", "hidden", (), 1),
        ({"ranks": (2, 4), "hidden": (64,), "seq": (8, 16)}, "ranks", "seq", (), 1),
        ({"ranks": (2, 4), "hidden": (64, 128), "batch": (8, 16, 32)}, "ranks", "batch", ("hidden",), 2),
        ({"ranks": (2,), "hidden": (64, 128), "batch": (8, 16, 32)}, "batch", "hidden", (), 1),
        ({"ranks": (2,), "hidden": (64, 128), "seq": (8, 16)}, "hidden", "seq", (), 1),
        ({"ranks": (2,), "hidden": (64, 128), "seq": (8, 16), "layers": (2, 4)}, "hidden", "seq", ("layers",), 2),
        ({"ranks": (2, 4), "hidden": (64,)}, "ranks", "", (), 1),
        ({"ranks": (2,), "hidden": (64,)}, "ranks", "", (), 1),
    ],
    ids=str,
)
def test_the_axes_follow_from_what_varies(sizes, x, y, facets, n_panels):
    found = only_map(make_record(grid_of(**sizes)))
    assert (found.x, found.y, found.facets, len(found.panels)) == (x, y, facets, n_panels)
    # One rank is a column only where ranks are an axis along which something competes.
    assert {c.n_ranks for c in found.cells} == {*sizes["ranks"], *([1] if len(sizes["ranks"]) > 1 else [])}


def test_a_lone_contest_is_a_row_and_no_picture():
    record = make_record(grid_of((2,), (64,)))
    found = only_map(record)
    assert not found.worth_drawing
    assert list(plan_maps(analyse([record]))) == []
    (table,) = map_tables([found])
    (row,) = table.rows
    cells = dict(zip(table.columns, row, strict=True))
    assert (cells["Ranks"], cells["Fastest"], cells["Runner-up"]) == ("2", "data 2", "pipeline 2 · fill_drain")
    assert (cells["Ratio"], cells["Decided"], cells["Over serial"]) == ("1.10×", "yes", "2.00×")


times = st.dictionaries(st.sampled_from(AXES), st.floats(0.1, 10.0), min_size=1)
measured = st.dictionaries(st.tuples(st.sampled_from([2, 4]), st.sampled_from([32, 64, 96])), times, max_size=6)


@settings(max_examples=25, deadline=None)
@given(measured, st.randoms(use_true_random=False))
def test_a_map_shows_what_was_measured_and_nothing_else(places, random):
    cases = [took(t, {axis: n}, hidden=h) for (n, h), ways in places.items() for axis, t in ways.items()]
    random.shuffle(cases)
    maps = maps_of(make_record(cases))
    assert bool(maps) == any(len(ways) > 1 for ways in places.values())
    for found in maps:
        cells = {(c.n_ranks, c.place["hidden"]): c for c in found.cells}
        assert set(cells) == set(places)
        assert sum(len(p.cells) for p in found.panels) == len(cells)
        for where, cell in cells.items():
            ordered = sorted(places[where].values())
            assert [c.entry.step.median for c in cell.ranking] == pytest.approx(ordered)
            assert places[where][cell.leader] == ordered[0]
            # ± 1.5 % on either side: decided exactly where the second is further away than that.
            if len(ordered) > 1 and not math.isclose(ordered[1] / ordered[0], 1.015 / 0.985, rel_tol=1e-6):
                assert bool(cell.undecided) == (ordered[1] / ordered[0] < 1.015 / 0.985)


# --- the picture ------------------------------------------------------------------------------------


def texts_of(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


LONG = {
    "workload": "file:/an/address/" + "that/does/not/end/" * 9 + "corpus.txt",
    "clip": 1.0,
}


@pytest.mark.parametrize(
    "cases",
    [
        grid_of((2,), (64, 128)),
        grid_of((2, 4), (64, 128), (16, 64)),
        grid_of((2, 4, 8), (64, 128, 256, 512), (16, 64), seq=(1_000_000,), **LONG),
        grid_of((2, 4, 8, 16, 32, 64), (64, 128, 256, 512, 1024, 2048, 4096, 8192)),
        [
            took(t, g, hidden=h, order="interleaved", virtual_stages=16, microbatches=1024, chunks=4096)
            for h in (64, 128)
            for t, g in ((1.0, {"data": 64, "pipeline": 16, "tensor": 2}), (1.001, {"pipeline": 2048}))
        ],
        [took(0, {axis: 2}, samples=[1.0 + 0.1 * k] * 3, hidden=h) for h in (64, 128) for k, axis in enumerate(AXES)],
    ],
    ids=["two", "eight", "long", "more than a sheet", "long ways", "few samples"],
)
def test_no_text_leaves_its_cell_and_no_panel_meets_another(cases):
    with drawing_style():
        for sheet in plan_maps(analyse([make_record(cases)])):
            figure = sheet.draw().figure
            renderer = figure.canvas.get_renderer()
            assert figure.get_size_inches()[0] <= WIDE_IN
            boxes = [ax.get_tightbbox(renderer) for ax in figure.axes] + [figure.legends[0].get_window_extent(renderer)]
            for k, box in enumerate(boxes):
                assert figure.bbox.x0 <= box.x0
                assert box.x1 <= figure.bbox.x1 + 1
                assert not any(box.overlaps(other) for other in boxes[k + 1 :])
            for ax in figure.axes:
                columns, rows = ax.get_xlim()[1], ax.get_ylim()[1]
                whole = ax.get_window_extent(renderer)
                by_cell: dict[tuple[int, int], list] = {}
                for text in ax.texts:
                    x, y = text.get_position()
                    box = text.get_window_extent(renderer)
                    left, below = whole.x0 + int(x) * whole.width / columns, whole.y0 + int(y) * whole.height / rows
                    assert left <= box.x0
                    assert box.x1 <= left + whole.width / columns
                    assert below <= box.y0
                    assert box.y1 <= below + whole.height / rows
                    by_cell.setdefault((int(x), int(y)), []).append(box)
                for lines in by_cell.values():
                    middles = [(box.y0 + box.y1) / 2 for box in lines]
                    assert all(a - b > 7 / 72 * figure.dpi for a, b in itertools.pairwise(middles))


def test_many_cells_are_sheets_of_a_size_one_can_read():
    sizes = tuple(64 * k for k in range(1, 10))
    found = only_map(make_record(grid_of((2, 4, 8, 16, 32, 64, 128), sizes, (1, 64), ways=("data", "tensor"))))
    boards = boards_of(found)
    assert len(boards) > 1
    drawn = [cell for board in boards for cell in board.cells]
    assert len(drawn) == len(found.cells) == 8 * 9 * 2
    assert {id(c) for c in drawn} == {id(c) for c in found.cells}
    for board in boards:
        assert len(board.parts) <= MOST_PANELS
        assert all(len(p.columns) <= MOST_COLUMNS and len(p.rows) <= MOST_ROWS for p in board.parts)


def test_hatched_is_what_is_undecided_and_blank_what_was_not_measured():
    cases = [took(1.0, {"data": 2}), took(1.5, {"tensor": 2})]  # decided
    cases += [took(1.0, {"data": 2}, hidden=512), took(1.01, {"tensor": 2}, hidden=512)]  # undecided
    cases += [took(1.0, {"data": 2}, seq=128)]  # no contest; nothing at hidden=512, seq=128
    cases += [took(1.0, {"data": 2}, hidden=64), took(1.5, {"tensor": 2}, hidden=64)]
    with drawing_style():
        (sheet,) = plan_maps(analyse([make_record(cases)]))
        drawing = sheet.draw()
        (ax,) = drawing.figure.axes
        fills = [p for p in ax.patches if p.get_fill()]
        hatched = [p for p in ax.patches if p.get_hatch()]
    assert (len(fills), len(hatched)) == (4, 1)
    dashed = [p for p in fills if p.get_facecolor()[:3] == (1.0, 1.0, 1.0)]
    assert len(dashed) == 1
    assert drawing.alt.count("undecided") == 1
    assert "data only, no contest" in drawing.alt
    names = [t.get_text() for t in drawing.figure.legends[0].get_texts()]
    assert names == ["data", "undecided", "one strategy only"]


def test_the_picture_and_the_table_are_a_section_of_the_report():
    analysis = analyse([make_record(grid_of((2,), (64, 128)))])
    with drawing_style():
        (drawing,) = (sheet.draw() for sheet in plan_all(analysis) if sheet.kind == "strategy_map")
    assert "hidden units 64: data 1.10× over pipeline" in drawing.alt
    words = {name: getattr(drawing, name) for name in ("name", "section", "title", "caption", "alt", "wide")}
    picture = Picture(**words, svg="", png=b"")
    (section,) = [s for s in make_page(analysis, [picture]).sections if s.key == "strategy-map"]
    assert section.blocks[0] == picture
    assert [len(block.rows) for block in section.blocks[1:]] == [2]
    # A report without a contest has no such section.
    plain = analyse([make_record([took(4.0), took(2.0, {"data": 2})])])
    assert "strategy-map" not in [s.key for s in make_page(plain, []).sections]


def test_where_the_machine_drifted_between_files_speedups_forbid_a_verdict():
    one = make_record([took(4.0), took(2.6, {"tensor": 2})])
    slower = make_record([took(5.0), took(2.9, {"pipeline": 2}, order="1f1b", microbatches=4)], seed=1)
    cell = only_map(one, slower).cells[-1]
    assert (cell.leader, cell.runner_up) == ("tensor", "pipeline")
    # The machine was slower when the pipeline was measured: over its own serial run that was the faster one.
    assert cell.undecided == (("pipeline", "speedups overlap"),)


def test_a_drawing_is_the_same_whatever_the_order_of_the_cases():
    cases = grid_of((2, 4), (64, 128))
    with drawing_style():
        (one,), (other,) = (
            [texts_of(draw_map("m", b).figure) for b in boards_of(only_map(make_record(order)))]
            for order in (cases, cases[::-1])
        )
    assert one == other
