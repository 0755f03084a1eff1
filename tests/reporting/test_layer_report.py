"""The record, table and figures of a layer benchmark; no GPU needed."""

import math
from itertools import pairwise

import numpy as np
import pytest

from hpcrnn.backends.layer_case import PASSES, LayerArrays, LayerCase, solve_layer
from hpcrnn.benchmarks.layers import FOLD_TOLERANCE, main, named_case, preset_cases
from hpcrnn.errors import FileError
from hpcrnn.records.layers import LayerRecord, LayerTiming, read_layer_record, write_layer_record
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.layers import (
    floor_us,
    geometric_mean,
    layer_table,
    markdown,
    ratio_figure,
    ratio_of,
    roofline_figure,
    solve_table,
    step_us,
    write_report,
)

FOLDED = [case for case in preset_cases() if case.is_folded]
SOLVED = {
    "rounds_forward": 2,
    "steps_forward": 280,
    "meeting_forward": 24,
    "unmet_forward": 0,
    "residual_forward": 0.0,
    "rounds_backward": 3,
    "steps_backward": 290,
    "meeting_backward": 0,
    "unmet_backward": 7,
    "residual_backward": 1.5e-6,
}


def make_record(ratio=3.0, chosen=None):
    """Invent timings of the first presets, or of given cases."""
    rng = np.random.default_rng(0)
    cases = []
    for case in chosen or preset_cases()[:3]:
        facts = {name: getattr(case, name) for name in ("name", "cell", "precision", "B", "T", "H", "D", "group")}
        facts |= {"kernel": "persistent forward; stepwise backward", "peer_kernel": "peer", "error_steps": 16}
        facts |= {f"flops_{which}": case.flops(which) for which in PASSES}
        facts |= {f"least_bytes_{which}": case.least_bytes(which) for which in PASSES}
        if case.is_folded:
            facts |= {"fold": case.fold, "tolerance": case.tolerance, "error_steps": 32 * case.fold} | SOLVED
        ours = {which: 2e-3 * (1 + 0.01 * rng.random(9)) for which in PASSES}
        peer = {which: samples * ratio for which, samples in ours.items()}
        cases.append(LayerTiming(facts, ours, peer, {"y": 1e-3, "dW": 2e-3}, {"y": 3e-3, "dW": 4e-3}))
    ceilings = {"copy_bytes_per_s": 4e12, "bfloat16_flops_per_s": 8e14, "float32_flops_per_s": 5e13}
    return LayerRecord("2026-01-01T00:00:00+00:00", "A GPU", {"packages": {"torch": "2"}}, ceilings, tuple(cases))


def test_a_record_comes_back_from_its_file(tmp_path):
    record, path = make_record(), tmp_path / "a" / "layers.h5"
    write_layer_record(record, path)
    found = read_layer_record(path)
    assert (found.device, found.created_utc, found.ceilings) == (record.device, record.created_utc, record.ceilings)
    assert len(found.cases) == 3
    for ours, theirs in zip(found.cases, record.cases, strict=True):
        assert ours.facts == theirs.facts
        assert ours.errors == theirs.errors
        assert ours.peer_errors == theirs.peer_errors
        for which in PASSES:
            np.testing.assert_array_equal(ours.ours_s[which], theirs.ours_s[which])
            np.testing.assert_array_equal(ours.peer_s[which], theirs.peer_s[which])


def test_what_solves_did_comes_back_too(tmp_path):
    record, path = make_record(chosen=FOLDED), tmp_path / "layers.h5"
    write_layer_record(record, path)
    assert [case.facts for case in read_layer_record(path).cases] == [case.facts for case in record.cases]


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(FileError, match="cannot be read as a layer benchmark"):
        read_layer_record(tmp_path / "x.h5")


def test_the_ratio_is_the_peers_time_over_ours():
    record = make_record(ratio=3.0)
    for case in record.cases:
        ratio = ratio_of(case, "training")
        assert ratio.median == pytest.approx(3.0)
        assert ratio.low < 3.0 < ratio.high
        assert step_us(case, "training", peer=True) == pytest.approx(3 * step_us(case, "training"))
    row = layer_table(record, "inference").rows[0]
    assert row[:2] == ["lstm bfloat16 B16 H512 T1024", "PS"]
    assert row[4] == "3.00×"
    assert row[-2:] == ["2.0e-3", "4.0e-3"]
    assert "| bfloat16: cuDNN step by step | 3.00× | 3.00× |" in markdown(record)


def test_the_floor_is_the_larger_of_arithmetic_and_memory():
    record = make_record()
    case = record.cases[0]
    flops, moved = case.facts["flops_inference"] / 8e14, case.facts["least_bytes_inference"] / 4e12
    assert floor_us(record, case, "inference") == pytest.approx(max(flops, moved) / 1024 * 1e6)


def test_the_geometric_mean_of_ratios():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert math.isnan(geometric_mean([]))


