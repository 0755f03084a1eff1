"""Every strategy computes what a float64 serial run computes, and trains along the same path.

One mpirun checks many cases, because starting ranks takes longer than checking.  T, B, D and H are pairwise
distinct, and no number of ranks divides them.
"""

import json

import pytest
from launching import case_script, mpirun

pytestmark = pytest.mark.mpi

# 13 hidden units, 11 rows, 9 steps, 7 inputs: 2, 4 and 8 ranks divide none of them.
SIZES = {"hidden": 13, "embed": 7, "layers": 4, "batch": 11, "seq": 9}

PROGRAM = """
import json, sys
import numpy as np
import msgspec
from hpcrnn.benchmarks.verification import verify
from hpcrnn.benchmarks.ways import SERIAL, Way
from hpcrnn.errors import HpcrnnError
from hpcrnn.execution.world import World, fail
from hpcrnn.grid import resolve_grid
from hpcrnn.spec import build_spec
from hpcrnn.workloads import open_workload

def with_parallel(spec, parallel):
    return msgspec.structs.replace(spec, parallel=parallel)

def resolved(overrides, size):
    spec = build_spec({}, overrides)
    grid = resolve_grid(spec, size)
    return with_parallel(spec, msgspec.structs.replace(spec.parallel, grid=grid))

def check(overrides):
    # Cases of one problem share its reference.
    parallels = [{"microbatches": 1, "chunks": 1, **parallel} for parallel in overrides.pop("parallels")]
    ways = [Way("numpy", resolved({**overrides, **parallel}, world.size)) for parallel in parallels]
    verdicts = verify(ways, open_workload(ways[0].spec), world)
    return [(str(way.spec.parallel), verdicts[way].status, str(verdicts[way].worst)) for way in ways]

def train(overrides):
    way = Way("numpy", resolved(overrides, world.size))
    workload, paths = open_workload(way.spec), []
    for one in (way, Way("numpy", with_parallel(way.spec, SERIAL))):
        plan, path = one.plan(workload), []
        rank = world.rank if one is way else 0
        executor = plan.executor(rank, "numpy", world.communicators(one.grid))
        rows = plan.rows(rank)
        for step in range(20):
            executor.engine.load_batch(workload.batch(step, rows))
            executor.run()
            path.append((executor.engine.loss, executor.gradient_norm))
        paths.append(path)
    error = np.abs(np.array(paths[0]) / np.array(paths[1]) - 1).max()
    fell = paths[1][-1][0] < paths[1][0][0]
    return bool(fell), float(error)

world = World.start()
try:
    do = {"check": check, "train": train}[sys.argv[1]]
    found = [(case, do(case)) for case in json.loads(sys.argv[2])]
except BaseException as error:
    fail(world, error)
if world.is_root:
    print("found " + json.dumps(found))
"""


def run_cases(n_ranks, what, cases, tmp_path):
    """Return what was found, case by case."""
    cases = [{**SIZES, **case} for case in cases]
    ended = mpirun(n_ranks, case_script(tmp_path, PROGRAM), what, json.dumps(cases), cwd=tmp_path, timeout=100)
    assert ended.code == 0, ended.err[-3000:]
    (line,) = (text for text in ended.out.splitlines() if text.startswith("found "))
    return json.loads(line.removeprefix("found "))


def orders(grid):
    """Every order on a grid; some micro-batches and chunks, that divide neither rows nor steps."""
    names = ["fill_drain", "1f1b", "seq_1f1b", "zb_h1"]
    if "pipeline" in grid and "time" not in grid:
        names.append("interleaved")
    for name in names:
        stages = {"virtual_stages": 2} if name == "interleaved" else {}
        yield {"grid": grid, "order": name, "microbatches": 3, "chunks": 2, **stages}


CELLS = [
    {"cell": "elman"},
    {"cell": "lstm"},
    {"cell": "gru"},
    {"cell": "gru", "reset": "before"},
    {"cell": "mingru"},
    {"cell": "minlstm", "forget_init": "chrono", "chrono_span": 9},
]

ONE_AXIS = {
    1: ["data=1"],
    2: ["data=2", "pipeline=2", "time=2", "tensor=2"],
    3: ["data=3", "pipeline=3", "time=3", "tensor=3"],
}

PAIRS = [
    "data=2,pipeline=2",
    "data=2,time=2",
    "data=2,tensor=2",
    "pipeline=2,time=2",
    "pipeline=2,tensor=2",
    "time=2,tensor=2",
]


