"""The peer in a run: the same problem through torch.nn, verified and timed like ours."""

import importlib.util

import numpy as np
import pytest
from launching import SMALL, hpcrnn_run

from hpcrnn.records.hdf5 import read_record

pytestmark = [pytest.mark.mpi, pytest.mark.peer]

HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_the_peer_is_verified_and_trains_alike(cell, tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--backend", "numpy,torch", "--cell", cell, "--chunks", 2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    cases = read_record(tmp_path / "r.h5").cases
    assert [(case.backend, case.n_ranks) for case in cases] == [("numpy", 1), ("torch", 1), ("numpy", 2), ("torch", 2)]
    assert all(case.verdict.status == "VALID" for case in cases)
    assert "torch" in cases[1].kernel
    for case in cases[1:]:
        # float32 training from the same weights on the same data, four steps.
        np.testing.assert_allclose(case.loss, cases[0].loss, rtol=1e-5)


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_one_line_says_how_to_get_it(tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--backend", "numpy,torch", cwd=tmp_path)
    assert ended.code == 1
    assert len(ended.error_lines) == 1
    assert "pip install torch" in ended.error_lines[0]


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_what_the_peer_cannot_do_is_refused(tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--backend", "torch", "--cell", "gru", "--reset", "before", cwd=tmp_path)
    assert ended.code == 1
    assert "model.reset = 'before'" in ended.error_lines[0]
