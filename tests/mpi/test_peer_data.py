"""Our data parallelism beside PyTorch's: checked first, measured in turns, and no rank left hanging."""

import json

import numpy as np
import pytest
from peer_scripts import PeerScript, assert_differs, needs_torch, without_torch

from hpcrnn.benchmarks.peer_data import Comparison
from hpcrnn.records.statistics import Interval

pytestmark = [pytest.mark.mpi, pytest.mark.peer]

SCRIPT = PeerScript(
    "peer_data",
    "replica",
    "TorchReplica",
    ("--hidden", "6", "--batch", "7", "--seq", "5", "--layers", "3", "--max-time", "0.2"),
)
OURS = ["ours allreduce_bucketed", "ours allreduce_flat"]


@needs_torch
@pytest.mark.parametrize(("cell", "n_ranks"), [("lstm", 2), ("elman", 3)])
def test_all_train_alike_and_are_measured(cell, n_ranks, tmp_path):
    """Seven rows: the ranks' shares are uneven, and gradients must be sums, not means of means."""
    ended = SCRIPT.run(n_ranks, "--cell", cell, "--out", "r.json", cwd=tmp_path)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["problem"]["training"]["mode"] == "train"
    contenders = {c["name"]: c for c in found["contenders"]}
    names = list(contenders)
    assert names[:4] == ["ours serial", "torch serial", *OURS]
    assert [name.split(",")[0] for name in names[4:]] == ["torch DDP", "torch DDP"]
    assert all(f": torch DDP, {size} " in ended.err for size in ("default bucket", "bucket a layer", "one bucket"))
    assert all(f"checked {name}:" in ended.err for name in names)
    counted = {len(c["step_s"]) for c in contenders.values()}
    assert len(counted) == 1
    assert counted.pop() >= 1
    assert found["efficiency"].keys() == set(names[2:])
    serial = contenders[found["base"]]["step_s"]
    ratios = [a / (n_ranks * b) for a, b in zip(serial, contenders[OURS[0]]["step_s"], strict=True)]
    assert found["efficiency"][OURS[0]]["median"] == pytest.approx(np.median(ratios), rel=1e-12)
    beside_torch, beside_flat, serial_runs = found["comparisons"]
    assert (beside_torch["name"], beside_torch["rival"].split(",")[0]) == (OURS[0], "torch DDP")
    assert (beside_flat["name"], beside_flat["rival"]) == tuple(OURS)
    assert (serial_runs["name"], serial_runs["rival"]) == ("ours serial", "torch serial")
    ratio = beside_torch["rival_over_own"]["median"]
    assert f"{beside_torch['rival']} / {OURS[0]}: {ratio:.3f} [" in ended.out
    assert f"], {OURS[0]} {beside_torch['verdict']}" in ended.out


def test_a_verdict_needs_the_whole_interval():
    def verdict(low, high):
        return Comparison("own", "rival", Interval(9, 1.0, low, high)).verdict

    assert verdict(1.01, 1.2) == "faster"
    assert verdict(0.8, 0.99) == "slower"
    assert verdict(0.99, 1.01) == "undecided"
    assert verdict(float("nan"), float("nan")) == "undecided"


WRONG = {
    "other data": "def wrong(self, batch):\n    right(self, batch)\n    self._targets[0] = 0\n"
    "right, TorchReplica.load_batch = TorchReplica.load_batch, wrong",
    "gradients of one rank": "import torch\ntorch.nn.parallel.DistributedDataParallel = lambda module, **_: module",
    "another rate": "def wrong(self, *given):\n    right(self, *given)\n"
    "    self._optimizer.param_groups[0]['lr'] *= 1.1\n"
    "right, TorchReplica.__init__ = TorchReplica.__init__, wrong",
}


@needs_torch
@pytest.mark.parametrize("what", WRONG)
def test_a_peer_that_computes_something_else_is_not_measured(what, tmp_path):
    ended = SCRIPT.patched(WRONG[what], tmp_path)
    assert_differs(ended)
    if what == "another rate":  # whose first gradients are right
        assert ": loss of step " in ended.error_lines[0]
    assert "median step" not in ended.out


@needs_torch
def test_a_rank_that_fails_ends_all(tmp_path):
    SCRIPT.assert_a_failing_rank_ends_all(tmp_path)


@needs_torch
@pytest.mark.parametrize(
    ("n_ranks", "flags", "words"),
    [
        (1, (), "1 rank; allowed are 2 or more: mpirun -n 2 python -m hpcrnn.benchmarks.peer_data"),
        (2, ("--batch", "1"), "problem.batch = 1: allowed is at least one row a rank of data=2"),
        (2, ("--cell", "gru"), "--cell"),
        (2, ("--max-time", "0"), "'0': allowed is a number of seconds above zero"),
        (2, ("--out", "taken.json"), "--overwrite"),
    ],
)
def test_wrong_use_is_one_line(n_ranks, flags, words, tmp_path):
    (tmp_path / "taken.json").write_text("{}")
    SCRIPT.assert_refused(n_ranks, flags, words, tmp_path)
    assert (tmp_path / "taken.json").read_text() == "{}"


@without_torch
def test_without_torch_one_line_says_how_to_get_it(tmp_path):
    SCRIPT.assert_says_how_to_get_torch(tmp_path)
