"""The roofline: known answers, ceilings that are nobody else's, and figures and tables of any number of cases."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from factory import make_case, make_record
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.model.network import build_network
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.roofline import NO_CEILINGS, NOT_UNDERSTOOD, OTHER_FLOPS, interface_of, rooflines
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.roofline import CASES_A_SHEET, draw_roofline, per_rank, plan_rooflines
from hpcrnn.reporting.report.write import write_report
from hpcrnn.reporting.tables.roofline import ceiling_table, roofline_table
from hpcrnn.reporting.tables.system import system_disclosures
from hpcrnn.spec import build_spec

STEPS = [4.0, 4.1, 4.2, 4.3, 4.5, 4.6, 4.7, 4.8]


def sized(n_ranks=1, *, factor=1.0, **keys):
    """A case whose operations are those of its specification."""
    case = make_case(n_ranks, samples=[factor * s for s in keys.pop("samples", STEPS)], **keys)
    spec = build_spec(case.spec)
    network = build_network(spec, interface_of(spec, None))
    flops = network.flops(spec.problem.seq, spec.problem.batch, backward=spec.training.mode != "forward")
    return replace(case, flops=flops)


def rank(flop_per_s=100e9, bytes_per_s=10e9, **facts):
    return {
        "library": "MKL 2026.2 packed gemm",
        "gemm_flop_per_s": flop_per_s,
        "gemm_n": 1024,
        "gemm_sample_s": [0.02],
        "bandwidth_bytes_per_s": bytes_per_s,
        "bandwidth_kind": "add",
        "bandwidth_footprint_bytes": 96 << 20,
        "bandwidth_sample_s": [0.01],
        "cache_bytes": 32 << 20,
        **facts,
    }


def together(*ranks, backend="numpy", threads=1, precision="float32"):
    return {
        "backend": backend,
        "n_ranks": len(ranks),
        "threads": threads,
        "precision": precision,
        "ranks": list(ranks),
    }


def entries_of(cases, ceilings, **changes):
    record = make_record(cases, **changes)
    if ceilings is not None:
        record.environment["ceilings"] = ceilings
    return make_entries([record])


def measured(*counts):
    """Ceilings of so many equal ranks, for each count."""
    return [together(*[rank() for _ in range(n)]) for n in counts]


# --- numbers ----------------------------------------------------------------------------------------


def test_the_ceiling_of_a_case_is_the_lesser_of_the_sums_of_its_ranks():
    ceilings = [together(rank(100e9, 10e9)), together(rank(100e9, 10e9), rank(60e9, 6e9))]
    alone, both = rooflines(entries_of([sized(1), sized(2)], ceilings)).reached
    assert alone.ceilings.ridge == 10
    assert [alone.ceilings.at(x) for x in (1, 10, 100)] == [10e9, 100e9, 100e9]
    assert [both.ceilings.at(x) for x in (1, 10, 100)] == [16e9, 160e9, 160e9]
    assert both.rate.median == both.flops / 4.4
    assert (both.rate.low, both.rate.high) == (both.flops / 4.8, both.flops / 4.0)
    assert both.share.median == pytest.approx(both.rate.median / 160e9)
    assert both.share.low < both.share.median < both.share.high


def test_what_limits_a_case_depends_on_where_the_ridge_lies():
    case = sized(1)
    (one,) = rooflines(entries_of([case], measured(1))).reached
    assert one.streamed < one.cached
    middle = math.sqrt(one.streamed * one.cached)
    for ridge, bound in ((one.streamed / 2, "products"), (middle, "open"), (one.cached * 2, "memory")):
        (found,) = rooflines(entries_of([case], [together(rank(ridge * 10e9, 10e9))])).reached
        assert found.bound == bound
        assert found.share.median <= found.streamed_share.median


def test_splitting_the_batch_moves_the_parameters_once_more():
    alone, both = rooflines(entries_of([sized(1), sized(2)], measured(1, 2))).reached
    assert both.flops == alone.flops
    assert both.traffic.cached > alone.traffic.cached
    assert both.cached < alone.cached


def test_nobody_elses_ceilings_are_put_over_a_case():
    cases = [sized(1), sized(2), sized(1, backend="torch"), sized(1, threads=2), sized(1, dtype="float64")]
    found = rooflines(entries_of(cases, measured(1)))
    assert [one.entry.number for one in found.reached] == [1]
    assert found.left_out == {NO_CEILINGS: (2, 3, 4, 5)}


def test_a_record_does_not_lend_its_ceilings_to_another():
    with_them = make_record([sized(1)], seed=1)
    with_them.environment["ceilings"] = measured(1)
    found = rooflines(make_entries([make_record([sized(1)], seed=2), with_them]))
    assert [one.entry.number for one in found.reached] == [2]
    assert found.left_out == {NO_CEILINGS: (1,)}


def test_a_rank_without_a_rate_leaves_its_case_without_a_ceiling():
    for spoilt in ({"gemm_flop_per_s": None}, {"bandwidth_bytes_per_s": 0.0}, {"gemm_flop_per_s": math.nan}):
        found = rooflines(entries_of([sized(2)], [together(rank(), rank(**spoilt))]))
        assert found.left_out == {NO_CEILINGS: (1,)}
    short = together(rank(), rank()) | {"ranks": [rank()]}
    assert rooflines(entries_of([sized(2)], [short])).left_out == {NO_CEILINGS: (1,)}


def test_operations_that_are_not_the_specifications_are_not_believed():
    case = sized(1)
    found = rooflines(entries_of([replace(case, flops=1.01 * case.flops)], measured(1)))
    assert found.left_out == {OTHER_FLOPS: (1,)}


def test_a_workload_of_unknown_width_is_said_to_be():
    series = make_case(1, workload="series:a.npy")
    assert rooflines(entries_of([series], measured(1))).left_out == {NOT_UNDERSTOOD: (1,)}
    spec = build_spec(series.spec)
    record = make_record([series])
    record.environment["workload"] = {"shape": [1000, 7]}
    assert (interface_of(spec, record).input_size, interface_of(spec, record).output_size) == (7, 7)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["backend", "n_ranks", "ranks", "gemm_flop_per_s"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(section=json_values | st.lists(json_values.map(lambda v: {**measured(1)[0], "ranks": v}), max_size=2))
def test_any_section_is_read_or_passed_over(section):
    found = rooflines(entries_of([make_case(1)], section))
    assert found.reached == ()
    assert sum(map(len, found.left_out.values())) == 1


# --- tables -----------------------------------------------------------------------------------------


def test_the_table_says_what_was_attained_of_what_and_what_is_not_there():
    cases = [sized(1, factor=0.1), sized(2, factor=0.1), sized(4)]
    found = rooflines(entries_of(cases, measured(1, 2)))
    table = roofline_table(found)
    one = found.reached[0]
    assert table.rows[0][3] == f"{one.flops / 0.44 / 1e9:#.3g}"
    assert table.rows[0][4] == f"{one.flops / 0.48 / 1e9:#.3g}–{one.flops / 0.40 / 1e9:#.3g}"
    assert table.rows[0][5] == "100"
    assert table.rows[0][6] == "products"
    assert table.rows[0][7] == f"{one.flops / 0.44 / 100e9:.0%}".replace("%", " %")
    assert "Not shown, no ceilings recorded: no. 3." in table.note
    assert "matrix-product operations over compulsory bytes" in table.note


def test_a_case_above_a_ceiling_is_pointed_at():
    case = sized(1)
    (one,) = rooflines(entries_of([case], measured(1))).reached
    slow = [together(rank(1e15, one.rate.median / one.streamed * 0.9))]
    assert "some of them stayed in a cache: no. 1." in roofline_table(rooflines(entries_of([case], slow))).note
    slower = [together(rank(one.rate.median / 2, 1e15))]
    assert "Above the ceiling" in roofline_table(rooflines(entries_of([case], slower))).note


def test_ceilings_have_a_row_for_the_ranks_that_measured_together():
    small = rank(80e9, 8e9, cache_bytes=96 << 20)
    table = ceiling_table(rooflines(entries_of([sized(1), sized(2)], [together(rank()), together(rank(), small)])))
    assert table.rows == [
        ["1", "numpy, float32", "MKL 2026.2 packed gemm", "1 rank × 1 thread", "100", "10.0", "10.0"],
        ["2", "numpy, float32", "MKL 2026.2 packed gemm", "2 ranks × 1 thread", "80.0–100", "8.00–10.0 *", "10.0"],
    ]
    assert "no larger than the last-level cache" in table.note


def test_too_few_samples_have_no_interval():
    table = roofline_table(rooflines(entries_of([sized(1, samples=STEPS[:3])], measured(1))))
    assert (table.rows[0][4], table.rows[0][8]) == ("n too small", "n too small")


def test_without_ceilings_there_is_nothing():
    found = rooflines(entries_of([sized(1)], None))
    assert (roofline_table(found), ceiling_table(found)) == (None, None)
    assert list(plan_rooflines(entries_of([sized(1)], None))) == []


# --- figures ----------------------------------------------------------------------------------------


def many(n):
    return [sized(1 + k % 4, factor=1 / (1 + k), hidden=16 * (1 + k // 4), n=8) for k in range(n)]


@pytest.mark.parametrize(("n", "sheets"), [(1, 1), (2, 1), (CASES_A_SHEET, 1), (CASES_A_SHEET + 1, 2), (40, 5)])
def test_every_case_is_on_one_sheet(n, sheets):
    planned = list(plan_rooflines(entries_of(many(n), measured(1, 2, 3, 4))))
    assert len(planned) == sheets
    numbers = []
    with drawing_style():
        for sheet in planned[:2]:
            drawing = sheet.draw()
            numbers += re.findall(r"(?:^|\. )(\d+)  ", drawing.alt)
            assert_inside(drawing.figure)
    assert numbers[: min(n, 4)] == [str(k + 1) for k in range(min(n, 4))]


def assert_inside(figure):
    """Every marker and every ridge lies within the axes, and the legend within the sheet."""
    (ax,) = figure.axes
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for line in ax.lines:
        if line.get_marker() not in ("None", None, "_", "|"):
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                assert left < x < right
                assert low < y < high
    renderer = figure.canvas.get_renderer()
    box = figure.legends[0].get_window_extent(renderer)
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0


def test_two_files_never_share_a_sheet():
    records = []
    for seed in (1, 2):
        record = make_record([sized(1)], seed=seed)
        record.environment["ceilings"] = measured(1)
        records.append(record)
    sheets = list(plan_rooflines(make_entries(records)))
    assert [sheet.name for sheet in sheets] == ["roofline_1", "roofline_2"]


def test_rates_are_drawn_a_rank():
    found = rooflines(entries_of([sized(4)], measured(4))).reached
    assert per_rank(found[0])[0] == pytest.approx(found[0].rate.median / 4e9)
    with drawing_style():
        drawing = draw_roofline("roofline", found)
    (ax,) = drawing.figure.axes
    assert "a rank" in ax.get_ylabel()
    assert any(label.startswith("ceiling: numpy, 4 ranks, 100 GFLOP/s") for label in ax.get_legend_handles_labels()[1])


def test_the_report_has_the_section_where_there_are_ceilings_and_only_there(tmp_path):
    record = make_record([sized(1), sized(2)])
    record.environment["ceilings"] = measured(1, 2)
    write_report([record], tmp_path / "with")
    write_report([make_record([sized(1)])], tmp_path / "without")
    page = (tmp_path / "with" / "report.md").read_text()
    assert "## Roofline" in page
    assert "Below the roofline" in page
    assert (tmp_path / "with" / "roofline.png").exists()
    assert "## Roofline" not in (tmp_path / "without" / "report.md").read_text()


def test_the_system_section_leaves_ceilings_to_their_table():
    record = make_record([sized(1)])
    record.environment["ceilings"] = measured(1)
    assert not any("ceilings" in part.title.lower() for part in system_disclosures([record]))


def test_a_specification_this_version_does_not_know_is_passed_over():
    case = sized(1)
    spec = {**case.spec, "model": {**case.spec["model"], "cell": "lstm2"}}
    assert rooflines(entries_of([replace(case, spec=spec)], measured(1))).left_out == {NOT_UNDERSTOOD: (1,)}
