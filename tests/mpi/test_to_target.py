"""Training to a target by real ranks: what is recorded, and that one that is killed goes on as if it had not been."""

import numpy as np
import pytest
from launching import case_script, hpcrnn_run, mpirun

from hpcrnn.records.checkpoint import read_checkpoint
from hpcrnn.records.hdf5 import read_record, read_stored
from hpcrnn.records.invariants import examine

pytestmark = pytest.mark.mpi

SMALL = (
    "--cell", "gru", "--hidden", 16, "--layers", 2, "--batch", 8, "--seq", 12, "--lr", 0.02, "--mode", "target",
    "--no-ceilings", "--eval-every", 5, "--eval-rows", 7, "--seeds", 2,
)  # fmt: skip
FULL = """
import errno, os, sys
from hpcrnn.benchmarks import training_file
from hpcrnn.cli import main
from hpcrnn.records import whole_file
write, sync = training_file.write_checkpoint, os.fsync
def no_space(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")
def write_to_a_full_disk(checkpoint, path):
    whole_file.os.fsync = no_space
    try:
        write(checkpoint, path)
    finally:
        whole_file.os.fsync = sync
training_file.write_checkpoint = write_to_a_full_disk
sys.exit(main(["run", *sys.argv[1:]]))
"""
EXACT = ("step", "sent_bytes", "train_loss", "held_out_loss")
"""Columns that do not depend on a clock."""

KILLED = """
import os, signal, sys
from hpcrnn.benchmarks import training_file
from hpcrnn.cli import main
write, left = training_file.write_checkpoint, [int(sys.argv[1])]
def write_and_die(checkpoint, path):
    write(checkpoint, path)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
training_file.write_checkpoint = write_and_die
sys.exit(main(["run", *sys.argv[2:]]))
"""


def run(n_ranks, folder, *flags, out="r.h5", code=0):
    ended = hpcrnn_run(n_ranks, *SMALL, *flags, "--out", out, cwd=folder)
    assert ended.code == code, ended.err
    return ended


def learned(path):
    assert examine(read_stored(path)).violations == ()
    (case,) = read_record(path).cases
    return case


def curves_of(path):
    return [
        (curve.seed, curve.ending, *(getattr(curve, name).tolist()[name == "train_loss" :] for name in EXACT))
        for curve in learned(path).learning.curves
    ]


@pytest.mark.parametrize(
    ("n_ranks", "flags"), [pytest.param(1, (), marks=pytest.mark.thorough), (2, ("--grid", "pipeline=2")), (3, ())]
)
def test_each_seed_ends_at_the_target_or_is_said_not_to_have(tmp_path, n_ranks, flags):
    run(n_ranks, tmp_path, *flags, "--target-loss", 3.7, "--max-steps", 23)
    case = learned(tmp_path / "r.h5")
    assert case.verdict.status == "VALID"
    for k, curve in enumerate(case.learning.curves):
        assert curve.seed == k
        assert curve.step.tolist() == list(range(0, 5 * len(curve.step), 5))
        assert curve.reached == (curve.held_out_loss[-1] <= 3.7)
        assert curve.reached or curve.step[-1] == 20  # the last evaluation that 23 steps come to
        assert curve.held_out_loss[0] == pytest.approx(np.log(256), rel=0.05)
        assert (curve.sent_bytes[-1] > 0) == (n_ranks > 1)
    assert len(case.time_s) == sum(len(curve.step) - 1 for curve in case.learning.curves)


@pytest.mark.parametrize(
    "method",
    [
        "parameter_server_async",
        *(pytest.param(method, marks=pytest.mark.thorough) for method in ("local_sgd", "ensemble", "subsequence")),
    ],
)
def test_ranks_that_go_their_own_ways_learn_too(tmp_path, method):
    flags = ("--data-method", method, "--eval-every", 8, "--max-steps", 40, "--target-loss", 3.7)
    run(3, tmp_path, *flags)
    case = learned(tmp_path / "r.h5")
    assert case.verdict.status == "APPROXIMATE"
    assert all(curve.reached for curve in case.learning.curves)
    assert (case.staleness is not None) == (method == "parameter_server_async")
    if case.staleness is not None:  # two workers, each step of each curve
        assert case.staleness.sum() == 2 * sum(curve.step[-1] for curve in case.learning.curves)
    assert (case.learning.curves[0].sent_bytes[-1] > 0) == (method in ("parameter_server_async", "local_sgd"))


