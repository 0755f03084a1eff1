"""The record, table and figures of a layer benchmark; no GPU needed."""

import math

import numpy as np
import pytest

from hpcrnn.backends.layer_case import PASSES, LayerArrays, LayerCase, solve_layer
from hpcrnn.benchmarks.layers import preset_cases
from hpcrnn.errors import FileError
from hpcrnn.records.layers import LayerRecord, LayerTiming, read_layer_record, write_layer_record
from hpcrnn.reporting.layers import floor_us, geometric_mean, layer_table, markdown, ratio_of, step_us, write_report


def make_record(ratio=3.0):
    rng = np.random.default_rng(0)
    cases = []
    for case in preset_cases()[:3]:
        facts = {name: getattr(case, name) for name in ("name", "cell", "precision", "B", "T", "H", "D", "group")}
        facts |= {"kernel": "persistent forward; stepwise backward", "peer_kernel": "peer", "error_steps": 16}
        facts |= {f"flops_{which}": case.flops(which) for which in PASSES}
        facts |= {f"least_bytes_{which}": case.least_bytes(which) for which in PASSES}
        ours = {which: 2e-3 * (1 + 0.01 * rng.random(9)) for which in PASSES}
        peer = {which: samples * ratio for which, samples in ours.items()}
        cases.append(LayerTiming(facts, ours, peer, {"y": 1e-3, "dW": 2e-3}, {"y": 3e-3, "dW": 4e-3}))
    ceilings = {"copy_bytes_per_s": 4e12, "bfloat16_flops_per_s": 8e14}
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
