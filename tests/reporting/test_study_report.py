"""The figures of a study of time-parallel methods: each from its table, whatever is there."""

from __future__ import annotations

import numpy as np
import pytest
from study_factory import chaos_table, make_study, make_table, speedup_table, tolerance_table, training_table

from hpcrnn.records.study import StudyTable, write_study_record
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.study.chaos import draw_chaos
from hpcrnn.reporting.study.page import draw_study, main, write_report
from hpcrnn.reporting.study.theory import draw_speedup, draw_tolerance
from hpcrnn.reporting.study.training import draw_training


def subset(table, chosen):
    return StudyTable(table.name, {k: v[chosen] for k, v in table.columns.items()}, table.units, table.facts)


def legend_of(drawing):
    return [text.get_text() for text in drawing.figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def drawings():
    with drawing_style():
        return {drawing.name: drawing for _, drawing in draw_study(make_study())}


def test_every_table_has_its_figure(drawings):
    assert list(drawings) == [
        "time_speedup", "time_training", "time_tolerance", "time_chaos_forget_bias", "time_chaos_gain"
    ]  # fmt: skip
    assert all(len(d.alt) > 40 and d.caption and d.title for d in drawings.values())


def test_nothing_overlaps_and_all_is_on_the_sheet(drawings):
    for drawing in drawings.values():
        figure = drawing.figure
        renderer = figure.canvas.get_renderer()
        boxes = [ax.get_tightbbox(renderer) for ax in figure.axes]
        boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
        boxes += [text.get_window_extent(renderer) for text in figure.texts]
        width, height = figure.bbox.width, figure.bbox.height
        assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in boxes), drawing.name
        # A pixel may be shared: tick labels of neighbouring panels may touch.
        smaller = [(b.x0 + 1, b.y0 + 1, b.x1 - 1, b.y1 - 1) for b in boxes]
        for k, a in enumerate(smaller):
            for b in smaller[:k]:
                assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3], drawing.name


def test_speedup_by_hand():
    rows = [
        {"cell": "lstm", "init": "default", "direction": "forward", "segments": 8, "T": 1024, "meeting": 32.0,
         "critical_steps": 160, "speedup_steps": 6.4},
        {"cell": "lstm", "init": "chrono", "direction": "backward", "segments": 8, "T": 1024, "meeting": np.nan,
         "critical_steps": 1024, "speedup_steps": 1.0},
    ]  # fmt: skip
    with drawing_style():
        drawing = draw_speedup(make_table("speedup", rows))
    points = [line.get_xydata() for line in drawing.figure.axes[0].lines if line.get_marker() in ("o", "s")]
    drawn = np.concatenate([p for p in points if len(p)])
    # x = T / (m P) = 4, y = 6.4 / 8: on the theory's curve, x / (1 + x).
    assert drawn[0].tolist() == pytest.approx([4.0, 0.8])
    assert drawn[1][1] == pytest.approx(1 / 8)
    assert drawn[1][0] < drawing.figure.axes[0].get_xlim()[1]
    assert "1.00 to 1.00 times the theory" in drawing.alt
    assert "Where trajectories never met there is no m" in drawing.caption
    assert {"lstm, default", "lstm, chrono", "hollow: backward"} <= set(legend_of(drawing))
    with drawing_style():
        met = draw_speedup(make_table("speedup", rows[:1]))
    assert "never met" not in met.caption
    assert "hollow: backward" not in legend_of(met)


def test_training_has_a_column_a_workload_and_a_row_a_subject(drawings):
    axes = drawings["time_training"].figure.axes
    assert len(axes) == 5 * 2
    assert [ax.get_title(loc="left") for ax in axes[:2]] == ["trained on stdlib", "trained on adding"]
    assert [ax.get_xlabel() for ax in axes[-2:]] == ["training step"] * 2
    assert "Meeting length while trained on adding: lstm from 30 to 117" in drawings["time_training"].alt
    lyapunov = next(ax for ax in axes if ax.get_ylabel().startswith("Lyapunov"))
    assert lyapunov.get_ylim()[1] > 0  # the border of chaos is in sight


def test_training_without_some_columns():
    table = training_table(workloads=("adding",), cells=("gru",))
    for name in ("gradient_error", "serial_error", "rounds_forward", "rounds_backward"):
        del table.columns[name]
    table.columns["lyapunov"] = np.full(len(table), np.nan)
    with drawing_style():
        drawing = draw_training(table)
    assert [ax.get_ylabel() for ax in drawing.figure.axes] == ["meeting length\n[time steps]", "loss"]


def test_the_serial_error_is_a_line_beside_the_tolerance(drawings):
    drawing = drawings["time_tolerance"]
    above, below = drawing.figure.axes
    levels = {
        line.get_ydata()[0] for line in above.lines if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2
    }
    assert {4.3e-7, 2.1e-7} <= levels
    assert below.get_ylabel() == "critical path\n[time steps]"
    assert "lstm: 5.1e-7 at 5e-7, serial 4.3e-7." in drawing.alt
    table = tolerance_table()
    table.columns["critical_steps"] = np.full(len(table), np.nan)
    with drawing_style():
        assert len(draw_tolerance(table).figure.axes) == 1


def test_the_chaotic_region_is_outlined(drawings):
    drawing = drawings["time_chaos_gain"]
    assert [ax.get_title(loc="left") for ax in drawing.figure.axes] == [
        "elman, picard", "elman, gateprod", "lstm, picard", "lstm, gateprod"
    ]  # fmt: skip
    ax = drawing.figure.axes[0]
    assert sum(bool(patch.get_hatch()) for patch in ax.patches) == 3 * 5
    # Three fields by five: sixteen sides.
    assert len(ax.lines) == 16
    assert {"64\n= P", "2"} <= {text.get_text() for text in ax.texts}
    assert "60 of them chaotic" in drawing.alt
    assert not drawings["time_chaos_forget_bias"].figure.legends


def test_fields_that_were_not_run_are_left_empty():
    table = chaos_table()
    few = subset(table, np.arange(len(table)) % 7 != 3)
    few = subset(few, few.columns["axis"] == "gain")
    with drawing_style():
        drawing = draw_chaos(few, "gain")
        assert [d.name for _, d in draw_study(make_study(few))] == ["time_chaos_gain"]
    assert sum(len(ax.texts) for ax in drawing.figure.axes) == len(few)


@pytest.mark.parametrize(
    "table", [speedup_table(), training_table(), tolerance_table(), chaos_table()], ids=lambda t: t.name
)
@pytest.mark.parametrize("n", [0, 1])
def test_tables_of_a_row_or_none(table, n):
    with drawing_style():
        assert len(list(draw_study(make_study(subset(table, slice(0, n)))))) == n


def test_the_page_shows_what_there_is(tmp_path, capsys):
    write_study_record(make_study(tolerance_table()), tmp_path / "study.h5")
    assert main([str(tmp_path / "study.h5"), "-o", str(tmp_path / "plots" / "time")]) == 0
    out = tmp_path / "plots" / "time"
    assert sorted(path.name for path in out.iterdir()) == ["study.md", "time_tolerance.png"]
    assert "time_tolerance.png" in capsys.readouterr().out
    page = (out / "study.md").read_text("utf-8")
    assert "![Error against tolerance. lstm: 5.1e-7 at 5e-7" in page
    assert "- segments: 16" in page
    assert write_report(make_study(StudyTable("other", {})), out)[0].name == "study.md"
    assert main([str(tmp_path / "none.h5")]) == 1
    assert capsys.readouterr().err == f"hpcrnn: error: {tmp_path / 'none.h5'}: is not there\n"
