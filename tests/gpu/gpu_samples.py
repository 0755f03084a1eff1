"""Problems for the GPU: stacks of layers whose numbers survive being stored, and how far results may be off."""

from dataclasses import replace

import msgspec
import numpy as np
from backends.engine_samples import outcome_of, run_tasks, serial_order
from kernels.host_runner import rounded
from kernels.kernel_problems import relative_error

from hpcrnn.backends.base import Extent, state_names
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.model.network import build_network, initial_parameters
from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.placement import split
from hpcrnn.spec import build_spec
from hpcrnn.workloads import Batch, Interface

CELLS = {
    "lstm": {"cell": "lstm"},
    "gru": {"cell": "gru"},
    "elman": {"cell": "elman"},
    "elman-relu": {"cell": "elman", "activation": "relu"},
}

# What the issue allows of the relative error, in the 2-norm, against float64. TF32 keeps 11 bits, as float16 does.
ALLOWED = {"float32": 1e-5, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 1e-2}

# The slope of relu jumps: a unit that rounding carries over zero has another gradient, whoever computes it.
ALLOWED_RELU_GRADIENT = 0.1


class LayerStack:
    """L layers on given input, with random boundary states; the loss is a given cotangent."""

    def __init__(self, cell, T, B, D, H, precision="float32", layers=2, kernel="auto", seed=0, mode="gradient"):
        self.T, self.B = T, B
        self.spec = build_spec(
            {},
            {"hidden": H, "embed": D, "layers": layers, "seq": T, "batch": B, "workload": "synthetic", "mode": mode}
            | {"input": "direct", "backend": "cupy", "precision": precision, "kernel": kernel, **CELLS[cell]},
        )
        # The interface fixes D; an embed of its own would be a second truth.
        model = msgspec.structs.replace(self.spec.model, embed=None)
        self.spec = msgspec.structs.replace(self.spec, model=model)
        self.network = build_network(self.spec, Interface("features", D, "linear", H))
        rng = np.random.default_rng(seed)

        def draw(*shape):
            return rounded(rng.standard_normal(shape), precision)

        drawn = initial_parameters(self.network, seed)
        self.parameters = {name: rounded(a, precision) for name, a in drawn.items()}
        self.batch = Batch(draw(T, B, D), draw(T, B, H), None)
        names = [n for b in self.network.blocks if b.cell for n in state_names(b.name, b.cell.state_names)]
        self.initial = {name: 0.5 * draw(B, H) for name in names}
        self.cotangent = {name: draw(B, H) / (T * B) for name in names}

    def run(self, engine, extent):
        engine.load_parameters(self.parameters)
        engine.load_batch(self.batch)
        engine.set_boundary(self.initial, self.cotangent)
        parts = len(extent.microbatches), len(extent.chunks)
        run_tasks(engine, serial_order(TaskGraph(self.network.recurrent, *parts, backward=extent.backward)))
        return outcome_of(engine)

    def extent(self, cut=(1, 1)):
        rows, steps = split(self.B, cut[0]), split(self.T, cut[1])
        return Extent(self.T, rows, steps, 1 / (self.T * self.B), self.spec.training.mode)

    def expected(self):
        network = replace(self.network, dtype="float64")
        extent = self.extent()
        return self.run(NumpyEngine(network, extent, self.spec.training, NumpyProducts()), extent)

    def engine(self, cut=(1, 1)):
        from hpcrnn.backends.cupy.engine import CupyEngine  # there may be no CUDA where tests are collected

        return CupyEngine(self.network, self.extent(cut), self.spec.training, self.spec.machine)

    def found(self, cut=(1, 1)):
        return self.run(self.engine(cut), self.extent(cut))


def errors(found, expected):
    """Relative error of every quantity."""
    assert found.arrays.keys() == expected.arrays.keys()
    return {name: relative_error(found.arrays[name], value) for name, value in expected.arrays.items()}


def assert_within(found, expected, cell, precision):
    """States, and gradients, within what a precision is allowed."""
    allowed = dict.fromkeys(errors(found, expected), ALLOWED[precision])
    if cell == "elman-relu" and precision != "float32":
        allowed |= {name: ALLOWED_RELU_GRADIENT for name in allowed if not name.startswith("state ")}
    off = {name: error for name, error in errors(found, expected).items() if not error <= allowed[name]}
    assert not off, off
