"""Ways of splitting: their curves, their comparison, their figures and tables."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factory import make_case, make_record, make_timeline, strategy_cases

from hpcrnn.records.hdf5 import read_records
from hpcrnn.reporting.analysis.contest import contests
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.scaling import analyse, phase_names
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.rows import wrapped
from hpcrnn.reporting.figures.strategies import draw_bubbles, draw_contests, draw_memory, draw_strategies
from hpcrnn.reporting.figures.timelines import MOST_RANKS, draw_timeline
from hpcrnn.reporting.report.write import write_report
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.splits import contest_table, split_table, wait_table

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
OTHER_RECORDS = {"h200", "time_study"}  # single layers on a GPU, and tables of counts, have records of their own
STEPS = [4.0, 4.1, 4.2, 4.3, 4.5, 4.6, 4.7, 4.8]
PIPELINE = {"order": "1f1b", "microbatches": 4}


def fixed(grid, factor=1.0, **changes):
    n = math.prod(grid.values())
    return make_case(n, samples=[s * factor for s in STEPS], grid=grid, layers=4, **changes)


def texts_of(figure):
    return [text.get_text() for ax in figure.axes for text in (*ax.texts, *ax.get_yticklabels())]


# --- curves -----------------------------------------------------------------------------------------


def test_each_grid_and_order_is_a_curve_of_its_own():
    cases = [
        fixed({"data": 1}),
        fixed({"data": 2}, 0.5),
        fixed({"pipeline": 2}, 0.6, **PIPELINE),
        fixed({"pipeline": 4}, 0.4, **PIPELINE),
        fixed({"pipeline": 2}, 0.7, order="fill_drain", microbatches=4),
        fixed({"time": 2}, 0.6, microbatches=4),
        fixed({"data": 2, "pipeline": 2}, 0.3, **PIPELINE),
        fixed({"data": 4, "pipeline": 2}, 0.2, **PIPELINE),
        fixed({"data": 2, "pipeline": 4}, 0.2, **PIPELINE),
    ]
    series = analyse([make_record(cases)]).strong
    assert {s.strategy: [p.n_ranks for p in s.points] for s in series} == {
        "data": [1, 2],
        "pipeline · 1f1b M4": [1, 2, 4],
        "pipeline · fill_drain M4": [1, 2],
        "time · fill_drain M4": [1, 2],
        "data × pipeline 2 · 1f1b M4": [1, 4, 8],
        "data × pipeline 4 · 1f1b M4": [1, 8],
    }
    assert not any(s.repeated for s in series)
    # The serial run, in one piece, is the first point and the base of them all.
    assert {s.points[0].entry.number for s in series} == {1}


def test_a_serial_run_in_the_same_pieces_is_preferred_as_the_first_point():
    cases = [fixed({"data": 1}), fixed({"data": 1}, 1.1, microbatches=4), fixed({"data": 2}, 0.5, microbatches=4)]
    (series,) = analyse([make_record(cases)]).strong
    assert [p.entry.number for p in series.points] == [2, 3]
    assert series.widest.base.entry.number == 1


def test_a_record_of_an_earlier_version_is_on_the_curve_of_the_same_way():
    cases = [fixed({"data": 1}), fixed({"data": 2}, 0.5), fixed({"data": 4}, 0.3)]
    for key in ("order", "virtual_stages"):
        del cases[1].spec["parallel"][key]
    (series,) = analyse([make_record(cases)]).strong
    assert [p.n_ranks for p in series.points] == [1, 2, 4]


def test_weak_curves_keep_ways_apart_too():
    cases = [fixed({"data": 1})]
    cases += [fixed({"data": 2}, batch=128), fixed({"time": 2}, batch=128)]
    assert [s.strategy for s in analyse([make_record(cases)]).weak] == ["data", "time · fill_drain"]


# --- comparison -------------------------------------------------------------------------------------


def test_a_contest_by_hand():
    cases = [
        fixed({"data": 1}),
        fixed({"pipeline": 4}, 0.5, bubble_bound=0.25, **PIPELINE),
        fixed({"time": 2}, 0.8),
        fixed({"data": 2}, 0.6, bubble_bound=0.0),
    ]
    (contest,) = contests(analyse([make_record(cases)]).included)
    assert [c.entry.number for c in contest.contenders] == [4, 3, 2]
    assert contest.weighed_base.number == 1
    pipeline = contest.contenders[2]
    assert pipeline.point.speedup.median == pytest.approx(2.0)
    assert pipeline.speedup_bound == pytest.approx(3.0)
    assert pipeline.share_of_bound == pytest.approx(2 / 3)
    assert 0 < pipeline.bubble.low <= pipeline.bubble.median <= pipeline.bubble.high < 1
    assert math.isnan(contest.contenders[1].share_of_bound)


def test_data_alone_is_no_contest():
    cases = [fixed({"data": 1}), fixed({"data": 2}, 0.6), fixed({"data": 4}, 0.6)]
    assert contests(analyse([make_record(cases)]).included) == ()
    flat = [*cases, fixed({"data": 2}, 0.7, data_method="allreduce_flat")]
    assert len(contests(analyse([make_record(flat)]).included)) == 1


def test_problems_and_simulations_are_contests_of_their_own():
    cases = [fixed({"time": 2}), fixed({"time": 2}, hidden=64), replace(fixed({"time": 2}), simulated=True)]
    found = contests(analyse([make_record(cases)]).included)
    assert [len(c.contenders) for c in found] == [1, 1, 1]
    assert all(c.weighed_base is None for c in found)


def test_files_with_bases_of_their_own_are_compared_by_speedup():
    slow = make_record([fixed({"data": 1}, 4.0), fixed({"time": 2}, 2.5)], source="a.h5")
    fast = make_record([fixed({"data": 1}), fixed({"tensor": 2})], source="b.h5", seed=1)
    (contest,) = contests(analyse([slow, fast]).included)
    assert [c.entry.case.strategy for c in contest.contenders] == ["time", "tensor"]
    with drawing_style():
        figure = draw_strategies("x", contest).figure
    assert "each file's own best serial run, 1 rank, 4.40 s to 17.6 s" in " ".join(t.get_text() for t in figure.texts)


# --- figures ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contest():
    (found,) = contests(analyse([make_record(strategy_cases())]).included)
    return found


def test_the_figures_say_what_the_tables_say(contest):
    with drawing_style():
        drawings = [draw("x", contest) for draw in (draw_strategies, draw_bubbles, draw_memory)]
    shown = [texts_of(d.figure) for d in drawings]
    assert all({"2 ranks", "4 ranks"} <= set(texts) for texts in shown)
    assert "1.85×" in shown[0]
    assert "14 data 2 × pipeline 2\n1f1b M4 · numpy" in [re.sub(" +", " ", t) for t in shown[0]]
    assert "380 MiB" in shown[2]
    assert "pipeline 4 · 1f1b M4 C2 · numpy: 2.77× of an ideal 4×, bubble bound 2.91×." in drawings[0].alt
    assert "pipeline 4 · 1f1b M4 C2 · numpy: measured 32 %, bound 27 %." in drawings[1].alt
    assert all(d.section == "strategies" and not d.wide for d in drawings)


def test_no_two_texts_of_a_figure_overlap(contest):
    with drawing_style():
        for draw in (draw_strategies, draw_bubbles, draw_memory):
            figure = draw("x", contest).figure
            (ax,) = figure.axes
            renderer = figure.canvas.get_renderer()
            boxes = [t.get_window_extent(renderer) for t in (*ax.texts, *ax.get_yticklabels(), *figure.texts)]
            assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
            assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


@pytest.mark.parametrize("serial", [True, False])
def test_what_is_not_known_is_not_drawn(serial):
    case = fixed({"time": 2}, bubble_bound=math.nan)
    unknown = replace(case, memory_bytes=np.zeros(2, dtype=np.int64))
    records = [make_record([*([fixed({"data": 1})] if serial else []), unknown])]
    with drawing_style():
        drawings = list(draw_contests(analyse(records)))
    assert [d.name for d in drawings] == ["strategies"]
    assert ("—" in texts_of(drawings[0].figure)) == (not serial)


def test_bounds_of_nothing_and_too_few_samples_draw():
    few = [make_case(2, n=3, grid={"time": 2}, bubble_bound=0.0), make_case(1, n=3)]
    few[0].time_s[:, :, 1:] = 0.0
    with drawing_style():
        assert len(list(draw_contests(analyse([make_record(few)])))) == 3


def test_many_ways_go_on_several_sheets():
    cases = [make_case(1), *(make_case(2, grid={"time": 2}, microbatches=m, bubble_bound=0.1) for m in range(1, 31))]
    with drawing_style():
        drawings = list(draw_contests(analyse([make_record(cases)])))
    assert [d.name for d in drawings] == [f"{name}_{k}" for name in ("strategies", "bubble", "memory") for k in (1, 2)]
    assert all(len(d.figure.axes[0].get_yticklabels()) <= 16 for d in drawings)


def test_long_labels_are_broken_between_their_parts():
    assert wrapped(["3  data 2 · numpy"]) == ["3  data 2 · numpy"]
    assert wrapped(["14  data 2 × pipeline 2 · 1f1b M4 · numpy"]) == ["14  data 2 × pipeline 2\n1f1b M4 · numpy"]
    assert all(len(line) <= 40 for line in wrapped(["x" * 90])[0].splitlines())


# --- timelines --------------------------------------------------------------------------------------

GRIDS = [
    ({"pipeline": 2}, {"order": "1f1b", "microbatches": 4}),
    ({"time": 2}, {}),
    ({"data": 2}, {}),
    ({"data": 2, "pipeline": 2, "time": 2}, {"microbatches": 2}),
    ({"pipeline": 16}, {"order": "zb_h1", "microbatches": 8}),
]


@pytest.mark.parametrize(("grid", "cut"), GRIDS)
def test_a_timeline_has_a_row_a_rank(grid, cut):
    n = math.prod(grid.values())
    timeline = make_timeline(grid, **cut, layers=16, step_s=0.0123)
    case = make_case(grid=grid, n=8, layers=16, timeline=timeline, **cut)
    (entry,) = make_entries([make_record([case])])
    with drawing_style():
        drawing = draw_timeline("timeline", entry)
    (ax,) = drawing.figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels) == n
    assert labels[-1].startswith(f"rank {n - 1}")
    assert ("(1, 1, 1)" in labels[-1]) == (len(grid) > 1)
    assert ("In brackets" in drawing.caption) == (len(grid) > 1)
    assert "[ms]" in ax.get_xlabel()
    legend = {text.get_text() for text in drawing.figure.legends[0].get_texts()}
    kinds = {"forward", "backward", "weight gradient", "update", "communication", "waiting or idle"}
    assert {*kinds, "end of the step, 12.3 ms"} <= legend
    assert ("message" in legend) == ("An arrow runs" in drawing.caption)
    assert drawing.wide
    assert "repetition 4 of 8" in drawing.caption
    assert all(0 < int(share) < 101 for share in re.findall(r"rank \d+ (\d+) %", drawing.alt))


def test_messages_are_drawn_only_when_they_are_few():
    few, many = ({"microbatches": 2}, {"microbatches": 32})
    drawn = []
    for cut in (few, many):
        timeline = make_timeline({"pipeline": 2}, **cut)
        (entry,) = make_entries([make_record([make_case(grid={"pipeline": 2}, timeline=timeline, **cut)])])
        with drawing_style():
            drawn.append(draw_timeline("t", entry))
    assert "An arrow runs" in drawn[0].caption
    assert "Its 64 messages are too many to draw." in drawn[1].caption


def test_a_simulated_timeline_of_many_ranks():
    n = MOST_RANKS + 6
    timeline = make_timeline({"pipeline": n}, microbatches=4, layers=n)
    case = replace(make_case(grid={"pipeline": n}, layers=n, microbatches=4, timeline=timeline), simulated=True)
    (entry,) = make_entries([make_record([case])])
    with drawing_style():
        drawing = draw_timeline("t", entry)
    assert len(drawing.figure.axes[0].get_yticklabels()) == MOST_RANKS
    assert drawing.caption.startswith("A simulated step.")
    assert f"The first {MOST_RANKS} of {n} ranks are drawn." in drawing.caption


def test_a_case_without_a_timeline_cannot_be_drawn():
    (entry,) = make_entries([make_record([make_case()])])
    with drawing_style(), pytest.raises(ValueError, match="without a timeline"):
        draw_timeline("t", entry)


# --- tables -----------------------------------------------------------------------------------------


def test_the_table_of_splits():
    entries = make_entries([make_record(strategy_cases())])
    table = split_table(entries)
    rows = {row[1]: row for row in table.rows}
    assert rows["pipeline 2 · 1f1b M4 C2"] == ["4", "pipeline 2 · 1f1b M4 C2", "1", "2", "1", "1", "1f1b", "4", "2"]
    assert rows["data 2 × pipeline 2 · 1f1b M4"][2:6] == ["2", "2", "1", "1"]
    assert rows["serial"][6] == "—"
    assert "Virtual stages" not in table.columns
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert split_table(make_entries([make_record([make_case(1)])])) is None
    two = split_table(make_entries([make_record([make_case(1), make_case(1, microbatches=2)])]))
    assert [row[1] for row in two.rows] == ["serial", "serial · M2"]
    virtual = make_case(grid={"pipeline": 2}, order="interleaved", virtual_stages=2, microbatches=4)
    assert "Virtual stages" in split_table(make_entries([make_record([virtual])])).columns


def test_the_table_of_a_contest(contest):
    table = contest_table(contest, names(make_entries([make_record(strategy_cases())])))
    row = next(row for row in table.rows if row[1] == "pipeline 4 · 1f1b M4 C2 · numpy")
    assert row[2:8] == ["4", "149 ms", "2.77×", "2.72–2.84×", "2.91×", "95 %"]
    assert row[8:] == ["32 %", "32–33 %", "27 %", "167 MiB"]


def test_the_table_of_waits():
    case = fixed({"pipeline": 2}, timeline=make_timeline({"pipeline": 2}, **PIPELINE, step_s=4.4), **PIPELINE)
    entries = make_entries([make_record([fixed({"data": 1}), case])])
    table = wait_table(entries)
    assert [row[:3] for row in table.rows] == [["2", names(entries)[2], "0"], ["2", names(entries)[2], "1"]]
    assert len(table.columns) == len(table.rows[0])
    assert wait_table(entries[:1]) is None


# --- report -----------------------------------------------------------------------------------------


def test_the_report_has_it_all(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcrnn.reporting.figures.canvas.PNG_DPI", 20)
    stems = {p.stem for p in write_report([make_record(strategy_cases((2,)))], tmp_path)}
    assert {"strategies", "bubble", "memory", "timeline_1", "timeline_2", "timeline_3"} <= stems
    page, markdown = ((tmp_path / name).read_text("utf-8") for name in ("report.html", "report.md"))
    for text in (page, markdown):
        for part in ("Strategies at equal ranks", "Timelines", "Who waits for whom", "How the work is split"):
            assert part in text
        assert "base: each file" not in text
    assert page.count('class="wide"') == 3
    assert "![Timeline of one step of pipeline 2 · 1f1b M4 C2 · numpy" in markdown


def test_phases_of_old_and_new_records_are_in_the_order_of_a_step():
    analysis = analyse([make_record([fixed({"data": 2}), fixed({"time": 2}, bubble_bound=0.1)])])
    assert phase_names(analysis.phases) == [
        "forward", "backward", "weight_gradient", "post", "wait_recv", "wait_send", "allreduce", "update", "other",
    ]  # fmt: skip


COMMITTED = sorted(p for p in REFERENCE.iterdir() if p.is_dir() and p.name not in OTHER_RECORDS)


@pytest.mark.parametrize(
    "folder",
    [pytest.param(p, id=p.name, marks=() if p.name == "quick" else pytest.mark.thorough) for p in COMMITTED],
)
def test_reports_of_the_committed_results_still_work(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("hpcrnn.reporting.figures.canvas.PNG_DPI", 20)
    records = read_records(sorted(folder.glob("*.h5*")))
    if not records:
        pytest.skip("no results there")
    paths = write_report(records, tmp_path, of_a_kind=1)
    assert all(path.stat().st_size > 0 for path in paths)
