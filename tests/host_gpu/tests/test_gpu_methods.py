"""Segments of time at once on the GPU: the same as on the host by the same method, and the chain where it is exact.

Executed by the stand-in for CuPy, or by a GPU where there is one.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from hpcrnn.backends.base import state_names
from hpcrnn.backends.registry import check_grid, make_engine
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.errors import SpecError
from hpcrnn.model.network import initial_parameters
from hpcrnn.records.certificate import UNMET
from hpcrnn.schedules.graph import Task
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import open_workload

T, B, H, LAYERS = 23, 3, 24, 2  # 23 steps in four segments: the last has one fewer

CELLS = {
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "gru-before": {"cell": "gru", "reset": "before"},
    "elman": {"cell": "elman"},
    "elman-relu": {"cell": "elman", "activation": "relu"},
}
KINDS = {
    "cotangent, no input layer": {"workload": "synthetic", "input": "direct", "embed": None},
    "features weighted": {"workload": "adding"},
}
TOLERANCE = 2e-5  # relative to the largest of an array, in float32
every_cell = pytest.mark.parametrize("cell", CELLS)
# A reset before the product leaves no persistent kernel.
KERNELS = [
    (cell, kernel)
    for cell in CELLS
    for kernel in ("persistent", "stepwise")
    if (cell, kernel) != ("gru-before", "persistent")
]
every_cell_and_kernel = pytest.mark.parametrize(("cell", "kernel"), KERNELS)
every_kernel = pytest.mark.parametrize("kernel", ["persistent", "stepwise"])


@dataclass
class Run:
    """One rank's engine after a step from random boundary states."""

    engine: object
    found: dict

    @classmethod
    def of(cls, backend, **overrides):
        fixed = {"hidden": H, "embed": 8, "layers": LAYERS, "batch": B, "seq": T, "mode": "gradient", "seed": 3}
        spec = build_spec({}, {**fixed, "backend": backend, **overrides})
        workload = open_workload(spec)
        plan = make_plan(spec, workload, Grid())
        engine = make_engine(backend, plan.network, plan.extent(0), spec)
        engine.load_parameters(initial_parameters(plan.network, 3))
        rng = np.random.default_rng(5)
        names = [n for b in plan.network.blocks if b.cell for n in state_names(b.name, b.cell.state_names)]
        boundary = ({name: size * rng.standard_normal((B, H)) for name in names} for size in (0.5, 1 / (B * T)))
        engine.set_boundary(*boundary)
        engine.load_batch(workload.batch(0))
        engine.begin_step()
        for task in plan.program(0).instructions:
            if isinstance(task, Task):
                call = {"F": "forward", "B": "backward", "W": "weight_gradient"}[task.kind]
                getattr(engine, call)(task.block, task.microbatch, task.chunk)
        part = engine.part()
        return cls(engine, {"loss": np.array(part.loss)} | {name: p.value for name, p in part.pieces.items()})


def assert_close(found, expected, allowed=TOLERANCE):
    assert found.keys() == expected.keys()
    for name, a in expected.items():
        size = max(np.abs(a).max(), 1 / (T * B))
        np.testing.assert_allclose(found[name], a, rtol=0, atol=allowed * size, err_msg=name)


@every_cell_and_kernel
def test_a_corrected_trajectory_is_the_chains(cell, kernel):
    given = CELLS[cell] | KINDS["cotangent, no input layer"]
    chain = Run.of("numpy", **given)
    solved = Run.of("cupy", **given, method="picard", fold=4, tolerance=1e-6, kernel=kernel)
    assert_close(solved.found, chain.found)
    assert all(found.solve.converged for found in solved.engine.solves())


@pytest.mark.parametrize("fold", [2, 5, T])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_segments_and_any_loss(kind, fold):
    chain = Run.of("numpy", cell="gru", **KINDS[kind])
    assert_close(Run.of("cupy", cell="gru", **KINDS[kind], method="picard", fold=fold).found, chain.found)