def test_the_report_has_a_text_and_two_figures(tmp_path):
    write_report(make_record(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.md", "layers_ratio.png", "layers_roofline.png"]


def test_operations_and_bytes_by_hand():
    case = LayerCase("gru", "bfloat16", 5, 7, 6, 4)
    assert case.flops("inference") == 2 * 7 * 5 * 18 * (4 + 6)
    assert case.flops("training") == 3 * case.flops("inference")
    assert case.least_bytes("inference") == 2 * (7 * 5 * (4 + 6) + 18 * (4 + 6))


def test_a_layer_solved_in_float64_has_every_quantity():
    case = LayerCase("gru", "float32", 5, 7, 6, 4)
    arrays = LayerArrays.draw(case, 0)
    found = solve_layer(case, arrays)
    assert {name: a.shape for name, a in found.items()} == {
        "y": (7, 5, 6),
        "dx": (7, 5, 4),
        "dW": (4, 18),
        "dR": (6, 18),
        "db": (18,),
        "dbR": (6,),
    }
    assert all(a.dtype == np.float64 for a in found.values())


def test_a_folded_layer_is_named_by_its_fold_and_told_by_the_steps_of_its_sequence():
    case = FOLDED[0]
    assert (case.name, case.tolerance) == ("lstm bfloat16 B1 H512 T65536 fold 256", 2**-7)
    record = make_record(chosen=[case])
    assert layer_table(record, "training").rows[0][0] == case.name
    assert step_us(record.cases[0], "training") == pytest.approx(2e-3 / 65536 * 1e6, rel=0.02)
    whole = LayerCase("lstm", "bfloat16", 1, 65536, 512, 512)
    assert case.flops("training") == whole.flops("training")  # what is computed again is no work done
    text = markdown(make_record(chosen=[*preset_cases()[:1], *FOLDED]))
    assert "| one long row, folded | 3.00× | 3.00× |" in text
    assert "over 16 steps or the whole sequence" in text
    assert "Errors are over 4096 or 8192 steps in as many segments" in text
    assert "cuDNN takes 65535 steps at the most" in text


def test_the_solves_have_a_row_a_direction():
    rows = solve_table(make_record(chosen=FOLDED[:1])).rows
    name = "lstm bfloat16 B1 H512 T65536 fold 256"
    assert rows == [
        [name, "forward", "7.8e-3", "2", "280 of 65536", "24", "0", "0"],
        [name, "backward", "7.8e-3", "3", "290 of 65536", "0", "7", "1.5e-6"],
    ]


def test_without_folded_layers_nothing_is_said_of_them():
    text = markdown(make_record())
    assert "Fold" not in text
    assert "egments" not in text


@pytest.mark.parametrize("chosen", [None, FOLDED, preset_cases()], ids=["short names", "long names", "all"])
def test_nothing_in_a_figure_is_cut_off_or_overlaps(chosen):
    chosen = [case for case in chosen or preset_cases()[:3] if case.precision in ("bfloat16", "float32")]
    with drawing_style():
        for figure in (draw(make_record(400.0, chosen)) for draw in (ratio_figure, roofline_figure)):
            figure.canvas.draw()
            (ax,), (legend,) = figure.axes, figure.legends
            drawn, size = figure.get_tightbbox(), figure.get_size_inches()
            assert (drawn.min >= 0).all(), drawn
            assert (drawn.max <= size).all(), drawn
            assert not legend.get_window_extent().overlaps(ax.xaxis.label.get_window_extent())
            ticks = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
            assert all(left.x1 < right.x0 for left, right in pairwise(ticks))


def test_a_record_without_a_peer_has_no_ratios(tmp_path):
    record = make_record(chosen=[*preset_cases()[:1], *FOLDED])
    alone = {which: np.empty(0) for which in PASSES}
    cases = tuple(LayerTiming(case.facts, case.ours_s, alone, case.errors, {}) for case in record.cases)
    record = LayerRecord(record.created_utc, record.device, record.environment, record.ceilings, cases)
    write_report(record, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.md", "layers_roofline.png"]
    assert layer_table(record, "inference").rows[1][3:6] == ["—", "—", "—"]
    assert layer_table(record, "inference").rows[1][-1] == "—"
    assert "nan" not in (tmp_path / "layers.md").read_text().lower()


@pytest.mark.parametrize("name", [case.name for case in preset_cases()])
def test_a_case_can_be_asked_for_by_its_name(name):
    (preset,) = [case for case in preset_cases() if case.name == name]
    asked = named_case(name.replace(" ", ","))
    assert asked.name == name
    assert (asked.D, asked.tolerance, asked.group) == (preset.D, preset.tolerance, "asked for")


def test_folded_presets_are_one_long_row_of_both_cells_in_both_precisions():
    assert {(case.cell, case.precision) for case in FOLDED} == {
        (cell, precision) for cell in ("lstm", "gru") for precision in ("float32", "bfloat16")
    }
    for case in FOLDED:
        assert (case.B, case.T, case.H, case.D, case.group) == (1, 65536, 512, 512, "one long row, folded")
        assert case.tolerance == FOLD_TOLERANCE[case.precision]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--repetitions", "0"], "--repetitions"),
        (["--repetitions", "two"], "--repetitions"),
        (["--limit", "0"], "--limit"),
        (["--limit", "nan"], "--limit"),
        (["--total", "-1"], "--total"),
        (["--ceilings", "0"], "--ceilings"),
        (["--only", "no such"], "--only 'no such': allowed is a part of a case's name or group: bfloat16: cuDNN"),
        (["--case", "lstm"], "--case 'lstm': allowed is a name such as"),
        (["--case", "lstm,float32,B0,H8,T4"], "allowed are sizes of at least one"),
        (["--case", "lstm,float32,B1,H8,T4,fold,5"], "at most T segments"),
        (["--on", "lstm"], "unrecognized"),
    ],
)
def test_bad_input_is_one_line(flags, said, capsys):
    assert main(flags) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("hpcrnn: error: ")
    assert said in written.err
    assert written.err.count("\n") == 1
