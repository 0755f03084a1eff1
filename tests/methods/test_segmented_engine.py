"""A whole network whose layers are solved in segments computes what the plain engine computes."""

from dataclasses import dataclass

import numpy as np
import pytest
from method_samples import TOLERANCE

from hpcrnn.backends.base import state_names
from hpcrnn.backends.registry import make_engine
from hpcrnn.benchmarks.planning import Plan, make_plan
from hpcrnn.model.network import initial_parameters
from hpcrnn.schedules.graph import Task
from hpcrnn.spec import Grid, RunSpec, build_spec
from hpcrnn.workloads import Batch, open_workload

T, B, H, LAYERS = 19, 3, 6, 2

CELLS = {
    "elman-tanh": {"cell": "elman"},
    "elman-relu": {"cell": "elman", "activation": "relu"},
    "lstm": {"cell": "lstm"},
    "gru-after": {"cell": "gru"},
    "gru-before": {"cell": "gru", "reset": "before"},
    "mingru": {"cell": "mingru"},
    "minlstm": {"cell": "minlstm"},
}
KINDS = {
    "tokens": {"workload": "file:text.txt"},
    "features weighted": {"workload": "adding"},
    "cotangent, no input layer": {"workload": "synthetic", "input": "direct", "embed": None},
}
every_cell = pytest.mark.parametrize("cell", CELLS)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _text(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_bytes(bytes(np.random.default_rng(0).integers(0, 200, 500, dtype=np.uint8)))
    monkeypatch.chdir(tmp_path)


@dataclass
class Run:
    """A plan on one rank with an engine that has its parameters, boundary and batch."""

    spec: RunSpec
    plan: Plan
    engine: object

    @classmethod
    def of(cls, overrides, batch=None, boundary=None):
        fixed = {"hidden": H, "embed": 5, "layers": LAYERS, "batch": B, "seq": T, "dtype": "float64"}
        spec = build_spec({}, {**fixed, "mode": "gradient", "gemm": "numpy", "seed": 3, **overrides})
        workload = open_workload(spec)
        plan = make_plan(spec, workload, Grid())
        engine = make_engine("numpy", plan.network, plan.extent(0), spec)
        engine.load_parameters(initial_parameters(plan.network, 3))
        engine.set_boundary(*(boundary or random_boundary(plan.network, spec)))
        engine.load_batch(batch or workload.batch(0))
        return cls(spec, plan, engine)

    def step(self):
        """Run the tasks of the program in its order; return what they computed."""
        self.engine.begin_step()
        for task in self.plan.program(0).instructions:
            if isinstance(task, Task):
                call = {"F": "forward", "B": "backward", "W": "weight_gradient"}[task.kind]
                getattr(self.engine, call)(task.block, task.microbatch, task.chunk)
        part = self.engine.part()
        return {"loss": np.array(part.loss)} | {name: piece.value for name, piece in part.pieces.items()}


def random_boundary(network, spec):
    """Nonzero initial states, and gradients of the final ones."""
    rng = np.random.default_rng(5)
    names = [n for block in network.blocks if block.cell for n in state_names(block.name, block.cell.state_names)]
    shape, small = (spec.problem.batch, network.hidden), 1 / (spec.problem.batch * spec.problem.seq)
    return tuple({name: size * rng.standard_normal(shape) for name in names} for size in (0.5, small))


def assert_close(found, expected, allowed=1e3 * TOLERANCE):
    assert found.keys() == expected.keys()
    for name, a in expected.items():
        size = max(np.abs(a).max(), 1 / (T * B))
        np.testing.assert_allclose(found[name], a, rtol=0, atol=allowed * size, err_msg=name)


def method(name, fold, **more):
    return {"method": name, "fold": fold, "tolerance": TOLERANCE, "max_rounds": fold, **more}


@every_cell
@every_kind
def test_every_loss_state_and_gradient_is_that_of_the_chain(kind, cell):
    options = {**CELLS[cell], **KINDS[kind]}
    expected = Run.of(options).step()
    names = ["picard", "gateprod", *(["scan"] if cell.startswith("min") else [])]
    for way in [method(name, fold) for name in names for fold in (1, 4, T)]:
        run = Run.of({**options, **way})
        assert_close(run.step(), expected)
        solves = run.engine.solves()
        assert [(found.layer, found.direction) for found in solves].count(("layer1", "backward")) == 1
        assert all(found.solve.converged for found in solves)


@every_kind
@pytest.mark.parametrize("order", ["fill_drain", "1f1b", "zb_h1"])
def test_micro_batches_are_solved_one_after_another(kind, order):
    """Two of them, of two rows and of one; where the order allows it they share buffers."""
    options = {"cell": "lstm", **KINDS[kind]}
    expected = Run.of(options).step()
    run = Run.of({**options, **method("picard", 4), "microbatches": 2, "order": order})
    assert_close(run.step(), expected)
    rows = {(found.rows.start, found.rows.stop): found.solve.meeting.shape for found in run.engine.solves()}
    assert rows == {(0, 2): (4, 2), (2, 3): (4, 1)}
    assert len(run.engine.solves()) == LAYERS * 2 * 2


def test_deer_trains_a_network_too():
    options = {"cell": "gru", **KINDS["tokens"]}
    assert_close(Run.of({**options, **method("deer", 5)}).step(), Run.of(options).step())


def test_a_second_step_forgets_the_first():
    """Guesses are zero again: equal batches give equal results, to the last bit."""
    run = Run.of({"cell": "gru", **KINDS["tokens"], **method("picard", 4)})
    first, second = run.step(), run.step()
    for name, a in first.items():
        np.testing.assert_array_equal(second[name], a, err_msg=name)


def test_truncation_is_the_plain_engine_on_the_segments_as_rows():
    """Loss, every gradient and the final states, to the last bit."""
    options, fold, seq = {"cell": "lstm", "workload": "adding"}, 4, 20
    folded = Run.of({**options, "seq": seq, "method": "tbptt_zero", "fold": fold})
    whole = open_workload(folded.spec).batch(0)
    folding = folded.plan.extent(0).folding(0)
    batch = Batch(*(np.ascontiguousarray(folding.fold(a)) for a in (whole.inputs, whole.targets, whole.weights)))
    initial, cotangent = random_boundary(folded.plan.network, folded.spec)
    padding = np.zeros(((fold - 1) * B, H))
    starts = {name: np.concatenate([a, padding]) for name, a in initial.items()}
    ends = {name: np.concatenate([padding, a]) for name, a in cotangent.items()}
    rows = Run.of({**options, "seq": seq // fold, "batch": B * fold}, batch, (starts, ends))
    found, expected = folded.step(), rows.step()
    for name, a in found.items():
        if name.startswith("state "):
            np.testing.assert_array_equal(a, expected[name][-B:], err_msg=name)
        elif name.startswith("d "):
            np.testing.assert_array_equal(a, expected[name][:B], err_msg=name)
        elif name == "dx":
            np.testing.assert_array_equal(a, folding.unfold(expected[name].swapaxes(0, 1)).swapaxes(0, 1))
        else:
            np.testing.assert_array_equal(a, expected[name], err_msg=name)


def test_forward_only_needs_no_gradients():
    options = {"cell": "lstm", **KINDS["tokens"], "mode": "forward"}
    expected = Run.of(options).step()
    run = Run.of({**options, **method("picard", 4), "microbatches": 2})
    assert_close(run.step(), expected)
    assert {found.direction for found in run.engine.solves()} == {"forward"}


def test_exponents_are_one_a_layer():
    run = Run.of({"cell": "lstm", **KINDS["tokens"], **method("picard", 4)})
    run.step()
    exponents = run.engine.exponents()
    assert list(exponents) == ["layer0", "layer1"]
    assert all(-2 < exponent < 0 for exponent in exponents.values())
    plain = Run.of({"cell": "lstm", **KINDS["tokens"]})
    plain.step()
    assert plain.engine.exponents() == {}
    assert plain.engine.solves() == ()


def test_exponents_are_known_in_mode_forward_too():
    options = {"cell": "lstm", **KINDS["tokens"], **method("picard", 4)}
    train, forward = Run.of(options), Run.of({**options, "mode": "forward"})
    train.step()
    forward.step()
    assert forward.engine.exponents() == pytest.approx(train.engine.exponents(), rel=1e-9)


@pytest.mark.parametrize("mode", ["gradient", "forward"])
@pytest.mark.parametrize("order", ["fill_drain", "1f1b"])
def test_exponents_of_micro_batches_are_near_those_of_the_batch(order, mode):
    """The mean of both parts, though some orders let them share buffers."""
    options = {"cell": "lstm", "seq": 80, "mode": mode, **KINDS["tokens"], **method("picard", 4)}
    whole, cut = Run.of(options), Run.of({**options, "microbatches": 2, "order": order})
    whole.step()
    cut.step()
    for name, exponent in cut.engine.exponents().items():
        assert exponent == pytest.approx(whole.engine.exponents()[name], abs=0.05)


def test_folding_adds_no_memory_to_the_tape():
    """Rows take the place of steps; what comes on top is the scratch of a step."""
    options = {"cell": "lstm", "layers": 1, "hidden": 32, "seq": 512, "workload": "synthetic", "embed": 8}
    plain, folded = Run.of(options), Run.of({**options, **method("picard", 8)})
    assert folded.engine.memory_bytes <= 1.1 * plain.engine.memory_bytes
