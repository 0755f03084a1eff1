"""Compressed sums under MPI: to the bit what they are in one process, the same on all ranks, checked and recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
from launching import SMALL, case_script, hpcrnn, hpcrnn_run, mpirun

from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi

IN_PROCESS = Path(__file__).parents[1] / "compression"

PROGRAM = """
import json, sys
import numpy as np
import msgspec
sys.path.insert(0, sys.argv[1])
from ranks_in_process import Ranks
from hpcrnn.benchmarks.ways import Way
from hpcrnn.compression.stages import FlatLayout
from hpcrnn.execution.compression_watch import CompressionWatch
from hpcrnn.execution.world import World, fail
from hpcrnn.grid import resolve_grid
from hpcrnn.schedules.graph import Task
from hpcrnn.spec import build_spec
from hpcrnn.workloads import open_workload

STEPS = 5

def way_of(codec, data_method):
    overrides = {"hidden": 13, "embed": 7, "batch": 11, "seq": 9, "clip": 0.1, "optimizer": "sgd"}
    spec = build_spec({}, {**overrides, "grad_codec": codec, "data_method": data_method})
    parallel = msgspec.structs.replace(spec.parallel, grid=resolve_grid(spec, world.size))
    return Way("numpy", msgspec.structs.replace(spec, parallel=parallel))

def model(executor):
    return {name: piece.value for name, piece in executor.engine.parameter_pieces().items()}

def own_gradient(executor, parameters, batch):
    # The tasks of a step without its sums.
    engine = executor.engine
    engine.load_parameters(parameters)
    engine.load_batch(batch)
    engine.begin_step()
    run = {"F": engine.forward, "B": engine.backward, "W": engine.weight_gradient}
    for i in executor.program.instructions:
        if isinstance(i, Task):
            run[i.kind](i.block, i.microbatch, i.chunk)
    return executor.gradient().copy()

def all_alike(arrays):
    every = world.comm.allgather([a.tobytes() for a in arrays])
    return all(one == every[0] for one in every)

def check(codec, data_method):
    way, plain = way_of(codec, data_method), way_of("none", data_method)
    workload = open_workload(way.spec)
    plan = way.plan(workload)
    communicators = world.communicators(way.grid)
    executor, alone = (p.executor(world.rank, "numpy", communicators) for p in (plan, plain.plan(workload)))
    watch, rows = CompressionWatch(executor, communicators.cart), plan.rows(world.rank)
    ranks = [Ranks(codec, layout, world.size, np.float32) for layout in plan.summed_layouts()]
    found, held = {"alike": True, "same": True, "close": 0.0, "errors": []}, 0.0

    def step(executor, k):
        executor.engine.load_batch(workload.batch(k, rows))
        executor.run()

    for k in range(STEPS):
        batch, parameters = workload.batch(k, rows), model(executor)
        gradients = world.comm.allgather(own_gradient(alone, parameters, batch))
        watch.before(range(k, k + 1))
        step(executor, k)
        watch.after(range(k, k + 1))
        found["alike"] &= all_alike([executor.gradient(), *model(executor).values()])
        # In one process: every bucket by itself; what is applied is clipped.
        stops = np.cumsum([r.layout.size for r in ranks])[:-1]
        parts = zip(*(np.split(g, stops) for g in gradients))
        applied = np.concatenate([r.step(np.array(p))[0] for r, p in zip(ranks, parts, strict=True)])
        scale = executor.gradient_norm / np.linalg.norm(executor.gradient())
        clipped = applied * np.float32(0.1 / executor.gradient_norm) if scale > 1.001 else applied
        found["same"] &= np.array_equal(clipped, executor.gradient())
        found["close"] = max(found["close"], float(np.abs(clipped - executor.gradient()).max() / np.abs(clipped).max()))
        true = np.sum(gradients, axis=0, dtype=np.float64)
        found["errors"].append(float(np.linalg.norm(true - applied) / np.linalg.norm(true)))
    held = np.concatenate([r.held_back for r in ranks])
    found["backlog"] = float(np.linalg.norm(held) / np.linalg.norm(true))
    found["watched"] = [[w.step, w.error, w.backlog, len(w.held_back)] for w in watch.steps]
    found["bytes"] = [executor.sent_bytes, sum(i.n_bytes for i in executor.program.instructions if hasattr(i, "verb"))]

    # What goes on from a state goes on bit by bit, and what begins again begins again.
    state = executor.state()
    for k in (STEPS, STEPS + 1):
        step(executor, k)
    other = plan.executor(world.rank, "numpy", communicators)
    other.restore(state)
    for k in (STEPS, STEPS + 1):
        step(other, k)
    found["resumed"] = all(np.array_equal(a, b) for a, b in zip(model(executor).values(), model(other).values()))
    other.engine.restore({n.removeprefix("engine."): a for n, a in fresh(plan, communicators).items() if "engine" in n})
    other.begin_again()
    again = plan.executor(world.rank, "numpy", communicators)
    for one in (other, again):
        for k in range(2):
            step(one, k)
    found["again"] = all(np.array_equal(a, b) for a, b in zip(model(again).values(), model(other).values()))
    return found

def fresh(plan, communicators):
    return plan.executor(world.rank, "numpy", communicators).state()