ENSEMBLE = """
import numpy as np
from hpcrnn.benchmarks.evaluation import Evaluation
from hpcrnn.benchmarks.ways import Way
from hpcrnn.execution.world import World
from hpcrnn.model.network import build_network, initial_parameters
from hpcrnn.spec import build_spec
from hpcrnn.workloads import open_held_out

world = World.start()
for workload in ("stdlib", "adding"):
    spec = build_spec({}, {"workload": workload, "hidden": 6, "batch": 3, "seq": 7, "mode": "target",
                           "target_loss": 1.0, "dtype": "float64", "grid": "data=2",
                           "data_method": "ensemble", "eval_rows": 5})
    held_out = open_held_out(spec, 5)
    evaluation = Evaluation(Way("numpy", spec), world, ensemble=True)
    own = initial_parameters(build_network(spec, held_out.interface), world.rank)
    found = evaluation.loss(own)
    said = world.comm.gather(evaluation._executor.engine.predictions())
    if world.is_root:
        batch = held_out.batch(0)
        if workload == "stdlib":
            wanted = -np.log((np.exp(said[0]) + np.exp(said[1])) / 2).mean()
        else:
            mean = (said[0] + said[1]) / 2
            wanted = ((mean - batch.targets)[:, :, 0] ** 2 * batch.weights).mean()
        assert not np.allclose(said[0], said[1])
        assert abs(found - wanted) < 1e-12 * wanted, (found, wanted)
        print("equal")
"""