@every_cell
def test_gate_products_predict_as_on_the_host(cell):
    given = CELLS[cell] | KINDS["features weighted"] | {"method": "gateprod", "fold": 4, "tolerance": 1e-6}
    solved = Run.of("cupy", **given)
    assert_close(solved.found, Run.of("numpy", **CELLS[cell], **KINDS["features weighted"]).found)
    for ours, theirs in zip(solved.engine.solves(), Run.of("numpy", **given).engine.solves(), strict=True):
        assert len(ours.solve.steps) <= len(theirs.solve.steps) + 1


@every_kernel
@pytest.mark.parametrize(
    "way",
    [
        {"method": "tbptt_zero"},
        {"method": "tbptt_stale"},
        {"method": "burnin", "burn_in": 3},
        {"method": "overlap_verified", "burn_in": 3},
        {"method": "picard", "max_rounds": 2, "tolerance": 1e-6},
    ],
    ids=lambda way: way["method"],
)
def test_an_inexact_method_is_off_by_what_it_is_off_on_the_host(way, kernel):
    given = {"cell": "lstm", **KINDS["features weighted"], "fold": 4, **way}
    ours, theirs = Run.of("cupy", kernel=kernel, **given), Run.of("numpy", **given)
    # Two rounds: a tile of rows is run on where a row of it has not met, so it is off by up to the tolerance less.
    assert_close(ours.found, theirs.found, allowed=TOLERANCE if way["method"] != "picard" else 1e-4)


def test_micro_batches_are_solved_by_themselves():
    given = {"cell": "lstm", **KINDS["cotangent, no input layer"], "microbatches": 2}
    solved = Run.of("cupy", **given, method="picard", fold=4)
    assert_close(solved.found, Run.of("numpy", **given).found)


@every_kernel
def test_meeting_lengths_and_work_are_told(kernel):
    given = {"cell": "elman", **KINDS["cotangent, no input layer"], "seq": 400, "batch": 1, "layers": 1}
    solves = Run.of("cupy", **given, method="picard", fold=4, tolerance=1e-2, kernel=kernel).engine.solves()
    for found in solves:
        met = found.solve.meeting.ravel()
        moved = met[1:] if found.direction == "forward" else met[:-1]
        assert (moved != UNMET).all(), "segments of a hundred steps should meet"
        assert (moved > 0).all(), moved
        assert len(found.solve.steps) == 2
        assert found.solve.steps[0] == 100
        assert moved.max() <= found.solve.steps[1] <= moved.max() + 1
        assert found.solve.row_steps <= 400 + 3 * found.solve.steps[1]


@every_cell_and_kernel
def test_the_exponent_is_the_hosts(cell, kernel):
    given = CELLS[cell] | KINDS["cotangent, no input layer"] | {"seq": 160, "method": "picard", "fold": 4}
    ours, theirs = Run.of("cupy", kernel=kernel, **given), Run.of("numpy", **given)
    expected = theirs.engine.exponents()
    assert ours.engine.exponents() == pytest.approx(expected, abs=0.05)


def test_inference_is_solved_too():
    given = {"cell": "lstm", **KINDS["features weighted"], "mode": "forward"}
    solved = Run.of("cupy", **given, method="picard", fold=4, tolerance=1e-6)
    assert_close(solved.found, Run.of("numpy", **given).found)
    assert {found.direction for found in solved.engine.solves()} == {"forward"}


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "tf32"])
def test_coarse_precisions_meet_too(precision):
    given = {"cell": "lstm", **KINDS["cotangent, no input layer"]}
    solved = Run.of("cupy", **given, precision=precision, method="picard", fold=4, tolerance=1e-3)
    chain = Run.of("cupy", **given, precision=precision)
    assert_close(solved.found, chain.found, allowed=2e-2)
    assert all(found.solve.converged for found in solved.engine.solves())


@pytest.mark.parametrize(
    ("given", "grid", "message"),
    [
        ({"method": "deer", "fold": 2, "hidden": 8}, Grid(), r"recurrence\.method = .*deer.*cupy"),
        ({"cell": "gru", "reset": "before"}, Grid(tensor=2), r"model\.reset = 'before': allowed is after where .*cupy"),
    ],
)
def test_what_it_has_not_is_refused(given, grid, message):
    with pytest.raises(SpecError, match=message):
        check_grid(build_spec({}, {"backend": "cupy", **given}), grid)
