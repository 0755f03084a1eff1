"""Data methods, with ranks: each against another, or against the serial run, that it must be the same as.

One mpirun checks many cases, on communicators of some of its ranks.  No number of ranks divides rows, steps or units.
"""

import json

import pytest
from launching import SMALL, case_script, hpcrnn_run, mpirun

from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi

PROGRAM = """
import json, sys, time
import numpy as np
from mpi4py import MPI
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.execution.transport import GridCommunicators
from hpcrnn.grid import check_cut
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import open_workload

SIZES = {"hidden": 7, "embed": 5, "layers": 2, "batch": 11, "seq": 9, "dtype": "float64", "lr": 0.05}
world = MPI.COMM_WORLD

def train(n_ranks, n_steps, legs=1, patch=None, **flags):
    '''Losses of each step weighted by shares, the model of each rank, and the executor; None on other ranks.'''
    meeting = world.Ibarrier()
    while not meeting.Test():
        time.sleep(0.001)  # ranks share cores, and those that wait must not take them
    comm = world.Split(0 if world.rank < n_ranks else MPI.UNDEFINED, world.rank)
    if comm == MPI.COMM_NULL:
        return None
    spec, grid = build_spec({}, {**SIZES, **flags}), Grid(data=n_ranks)
    check_cut(spec, grid)
    workload = open_workload(spec)
    plan = make_plan(spec, workload, grid)
    rank, losses = comm.rank, []
    executor = plan.executor(rank, "numpy", GridCommunicators(MPI.Intracomm(comm), grid, 0, plan.nodes))
    if patch:
        patch(executor, rank)
    for step in range(n_steps):
        executor.engine.load_batch(workload.batch(step, plan.rows(rank)))
        executor.run()
        share = float(rank == 0) if plan.is_exact else plan.share(rank)
        losses.append(comm.allreduce(share * executor.engine.loss))
    pieces = executor.engine.parameter_pieces()
    model = np.concatenate([piece.value.ravel() for _, piece in sorted(pieces.items())])
    return np.array(losses), comm.allgather(model), executor

def distance(a, b):
    return float(np.abs(a - b).max())

def same(found, expected, at_most=1e-12):
    '''Whether all ranks of both runs have the same model to rounding, and losses were the same.'''
    if found is None or expected is None:
        return True
    (losses, models, _), (wanted, others, _) = found, expected
    apart = max(distance(model, others[0]) for model in models)
    return bool(apart <= at_most and distance(losses, wanted) <= at_most)

def through_nodes():
    for n, sizes in ((3, (1, 2, 3)), (4, (3,)), (5, (1, 2, 3)), (8, (3,))):
        flat = train(n, 2, data_method="allreduce_flat")
        for size in sizes:
            through = train(n, 2, data_method="hierarchical", node_size=size)
            yield f"{n} ranks in nodes of {size}", same(through, flat)

def server():
    for n in (2, 4):
        options = {"clip": 0.1, "carry": True, "microbatches": 2, "chunks": 2}
        yield f"server of {n - 1}", same(
            train(n, 5, data_method="parameter_server_sync", **options), train(1, 5, **options))

def averages():
    plain = {"optimizer": "sgd", "momentum": 0.0}
    for n in (3,):
        every = train(n, 6, data_method="local_sgd", sync_every=1, **plain)
        # Losses are of models that were averaged before: the same as those of summed gradients.
        yield f"{n} ranks average every step", same(every, train(n, 6, data_method="allreduce_flat", **plain))
        local = train(n, 9, data_method="local_sgd", sync_every=3)
        outer = train(n, 9, data_method="diloco", sync_every=3, outer_lr=1.0, outer_momentum=0.0)
        yield f"{n} ranks: diloco without momentum is local_sgd", same(outer, local)
        moved = train(n, 9, data_method="diloco", sync_every=3)
        yield f"{n} ranks: momentum matters", moved is None or distance(moved[1][0], local[1][0]) > 1e-4
        apart = train(n, 8, data_method="local_sgd", sync_every=3)
        yield f"{n} ranks: models differ between averages", apart is None or distance(*apart[1][:2]) > 1e-6
    alone = train(1, 6, data_method="local_sgd", sync_every=3)
    yield "one replica has nobody to average with", same(alone, train(1, 6))

def late():
    one = train(2, 6, data_method="parameter_server_async")
    yield "one worker is never late", same(one, train(1, 6), 0.0)
    yield "and its histogram says so", one is None or one[2].staleness is None or one[2].staleness.tolist() == [6]
    for bound in (0, 1):
        def slow(executor, rank):
            # The worker of rank 1 is slow, so that others come to the bound; only what is counted is asserted.
            if rank == 1:
                step = executor.engine.begin_step
                executor.engine.begin_step = lambda: (time.sleep(0.01), step())
        found = train(4, 12, data_method="parameter_server_async", staleness=bound, patch=slow)
        if found is not None and found[2].staleness is not None:
            counts = found[2].staleness
            yield f"bound {bound}: every gradient is counted", int(counts.sum()) == 36
            yield f"bound {bound}: staleness stays within", len(counts) == 2 * (2 * bound + 1) + 1
            if bound == 0:
                yield "in lockstep each comes after those before it", counts[:3].tolist() == [12, 12, 12]
        yield f"bound {bound}: it learns", found is None or bool(found[0][-1] < found[0][0])

def independent():
    found = train(3, 4, data_method="ensemble")
    yield "members are models of their own", found is None or distance(*found[1][:2]) > 1e-3
    pieces = train(2, 4, data_method="subsequence", carry=False)
    yield "so are those of pieces", pieces is None or distance(*pieces[1]) > 1e-3

def continued():
    '''An executor restored from the state of another goes on bit for bit.'''
    for method in ("diloco", "local_sgd"):
        whole = train(2, 7, data_method=method, sync_every=3)
        first = train(2, 4, data_method=method, sync_every=3)
        if first is None:
            continue
        state = first[2].state()
        spec = build_spec({}, {**SIZES, "data_method": method, "sync_every": 3})
        workload = open_workload(spec)
        plan = make_plan(spec, workload, Grid(data=2))
        sub = MPI.Intracomm(world.Create_group(world.group.Incl([0, 1])))
        executor = plan.executor(sub.rank, "numpy", GridCommunicators(sub, Grid(data=2)))
        executor.restore(state)
        for step in range(4, 7):
            executor.engine.load_batch(workload.batch(step, plan.rows(sub.rank)))
            executor.run()
        pieces = executor.engine.parameter_pieces()
        model = np.concatenate([piece.value.ravel() for _, piece in sorted(pieces.items())])
        yield f"{method} goes on", distance(model, whole[1][sub.rank]) == 0.0

found = []
for case in sys.argv[1:]:
    found += list(globals()[case]())
everything = world.gather(found)
if world.rank == 0:
    print("found " + json.dumps([one for rank in everything for one in rank]))
"""