world = World.start()
try:
    results = [check(*case) for case in json.loads(sys.argv[2])]
except BaseException as error:
    fail(error)
    raise
if world.is_root:
    print(json.dumps(results))
"""


@pytest.mark.parametrize(
    ("n_ranks", "codecs"),
    [
        (2, {"float16": "allreduce_flat", "topk:0.05": "allreduce_bucketed", "powersgd:2": "allreduce_bucketed"}),
        (3, {"bfloat16": "allreduce_bucketed", "int8": "allreduce_bucketed", "topk:7": "allreduce_flat"}),
        pytest.param(8, {"int8": "allreduce_flat", "powersgd:2": "allreduce_flat"}, marks=pytest.mark.thorough),
    ],
)
def test_under_mpi_it_is_what_it_is_in_one_process(n_ranks, codecs, tmp_path):
    """Bit by bit; but for the sums of PowerSGD, whose order is MPI's."""
    cases = list(codecs.items())
    script = case_script(tmp_path, PROGRAM)
    ended = mpirun(n_ranks, script, str(IN_PROCESS), json.dumps(cases), cwd=tmp_path, timeout=100)
    assert ended.code == 0, ended.err
    for (codec, _), found in zip(cases, json.loads(ended.out), strict=True):
        assert found["alike"], codec
        assert found["same"] or (codec.startswith("powersgd") and found["close"] < 1e-4), codec
        assert found["resumed"], codec
        assert found["again"], codec
        steps = [step for step, *_ in found["watched"]]
        assert steps == list(range(5)), codec
        np.testing.assert_allclose([error for _, error, *_ in found["watched"]], found["errors"], rtol=2e-3)
        np.testing.assert_allclose(found["watched"][-1][2], found["backlog"], rtol=2e-3)
        assert found["watched"][-1][3] == n_ranks
        sent, stages = found["bytes"]
        assert sent == stages + 8, codec  # and the loss


def test_a_run_is_approximate_for_the_right_reason_and_recorded(tmp_path):
    codec = "topk:0.02"
    ended = hpcrnn_run(2, *SMALL, "--grad-codec", codec, cwd=tmp_path)
    assert ended.code == 0, ended.err
    case = read_record(tmp_path / "r.h5").cases[-1]
    assert case.grad_codec == codec
    assert case.verdict.status == "APPROXIMATE"
    whole = [check for check in case.verdict.checks if check.quantity.startswith("with what is held back, gradient ")]
    assert len(whole) == 9  # of the input, two layers and the head
    assert all(check.passed for check in whole)
    assert case.verdict.gradient_error > 1e-3
    assert case.verdict.worst.quantity.startswith(("with what is held back", "loss", "state", "d"))
    compression = case.compression
    assert compression.training_step.tolist() == list(range(len(case.loss)))
    assert (compression.error > 1e-3).all()
    assert compression.coded_wire_bytes < compression.plain_wire_bytes
    assert case.bytes_sent.tolist() == [compression.coded_bytes + 8] * 2
    assert hpcrnn("verify", "r.h5", cwd=tmp_path).code == 0
    shown = " ".join(hpcrnn("show", "r.h5", cwd=tmp_path).out.split())
    assert f"gradients as {codec}: a rank sends" in shown


def test_a_codec_that_saves_nothing_is_said_so_before_the_run(tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--grad-codec", "topk:1.0", "--no-baseline", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "warning: grad_codec topk:1.0 sends 2 times the bytes of a plain sum on 2 ranks" in ended.err
    case = read_record(tmp_path / "r.h5").cases[-1]
    assert case.compression.error.max() == case.compression.backlog.max() == 0  # it leaves nothing out


BROKEN = """
import sys
from hpcrnn.compression.rounded import RoundedSum
encode = RoundedSum._encode
def forget(self, values, wire):
    encode(self, values, wire)
    values[...] = 0
if sys.argv.pop(1) == "forgets":
    RoundedSum._encode = forget
from mpi4py import MPI
from hpcrnn.backends.numpy.engine import NumpyEngine
weight_gradient = NumpyEngine.weight_gradient
def poisoned(self, *place):
    weight_gradient(self, *place)
    if MPI.COMM_WORLD.rank == 1 and MPI.COMM_WORLD.size > 1:
        self._gradients.flat[-1] = float("nan")
if sys.argv.pop(1) == "poisoned":
    NumpyEngine.weight_gradient = poisoned
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_a_codec_that_forgets_what_it_left_out_is_invalid(tmp_path):
    script, flags = case_script(tmp_path, BROKEN), (*map(str, SMALL), "--grad-codec", "int8")
    ended = mpirun(2, script, "forgets", "-", *flags, cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert "with what is held back, gradient" in ended.out + ended.err


def test_a_gradient_that_is_not_finite_on_one_rank_ends_all(tmp_path):
    script, flags = case_script(tmp_path, BROKEN), (*map(str, SMALL), "--grad-codec", "int8", "--no-baseline")
    ended = mpirun(3, script, "-", "poisoned", *flags, cwd=tmp_path, timeout=40)
    assert ended.code == 2, ended.err
    assert "the gradient of head.b is not finite on rank 1, before it was compressed" in ended.err
    assert "Traceback" not in ended.err
