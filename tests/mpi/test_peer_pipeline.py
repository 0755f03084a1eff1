"""Our pipeline beside PyTorch's: checked first, measured in turns, and no rank left hanging."""

import json

import pytest
from peer_scripts import PeerScript, assert_differs, needs_torch, without_torch

pytestmark = [pytest.mark.mpi, pytest.mark.peer]

SCRIPT = PeerScript(
    "peer_pipeline",
    "pipeline",
    "TorchPipeline",
    ("--hidden", "6", "--batch", "8", "--seq", "5", "--layers", "3", "--parts", "2", "--max-time", "0.2"),
)


@needs_torch
@pytest.mark.parametrize(("cell", "n_ranks"), [("elman", 2), ("lstm", 3), ("gru", 2)])
def test_all_compute_the_same_and_are_measured(cell, n_ranks, tmp_path):
    ended = SCRIPT.run(n_ranks, "--cell", cell, "--out", "r.json", cwd=tmp_path)
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
    ended = SCRIPT.patched(patch, tmp_path)
    assert_differs(ended)
    assert "differs from the serial run by 0.00" in ended.error_lines[0]
    assert "round" not in ended.err


@needs_torch
def test_a_rank_that_fails_ends_all(tmp_path):
    SCRIPT.assert_a_failing_rank_ends_all(tmp_path)


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
    SCRIPT.assert_refused(n_ranks, flags, words, tmp_path)


@without_torch
def test_without_torch_one_line_says_how_to_get_it(tmp_path):
    SCRIPT.assert_says_how_to_get_torch(tmp_path)