def test_what_is_judged_of_an_ensemble_is_the_mean_of_what_its_models_say(tmp_path):
    ended = mpirun(2, case_script(tmp_path, ENSEMBLE), cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.split() == ["equal", "equal"]


@pytest.mark.thorough
def test_however_it_is_split_it_learns_the_same(tmp_path):
    flags = ("--target-loss", 1e-3, "--max-steps", 15, "--dtype", "float64", "--seeds", 1)
    found = []
    for n_ranks, grid in ((1, "data=1"), (3, "data=3"), (4, "pipeline=2,tensor=2"), (2, "time=2")):
        out = f"{grid}.h5"
        run(n_ranks, tmp_path, *flags, "--grid", grid, out=out)
        (curve,) = learned(tmp_path / out).learning.curves
        found.append(np.append(curve.held_out_loss, curve.train_loss[1:]))
    for losses in found[1:]:
        np.testing.assert_allclose(losses, found[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("n_ranks", "writes", "method"),
    [
        pytest.param(1, 2, (), marks=pytest.mark.thorough),
        (2, 5, ()),
        pytest.param(2, 2, ("--data-method", "diloco", "--sync-every", 5), marks=pytest.mark.thorough),
        pytest.param(2, 2, ("--grad-codec", "topk:0.1"), marks=pytest.mark.thorough),
        pytest.param(3, 1, ("--data-method", "parameter_server_sync"), marks=pytest.mark.thorough),
    ],
)
def test_a_training_that_is_killed_goes_on_bit_for_bit(tmp_path, n_ranks, writes, method):
    flags = (*method, "--target-loss", 1e-3, "--max-steps", 15, "--checkpoint", "kept.h5")
    run(n_ranks, tmp_path, *method, "--target-loss", 1e-3, "--max-steps", 15, out="whole.h5")
    script = case_script(tmp_path, KILLED)
    killed = mpirun(n_ranks, script, str(writes), *map(str, SMALL), *map(str, flags), "--out", "r.h5", cwd=tmp_path)
    assert killed.code != 0
    assert not (tmp_path / "r.h5").exists()
    before = read_checkpoint(tmp_path / "kept.h5")
    run(n_ranks, tmp_path, *flags, "--resume")
    assert curves_of(tmp_path / "r.h5") == curves_of(tmp_path / "whole.h5")
    assert learned(tmp_path / "r.h5").learning.restarts == (len(before.samples["loss"]),)


def test_one_that_is_done_is_done_and_what_may_not_be_replaced_is_not(tmp_path):
    flags = ("--target-loss", 1e-3, "--max-steps", 10, "--checkpoint", "kept.h5")
    run(1, tmp_path, *flags)
    (error,) = run(1, tmp_path, *flags, out="again.h5", code=1).error_lines
    assert "measure.checkpoint" in error
    assert "kept.h5" in error
    run(1, tmp_path, *flags, "--resume", out="again.h5")
    assert curves_of(tmp_path / "again.h5") == curves_of(tmp_path / "r.h5")
    (error,) = run(1, tmp_path, *flags, "--resume", "--hidden", 17, out="other.h5", code=1).error_lines
    assert "its model.hidden is 16, here it is 17" in error
    (tmp_path / "kept.h5").write_bytes((tmp_path / "kept.h5").read_bytes()[:-7])
    (error,) = run(1, tmp_path, *flags, "--resume", out="other.h5", code=1).error_lines
    assert "truncated" in error


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--target-loss", 6.0), "training.target_loss = 6.0: allowed is less than the held-out loss before any"),
        (("--target-loss", 2, "--resume"), "measure.resume"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, flags, told):
    ended = hpcrnn_run(2, *SMALL, *flags, "--out", "r.h5", cwd=tmp_path)
    assert ended.code == 1
    (error,) = ended.error_lines
    assert told in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("n_ranks", "flags"),
    [
        (2, ("--data-method", "parameter_server_sync")),
        (3, ("--data-method", "parameter_server_async", "--eval-every", 8)),
        *(
            pytest.param(n_ranks, flags, marks=pytest.mark.thorough)
            for n_ranks, flags in [
                (1, ()),
                (2, ()),
                (2, ("--grid", "pipeline=2")),
                (3, ("--data-method", "local_sgd", "--eval-every", 8)),
                (2, ("--data-method", "ensemble")),
                (2, ("--grad-codec", "topk:0.1")),
                (2, ("--grad-codec", "powersgd:1")),
            ]
        ),
    ],
)
def test_a_seed_that_diverges_is_a_result_and_no_rank_hangs(tmp_path, n_ranks, flags):
    """Each overflows within some legs; who notices first may be a rank that the others wait for."""
    wild = ("--cell", "elman", "--activation", "relu", "--optimizer", "sgd", "--lr", 1e12)
    ended = run(n_ranks, tmp_path, *wild, "--target-loss", 0.1, "--max-steps", 80, *flags)
    assert "diverged" in ended.out + ended.err
    case = learned(tmp_path / "r.h5")
    assert [curve.ending for curve in case.learning.curves] == ["diverged"] * 2
    assert len(case.time_s) == sum(len(curve.step) - 1 for curve in case.learning.curves)


def test_a_rank_whose_piece_has_no_targets_is_right_about_nothing(tmp_path):
    """Of the adding problem only the last piece of a sequence has any."""
    flags = ("--workload", "adding", "--data-method", "subsequence", "--target-loss", 1e-3, "--max-steps", 5)
    run(2, tmp_path, *flags, "--seeds", 1)
    case = learned(tmp_path / "r.h5")
    assert case.verdict.status == "APPROXIMATE"
    assert not case.learning.curves[0].reached


def test_a_disk_that_takes_no_checkpoint_ends_no_training(tmp_path):
    flags = (*SMALL, "--target-loss", 3.7, "--max-steps", 15, "--checkpoint", "c.h5", "--out", "r.h5")
    ended = mpirun(2, case_script(tmp_path, FULL), *map(str, flags), cwd=tmp_path)
    assert ended.code == 0, ended.err
    said = "hpcrnn: warning: c.h5: cannot be written: No space left on device; the checkpoint before is as it was"
    assert ended.err.count(said) == 1
    assert "a kill would lose what is learned from here on" in ended.err
    assert not (tmp_path / "c.h5").exists()
    assert len(learned(tmp_path / "r.h5").learning.curves) == 2
