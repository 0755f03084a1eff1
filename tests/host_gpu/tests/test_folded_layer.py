"""A layer whose segments of time run at once: what it computes, what it says of its solves, the benchmark around it.

Executed by the stand-in for CuPy, or by a GPU where there is one.
"""

import os

import numpy as np
import pytest

from hpcrnn.backends.layer_case import PASSES, LayerArrays, LayerCase, solve_layer
from hpcrnn.benchmarks.layers import ALLOWED_ERROR, FOLD_TOLERANCE, main, measure, named_case
from hpcrnn.execution.farewell import Farewell
from hpcrnn.records.layers import read_layer_record
from hpcrnn.records.output import Output
from hpcrnn.reporting.layers import write_report

EVEN, UNEVEN = 48, 50  # four segments of 12 steps, or two of 13 and two of 12


def folded(cell, precision, T=UNEVEN, fold=4):
    return LayerCase(cell, precision, 2, T, 16, 8, fold=fold, tolerance=FOLD_TOLERANCE[precision])


def make_layer(case, seed=0, **options):
    from hpcrnn.backends.cupy.device import open_device
    from hpcrnn.backends.cupy.folded_layer import CupyFoldedLayer
    from hpcrnn.backends.cupy.layer import store_and_widen

    device = open_device(shared=True)
    arrays = LayerArrays.draw(case, seed).rounded(lambda a: store_and_widen(device, case.precision, a))
    return CupyFoldedLayer(case, arrays, **options), arrays


def errors(found, expected):
    assert found.keys() == expected.keys()
    return {name: np.linalg.norm(found[name] - a) / np.linalg.norm(a) for name, a in expected.items()}


@pytest.mark.parametrize("T", [EVEN, UNEVEN])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_every_quantity_is_the_float64_cells(cell, precision, T):
    case = folded(cell, precision, T)
    layer, arrays = make_layer(case)
    for which in ("inference", *PASSES):  # nothing of one pass is left for the next
        assert layer.run(which) > 0
    off = errors(layer.results(), solve_layer(case, arrays))
    assert max(off.values()) <= ALLOWED_ERROR[precision], off


def test_a_stepwise_layer_too():
    case = folded("lstm", "float16")
    layer, arrays = make_layer(case, kernel="stepwise")
    assert layer.kernel.startswith("stepwise forward")
    assert "; stepwise backward" in layer.kernel
    layer.run("training")
    assert max(errors(layer.results(), solve_layer(case, arrays)).values()) <= ALLOWED_ERROR["float16"]


def test_what_the_solves_did():
    case = folded("gru", "float32", T=128)
    layer, _ = make_layer(case)
    layer.run("training")
    facts = layer.solve_facts()
    for way in ("forward", "backward"):
        assert facts[f"rounds_{way}"] == 2
        assert 0 < facts[f"meeting_{way}"] < 32
        # Backward, a tile takes a step more before it knows that it has met.
        assert facts[f"steps_{way}"] == 32 + facts[f"meeting_{way}"] + (way == "backward")
        assert facts[f"unmet_{way}"] == 0
        assert facts[f"residual_{way}"] <= case.tolerance
    assert all(isinstance(value, int | float) for value in facts.values())  # a file keeps them as they are


def test_a_case_is_measured_and_its_record_comes_back(tmp_path):
    path = tmp_path / "layers.h5"
    cases = [named_case("gru float32 B2 H16 T50 fold 4"), named_case("gru,float32,B2,H16,T50")]
    output, farewell = Output(path, overwrite=False, key="--out"), Farewell(os._exit)
    measured = measure(cases, output, farewell, 6, 0.01, peer=False, ceilings_n=16)
    assert not measured.wrong
    assert not measured.left_out
    record = read_layer_record(path)
    assert [case.facts for case in record.cases] == [case.facts for case in measured.record.cases]
    folded, plain = record.cases
    assert folded.facts["name"] == "gru float32 B2 H16 T50 fold 4"
    assert (folded.facts["fold"], folded.facts["tolerance"], folded.facts["error_steps"]) == (4, 1e-5, 50)
    assert folded.facts["rounds_forward"] >= 2
    assert "fold" not in plain.facts
    assert plain.facts["error_steps"] == 16
    for case in record.cases:
        assert [case.ours_s[which].size for which in PASSES] == [6, 6]
        assert [case.peer_s[which].size for which in PASSES] == [0, 0]
        assert max(case.errors.values()) <= 1e-5
    write_report(record, tmp_path / "report")
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["layers.md", "layers_roofline.png"]


def test_a_layer_that_is_not_right_is_said_and_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(ALLOWED_ERROR, "float32", 1e-12)
    path = tmp_path / "layers.h5"
    names = [f"--case=elman,{precision},B1,H16,T8" for precision in ("float32", "bfloat16")]
    flags = ["--no-peer", "--ceilings", "16", "--repetitions", "1", "--out", str(path)]
    assert main([*names, *flags]) == 2
    assert "error: elman float32 B1 H16 T8: not right, not timed" in capsys.readouterr().err
    assert [case.facts["precision"] for case in read_layer_record(path).cases] == ["bfloat16"]


def test_cases_for_which_there_is_no_time_are_left_out(tmp_path, capsys):
    path = tmp_path / "layers.h5"
    flags = ["--no-peer", "--ceilings", "16", "--total", "1e-9", "--case", "gru,float32,B1,H16,T8", "--out", str(path)]
    assert main(flags) == 0
    assert capsys.readouterr().out == "no time left for: gru float32 B1 H16 T8\n"
    assert not path.exists()
