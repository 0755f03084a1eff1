"""Small problems of every kind, and one step of an engine in plain calls, without an executor."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from hpcrnn.backends.base import Extent, Outcome, state_names
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.backends.registry import make_engine
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.model.network import Network, build_network, initial_parameters
from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.order import units
from hpcrnn.schedules.placement import Place, make_placement, split
from hpcrnn.spec import Grid, RunSpec, build_spec
from hpcrnn.workloads import Batch, Interface

# Pairwise distinct: steps, rows, vocabulary, features, embedding, hidden units, outputs.
T, B, V, F, D, H, O = 7, 5, 11, 3, 8, 6, 2  # noqa: E741 - the field's name for the width of an output

LAYERS = 2

# Every value passes through at most T steps of L layers and the layers around them, and back again, each a sum of at
# most 2 V products (D + H, or H + V) and a dozen pointwise operations: that many roundings of half a unit.  2e-13.
TOLERANCE = 2 * T * (LAYERS + 2) * (2 * V + 12) / 2 * np.finfo(np.float64).eps

every_engine = pytest.mark.parametrize("backend", ["numpy", pytest.param("torch", marks=pytest.mark.peer)])

CELLS = {
    "elman-tanh": {"cell": "elman"},
    "elman-relu": {"cell": "elman", "activation": "relu"},
    "lstm": {"cell": "lstm", "forget_bias": 1.0},
    "gru-after": {"cell": "gru"},
    "gru-before": {"cell": "gru", "reset": "before"},
}
every_cell = pytest.mark.parametrize("cell", CELLS)

# torch.nn.GRU resets after the product only.
PEER_CELLS = [name for name in CELLS if name != "gru-before"]

# What goes in and how it is judged: the interface, the input layer, whether elements are weighted.
KINDS = {
    "tokens": (Interface("tokens", V, "cross_entropy", V), {}, False),
    "tokens-weighted": (Interface("tokens", V, "cross_entropy", V), {}, True),
    "features": (Interface("features", F, "squared_error", O), {"input": "linear"}, False),
    "direct-weighted": (Interface("features", F, "squared_error", O), {"input": "direct", "embed": None}, True),
    "cotangent": (Interface("features", F, "linear", H), {"input": "direct", "embed": None}, False),
}
every_kind = pytest.mark.parametrize("kind", KINDS)

# Parts of the rows and of the steps; most do not divide them.
SPLITS = [(1, 1), (2, 1), (1, 3), (3, 2), (B, T)]
every_split = pytest.mark.parametrize("cut", SPLITS, ids=lambda cut: f"M{cut[0]}-C{cut[1]}")


@dataclass
class Problem:
    """One network, its parameters, and one global batch between given boundary states."""

    spec: RunSpec
    network: Network
    parameters: dict
    batch: Batch
    initial: dict
    cotangent: dict

    def engine(self, backend="numpy", cut=(1, 1), rows=slice(0, B), library=None):
        """Build an engine over some rows, with parameters, batch and boundary loaded."""
        microbatches, chunks = cut
        extent = Extent(
            T,
            split(rows.stop - rows.start, microbatches),
            split(T, chunks),
            1 / (T * B),
            self.spec.training.mode,
        )
        if backend == "numpy":
            engine = NumpyEngine(self.network, extent, self.spec.training, library or NumpyProducts())
        else:
            if backend == "torch":
                pytest.importorskip("torch")
            engine = make_engine(backend, self.network, extent, self.spec)
        engine.load_parameters(self.parameters)
        self.load(engine, rows)
        return engine

    def load(self, engine, rows=slice(0, B)):
        weights = None if self.batch.weights is None else self.batch.weights[:, rows]
        engine.load_batch(Batch(self.batch.inputs[:, rows], self.batch.targets[:, rows], weights))
        engine.set_boundary(*({k: a[rows] for k, a in group.items()} for group in (self.initial, self.cotangent)))

    def graph(self, cut=(1, 1)):
        return TaskGraph(self.network.recurrent, *cut, backward=self.spec.training.mode != "forward")

    def outcome(self, backend="numpy", cut=(1, 1), rows=slice(0, B), **options):
        """Run one step without update, in block-major order; return what it computed."""
        engine = self.engine(backend, cut, rows, **options)
        run_tasks(engine, serial_order(self.graph(cut)))
        return outcome_of(engine)


def serial_order(graph):
    """All tasks, block by block."""
    placement = make_placement(graph, Grid(), [1.0] * graph.n_blocks)
    return [task for unit in units(graph, placement, Place(), "fill_drain") for task in unit]


def outcome_of(engine):
    """What an engine of the whole network knows."""
    part = engine.part()
    return Outcome(part.loss, {name: piece.value for name, piece in part.pieces.items()})


def joined(parts):
    """The outcome of engines over neighbouring rows: gradients add up, rows stand one after another."""
    arrays = {}
    for name in parts[0].arrays:
        values = [part.arrays[name] for part in parts]
        arrays[name] = sum(values) if name.startswith("gradient ") else np.concatenate(values)
    return Outcome(sum(part.loss for part in parts), arrays)


def run_tasks(engine, tasks):
    """Run the tasks of one step in the order given."""
    engine.begin_step()
    for task in tasks:
        call = {"F": engine.forward, "B": engine.backward, "W": engine.weight_gradient}[task.kind]
        call(task.block, task.microbatch, task.chunk)


@cache  # reading a specification takes longer than running a problem of this size
def make_network(cell, kind, mode, dtype, **options):
    interface, inputs, _ = KINDS[kind]
    # The name only has to be one that gives what the interface says.
    workload = "stdlib" if interface.inputs == "tokens" else "synthetic"
    fixed = {"hidden": H, "embed": D, "layers": LAYERS, "seq": T, "batch": B, "dtype": dtype, "mode": mode}
    spec = build_spec({}, {**fixed, "workload": workload, **CELLS[cell], **inputs, **options})
    return spec, build_network(spec, interface)


def make_problem(cell="lstm", kind="tokens", mode="gradient", dtype="float64", seed=0, **options):
    interface, _, weighted = KINDS[kind]
    spec, network = make_network(cell, kind, mode, dtype, **options)
    rng = np.random.default_rng(seed)

    def states(size):
        names = [n for b in network.blocks if b.cell for n in state_names(b.name, b.cell.state_names)]
        return {name: size * rng.standard_normal((B, H)).astype(dtype) for name in names}

    return Problem(
        spec,
        network,
        initial_parameters(network, seed),
        make_batch(interface, rng, dtype, weighted=weighted),
        states(0.5),
        states(1 / (T * B)),
    )


def make_batch(interface, rng, dtype, *, weighted):
    if interface.inputs == "tokens":
        inputs = rng.integers(0, V, (T, B), dtype=np.int32)
    else:
        inputs = rng.standard_normal((T, B, F)).astype(dtype)
    if interface.loss == "cross_entropy":
        targets = rng.integers(0, V, (T, B), dtype=np.int32)
    else:
        targets = rng.standard_normal((T, B, interface.output_size)).astype(dtype)
    return Batch(inputs, targets, rng.uniform(0, 2, (T, B)).astype(dtype) if weighted else None)


def assert_same(found, expected, tolerance=TOLERANCE):
    """Every quantity of two outcomes, within a tolerance relative to the largest of its values."""
    assert found.arrays.keys() == expected.arrays.keys()
    quantities = {name: (found.arrays[name], value) for name, value in expected.arrays.items()}
    quantities["loss"] = (found.loss, expected.loss)
    for name, (ours, theirs) in quantities.items():
        # Sums of T B terms may cancel; their terms are about as large as their weight, 1 / (T B).
        size = max(np.abs(theirs).max(), 1 / (T * B))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * size, err_msg=name)
