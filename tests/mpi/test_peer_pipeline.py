"""Our pipeline beside PyTorch's: checked first, measured in turns, and no rank left hanging."""

import importlib.util
import json

import pytest
from launching import case_script, mpirun

pytestmark = [pytest.mark.mpi, pytest.mark.peer]

MODULE = ("-m", "hpcrnn.benchmarks.peer_pipeline")
TINY = ("--hidden", "6", "--batch", "8", "--seq", "5", "--layers", "3", "--parts", "2", "--max-time", "0.2")

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")

PATCHED = """
import sys
from mpi4py import MPI
from hpcrnn.benchmarks import peer_pipeline
from hpcrnn.backends.torch.pipeline import TorchPipeline
{patch}
sys.exit(peer_pipeline.on_ranks(peer_pipeline.main))
"""


@needs_torch
@pytest.mark.parametrize(("cell", "n_ranks"), [("elman", 2), ("lstm", 3), ("gru", 2)])
def test_all_compute_the_same_and_are_measured(cell, n_ranks, tmp_path):
    ended = mpirun(n_ranks, *MODULE, *TINY, "--cell", cell, "--out", "r.json", cwd=tmp_path)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "r.json").read_text())
    names = [c["name"] for c in found["contenders"]]
    assert names[:2] == ["ours serial", "torch serial"]
    assert [name.split()[0] for name in names[2:]] == ["ours", "ours", "torch", "torch"]
    parts = (2, 4, 8) if n_ranks == 2 else (4, 8)
    assert all(f": torch {s} M={m} " in ended.err for s in ("GPipe", "1F1B") for m in parts)
    assert all(f"checked {name}:" in ended.err for name in names)
    counted = {len(c["step_s"]) for c in found["contenders"]}
    assert len(counted) == 1
    assert counted.pop() >= 1
    ratio = found["torch_over_ours"]
    assert f"{ratio['best_torch']} / {ratio['best_ours']}: {ratio['median']:.2f}" in ended.out


@needs_torch
def test_a_peer_that_computes_something_else_is_not_measured(tmp_path):
    patch = (
        "right = TorchPipeline.load_batch\n"
        "def wrong(self, batch):\n"
        "    right(self, batch)\n"
        "    if self._last: self._targets *= 1.001\n"
        "TorchPipeline.load_batch = wrong"
    )
    ended = mpirun(2, case_script(tmp_path, PATCHED.format(patch=patch)), *TINY, cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert len(ended.error_lines) == 1, ended.err
    assert "error: torch " in ended.error_lines[0]
    assert "differs from the serial run by 0.00" in ended.error_lines[0]
    assert "round" not in ended.err


@needs_torch
def test_a_rank_that_fails_ends_all(tmp_path):
    patch = (
        "def broken(self):\n"
        "    if MPI.COMM_WORLD.rank == 1: raise RuntimeError('the disk is on fire')\n"
        "    right(self)\n"
        "right, TorchPipeline.step = TorchPipeline.step, broken"
    )
    # The timeout is the assertion: rank 0 waits in gloo for what never comes.
    ended = mpirun(2, case_script(tmp_path, PATCHED.format(patch=patch)), *TINY, cwd=tmp_path, timeout=45)
    assert ended.code != 0
    assert "RuntimeError: the disk is on fire" in ended.err


@needs_torch
@pytest.mark.parametrize(
    ("n_ranks", "flags", "words"),
    [
        (1, (), "1 rank; allowed are 2 or more"),
        (2, ("--layers", "1"), "at most layers (1) stages"),
        (2, ("--batch", "7"), "problem.batch = 7: allowed is a multiple of one of 2, 4, 8"),
        (2, ("--parts", "99"), "no way of ours is left by --parts and --only; there are none"),
        (2, ("--only", "zb_h1"), "no way of torch is left by --parts and --only; there are torch GPipe M=2, "),
        (2, ("--cell", "rnn"), "--cell"),
        (2, ("--out", "."), "--out = '.': allowed is the name of a file (this is a directory)"),
    ],
)
def test_wrong_use_is_one_line(n_ranks, flags, words, tmp_path):
    ended = mpirun(n_ranks, *MODULE, *TINY, *flags, cwd=tmp_path)
    assert ended.code != 0
    assert len(ended.error_lines) == 1, ended.err
    assert words in ended.error_lines[0]
    assert "Traceback" not in ended.err


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_one_line_says_how_to_get_it(tmp_path):
    ended = mpirun(2, *MODULE, *TINY, cwd=tmp_path)
    assert ended.code == 1
    assert len(ended.error_lines) == 1
    assert "pip install torch" in ended.error_lines[0]