def assert_all_valid(found):
    wrong = [(problem, *verdict) for problem, verdicts in found for verdict in verdicts if verdict[1] != "VALID"]
    assert not wrong


@pytest.mark.parametrize("n_ranks", [pytest.param(n, marks=() if n == 2 else pytest.mark.thorough) for n in ONE_AXIS])
def test_every_axis_alone_is_exact_for_every_cell_and_order(n_ranks, tmp_path):
    grids = ONE_AXIS[n_ranks]
    every_order = {"layers": 6, "parallels": [case for grid in grids for case in orders(grid)]}
    cuts = [{"grid": grid, "microbatches": 2, "chunks": 3} for grid in grids]
    every_cell = [{**cell, "parallels": [{"grid": grid} for grid in grids] + cuts} for cell in CELLS]
    assert_all_valid(run_cases(n_ranks, "check", [every_order, *every_cell], tmp_path))


def test_every_pair_of_axes_is_exact_for_every_cell_and_order(tmp_path):
    four = [{"grid": grid, "microbatches": 2} for grid in ("pipeline=4", "time=4", "tensor=4")]
    every_order = {"parallels": [case for grid in PAIRS for case in orders(grid)] + four}
    every_cell = [{**cell, "parallels": [{"grid": grid} for grid in PAIRS]} for cell in CELLS]
    assert_all_valid(run_cases(4, "check", [every_order, *every_cell], tmp_path))


@pytest.mark.thorough
def test_three_axes_on_eight_ranks_are_exact(tmp_path):
    grids = ["data=2,pipeline=2,time=2", "pipeline=2,time=2,tensor=2", "data=2,time=2,tensor=2", "tensor=8", "time=8"]
    parallels = [{"grid": grid, "microbatches": 2 if "data" not in grid else 3} for grid in grids]
    cases = [{**cell, "parallels": parallels} for cell in CELLS[1:3]]
    cases.append({"layers": 9, "parallels": [{"grid": "pipeline=8", "microbatches": 3, "order": "1f1b"}]})
    assert_all_valid(run_cases(8, "check", cases, tmp_path))


@pytest.mark.parametrize("workload", ["adding", "synthetic"])
def test_every_axis_is_exact_on_features_and_every_loss(workload, tmp_path):
    parallels = [{"grid": grid, "microbatches": 2, "chunks": 2} for grid in ONE_AXIS[2]]
    more = [{}, {"mode": "gradient"}, {"mode": "forward"}, {"mode": "gradient", "input": "direct", "embed": None}]
    cases = [{"workload": workload, "parallels": parallels, **case} for case in more]
    assert_all_valid(run_cases(2, "check", cases, tmp_path))


TRAINING = {"dtype": "float64", "optimizer": "sgd", "lr": 0.1, "clip": 0.5}


@pytest.mark.parametrize(
    ("n_ranks", "grids"),
    [
        (1, ["data=1"]),
        (2, ONE_AXIS[2]),
        pytest.param(3, ONE_AXIS[3], marks=pytest.mark.thorough),
        pytest.param(4, PAIRS, marks=pytest.mark.thorough),
        (8, ["data=2,pipeline=2,time=2"]),
    ],
)
def test_twenty_steps_of_training_stay_on_the_serial_path(n_ranks, grids, tmp_path):
    cases = [{"grid": grid, "microbatches": 2, "order": "1f1b", "carry": True, **TRAINING} for grid in grids]
    if n_ranks < 4:
        cases += [{"grid": grid, "order": "zb_h1", **TRAINING, "optimizer": "adam", "lr": 0.01} for grid in grids]
    for case, (fell, error) in run_cases(n_ranks, "train", cases, tmp_path):
        assert fell, case
        # Twenty steps of float64 rounding, 1e-16 each, grown by a factor of a few thousand at the most.
        assert error < 1e-11, case


def test_carried_states_change_what_is_learned(tmp_path):
    """Else the tests above would not see whether anything is carried."""
    script = case_script(
        tmp_path,
        PROGRAM.replace("return bool(fell), float(error)", "return [loss for loss, _ in paths[1]], 0.0"),
    )
    cases = [{**SIZES, **TRAINING, "carry": carry} for carry in (False, True)]
    ended = mpirun(1, script, "train", json.dumps(cases), cwd=tmp_path)
    assert ended.code == 0, ended.err
    (_, (plain, _)), (_, (carried, _)) = json.loads(ended.out.removeprefix("found "))
    assert plain[0] == carried[0]
    assert plain[1] != carried[1]