def run(n_ranks, cases, tmp_path):
    ended = mpirun(n_ranks, case_script(tmp_path, PROGRAM), *cases, cwd=tmp_path, timeout=100)
    assert ended.code == 0, ended.err[-3000:]
    (line,) = (text for text in ended.out.splitlines() if text.startswith("found "))
    return json.loads(line.removeprefix("found "))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("n_ranks", "cases"),
    [(8, ["through_nodes"]), (4, ["server", "averages", "late", "independent", "continued"])],
    ids=["nodes", "models"],
)
def test_methods_are_what_they_must_be_the_same_as(n_ranks, cases, tmp_path):
    found = run(n_ranks, cases, tmp_path)
    assert len({name for name, _ in found}) > 7
    assert [name for name, holds in found if not holds] == []


METHODS = {
    "hierarchical": ("VALID", []),
    "parameter_server_async": ("APPROXIMATE", []),
    "subsequence": ("APPROXIMATE", ["--seq", "10"]),
}


@pytest.mark.parametrize(
    "method",
    [pytest.param(method, marks=() if k % 4 == 0 else pytest.mark.thorough) for k, method in enumerate(METHODS)],
)
def test_a_run_of_every_method_is_verified_recorded_and_named(method, tmp_path):
    status, flags = METHODS[method]
    ended = hpcrnn_run(3, *SMALL, "--data-method", method, *flags, "--trace", cwd=tmp_path)
    assert ended.code == 0, ended.err
    serial, case = read_record(tmp_path / "r.h5").cases
    assert serial.verdict.status == "VALID"
    assert case.verdict.status == status
    assert all(check.passed for check in case.verdict.checks)
    assert case.label.startswith(f"data 3 · {method}")
    assert case.time_s.shape[0] == 3
    assert len(case.timeline.rows_of(2)) > 1


BROKEN_AVERAGE = """
import sys
from mpi4py import MPI
from hpcrnn.execution.models import ModelAverage
right = ModelAverage.take
def take(self):
    right(self)
    if MPI.COMM_WORLD.rank == 1:
        self._parameters *= 1.001
ModelAverage.take = take
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""

BROKEN_SCALE = """
import sys
from hpcrnn.benchmarks.planning import Plan
right = Plan.extent
def extent(self, rank):
    from dataclasses import replace
    found = right(self, rank)
    return replace(found, scale=found.scale * (1.01 if rank == 1 else 1.0))
Plan.extent = extent
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("script", "method", "quantity"),
    [
        (BROKEN_AVERAGE, "diloco", "parameter agreement of ranks"),
        (BROKEN_SCALE, "ensemble", "gradient "),
        (BROKEN_SCALE, "subsequence", "gradient "),
    ],
)
def test_machinery_that_is_broken_is_invalid_though_the_method_is_inexact(script, method, quantity, tmp_path):
    ended = mpirun(2, case_script(tmp_path, script), *map(str, SMALL), "--data-method", method, cwd=tmp_path)
    assert ended.code == 2, ended.err
    case = read_record(tmp_path / "r.h5").cases[-1]
    assert case.verdict.status == "INVALID"
    assert any(check.quantity.startswith(quantity) for check in case.verdict.checks if not check.passed)


DIES = """
import os, signal, sys
from mpi4py import MPI
from hpcrnn.backends.numpy.engine import NumpyEngine
right, calls = NumpyEngine.begin_step, []
def begin_step(self):
    calls.append(1)
    if MPI.COMM_WORLD.rank == {rank} and len(calls) > 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return right(self)
NumpyEngine.begin_step = begin_step
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(("rank", "method"), [(0, "parameter_server_async"), (2, "parameter_server_sync")])
def test_a_server_or_worker_that_is_killed_ends_the_job(rank, method, tmp_path):
    script = case_script(tmp_path, DIES.format(rank=rank))
    flags = ["--data-method", method, "--max-repeats", "1000", "--min-repeats", "1000"]
    # The timeout is the assertion: ranks that wait for the dead for ever fail here.
    ended = mpirun(3, script, *map(str, SMALL), *flags, cwd=tmp_path, timeout=30)
    assert ended.code != 0
    assert not (tmp_path / "r.h5").exists()
