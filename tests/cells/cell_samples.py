"""Every cell there is, random problems for it, and the two passes over the problem in plain calls."""

from dataclasses import dataclass

import numpy as np
import pytest

from hpcrnn.backends.numpy.mkl import MklProducts, load_mkl
from hpcrnn.cells import GRU, LSTM, Elman, MinGRU, MinLSTM
from hpcrnn.cells.products import NumpyProducts

# Pairwise distinct, and no gate count (1, 3, 4; but minGRU has as many gates as B), so that no axis passes for another.
T, B, D, H = 6, 2, 7, 5

CELLS = {
    "elman-tanh": Elman(),
    "elman-relu": Elman(activation="relu"),
    "lstm": LSTM(),
    "lstm-forget-bias": LSTM(forget_bias=1.0),
    "gru-after": GRU(),
    "gru-before": GRU(reset="before"),
    "mingru": MinGRU(),
    "minlstm": MinLSTM(),
}

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


@dataclass
class Problem:
    """What a layer computes from: ``loss = <dy, y> + sum of <dstate, final state>``."""

    parameters: dict
    x: np.ndarray
    initial: dict
    dy: np.ndarray
    dstate: dict

    def astype(self, dtype):
        def convert(arrays):
            return {name: a.astype(dtype) for name, a in arrays.items()}

        return Problem(
            convert(self.parameters),
            self.x.astype(dtype),
            convert(self.initial),
            self.dy.astype(dtype),
            convert(self.dstate),
        )

    @property
    def hidden(self):
        """Units."""
        return self.dy.shape[-1]

    @property
    def operands(self):
        """Every array a gradient is taken of, by the name of the gradient."""
        states = {f"{name}0": a for name, a in self.initial.items()}
        return {**self.parameters, "x": self.x, **states}


@dataclass
class Result:
    """What the passes computed."""

    y: np.ndarray
    final: dict
    gradients: dict

    def items(self):
        yield "y", self.y
        yield from self.final.items()
        yield from self.gradients.items()


def make_problem(cell, T=T, B=B, D=D, H=H, seed=0):
    """Draw a float64 problem whose relu, if any, has no preactivation near its kink."""
    for attempt in range(1000):
        rng = np.random.default_rng([seed, attempt])

        def draw(*shape, rng=rng):
            return 0.7 * rng.standard_normal(shape)

        problem = Problem(
            # Twice what a run starts from, so that the gates leave their linear range.
            {name: 2 * a for name, a in cell.initial_parameters(rng, D, H).items()},
            draw(T, B, D),
            {name: draw(B, H) for name in cell.state_names},
            draw(T, B, H),
            {name: draw(B, H) for name in cell.state_names},
        )
        # The nearest of n preactivations is at about 1/n.
        if getattr(cell, "activation", "tanh") == "tanh" or distance_from_kink(cell, problem) > 0.1 / (T * B * H):
            return problem
    raise AssertionError


def distance_from_kink(cell, problem):
    tape, *_ = start(cell, problem, NumpyProducts())
    return np.abs(tape.gates).min()


def start(cell, problem, library, chunks=None):
    """Run the forward pass, chunk by chunk; return the whole tape, its windows and the workspace."""
    steps, rows, _ = problem.x.shape
    chunks = chunks or [slice(0, steps)]
    tape = cell.make_tape(steps, rows, problem.hidden, problem.x.dtype)
    work = cell.make_workspace(rows, problem.hidden, problem.x.dtype, library)
    cell.load(problem.parameters, work, backward=True)
    for name, state in problem.initial.items():
        tape.states[name][0] = state
    windows = [tape.window(c.start, c.stop) for c in chunks]
    for c, window in zip(chunks, windows, strict=True):
        cell.forward(problem.parameters, problem.x[c], window, work)
    return tape, windows, work


def run(cell, problem, library=None, chunks=None):
    """Run both passes in chunks of time; return everything they compute."""
    chunks = chunks or [slice(0, len(problem.x))]
    tape, windows, work = start(cell, problem, library or NumpyProducts(), chunks)
    y, final = tape.y.copy(), {name: state[-1].copy() for name, state in tape.states.items()}

    carry = {name: a.copy() for name, a in problem.dstate.items()}
    dx = np.full_like(problem.x, np.nan)
    gradients = {name: np.zeros_like(a) for name, a in problem.parameters.items()}
    part = {name: np.full_like(a, np.nan) for name, a in problem.parameters.items()}
    for c, window in zip(reversed(chunks), reversed(windows), strict=True):
        cell.backward(problem.dy[c], carry, window, work)
        cell.input_gradient(problem.parameters, window, dx[c], work)
        cell.weight_gradient(problem.x[c], window, part, work)
        for name, gradient in part.items():
            gradients[name] += gradient
    return Result(y, final, {**gradients, "x": dx, **{f"{name}0": a for name, a in carry.items()}})


def loss(cell, problem):
    """``<dy, y> + <dstate, final state>``, from the forward pass alone."""
    tape, *_ = start(cell, problem, NumpyProducts())
    final = sum(np.vdot(d, tape.states[name][-1]) for name, d in problem.dstate.items())
    return float(np.vdot(problem.dy, tape.y) + final)


def product_library(name):
    """A product library by name; skips the test where there is none."""
    if name == "numpy":
        return NumpyProducts()
    mkl = load_mkl()
    if mkl is None:
        pytest.skip("MKL is not installed: pip install mkl")
    return MklProducts(mkl, 1)


every_library = pytest.mark.parametrize("library_name", ["numpy", "mkl"])


class CountingProducts(NumpyProducts):
    """NumPy's products, and the operations of each: 2 m k n for (m, k) @ (k, n)."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def count(self, a, out):
        assert a.shape[0] == out.shape[0]
        self.flops += 2 * out.shape[0] * a.shape[1] * out.shape[1]

    def product(self, rows, inner, columns, dtype):
        planned, count = super().product(rows, inner, columns, dtype), self.count

        class Counted:
            load = staticmethod(planned.load)

            def multiply(self, a, out):
                assert (a.shape, out.shape) == ((rows, inner), (rows, columns))
                count(a, out)
                planned.multiply(a, out)

            def accumulate(self, a, out):
                assert (a.shape, out.shape) == ((rows, inner), (rows, columns))
                count(a, out)
                planned.accumulate(a, out)

        return Counted()

    def matmul(self, a, b, out, *, accumulate=False):
        self.count(a, out)
        super().matmul(a, b, out, accumulate=accumulate)

    def counted(self, task, *args, **options):
        """Operations of one call."""
        before = self.flops
        task(*args, **options)
        return self.flops - before
