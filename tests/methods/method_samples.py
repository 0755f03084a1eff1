"""Layers solved in segments, on one rank or on several that are threads; and the chain, which they are held against."""

import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from hpcrnn.cells import GRU, LSTM, Elman, MinGRU, MinLSTM
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.methods.codec import make_codec
from hpcrnn.methods.folding import Folding
from hpcrnn.methods.host_layer import LayerArrays
from hpcrnn.methods.host_passes import BackwardPass, ForwardPass
from hpcrnn.methods.line import ALONE
from hpcrnn.methods.lyapunov import largest_exponent
from hpcrnn.methods.solver import Solver, tolerance_of
from hpcrnn.schedules.placement import split
from hpcrnn.spec import RecurrenceSpec

CELLS = {
    "elman-tanh": Elman(),
    "elman-relu": Elman(activation="relu"),
    "lstm": LSTM(forget_bias=1.0),
    "gru-after": GRU(),
    "gru-before": GRU(reset="before"),
    "mingru": MinGRU(),
    "minlstm": MinLSTM(),
}
LINEAR = ("mingru", "minlstm")
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)

TOLERANCE = 1e-12
"""Above what rounding keeps trajectories apart in float64, far below anything a test asserts."""

_PATIENCE_S = 60.0


class ThreadLine:
    """One of several ranks that are threads; at every call each waits for all others."""

    def __init__(self, rank, size, board, barrier):
        self.rank, self.size, self.sent_bytes = rank, size, 0
        self._board, self._barrier = board, barrier

    def _all(self, call, own):
        self._board[self.rank] = call, np.array(own)
        self._barrier.wait()
        calls, arrays = zip(*self._board, strict=True)
        assert set(calls) == {call}, "ranks of a line make the same calls in the same order"
        self._barrier.wait()
        return list(arrays)

    def pass_right(self, own):
        return self._all("right", own)[max(self.rank - 1, 0)]

    def pass_left(self, own):
        return self._all("left", own)[min(self.rank + 1, self.size - 1)]

    def gather(self, own):
        return self._all("gather", own)

    def largest(self, own):
        return np.max(self._all("largest", own), axis=0)


def on_line(size, function):
    """What ``function(line)`` returns on every rank; the first rank's error where one raises."""
    if size == 1:
        return [function(ALONE)]
    board, barrier = [None] * size, threading.Barrier(size, timeout=_PATIENCE_S)
    found, errors = [None] * size, [None] * size

    def rank_main(rank):
        try:
            found[rank] = function(ThreadLine(rank, size, board, barrier))
        except BaseException as error:  # noqa: BLE001 - raised below
            errors[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=rank_main, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    raised = [error for error in errors if error is not None]
    for error in sorted(raised, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return found


@dataclass(frozen=True)
class Layer:
    """A layer and what it computes from: ``loss = <dy, y> + <cotangent, final states>``; time-major, n states."""

    cell: object
    parameters: dict
    x: np.ndarray
    dy: np.ndarray
    initial: np.ndarray
    cotangent: np.ndarray

    @property
    def steps(self):
        return len(self.x)

    @property
    def samples(self):
        return self.x.shape[1]

    @property
    def hidden(self):
        return self.dy.shape[2]

    def with_parameters(self, **scales):
        """Some parameters multiplied."""
        scaled = {name: scales.get(name, 1.0) * a for name, a in self.parameters.items()}
        return replace(self, parameters=scaled)

    def astype(self, dtype):
        parameters = {name: a.astype(dtype) for name, a in self.parameters.items()}
        arrays = {name: getattr(self, name).astype(dtype) for name in ("x", "dy", "initial", "cotangent")}
        return replace(self, parameters=parameters, **arrays)


def make_layer(cell, T=23, B=2, D=3, H=5, seed=0):
    """Draw a float64 layer from nonzero initial states, with a gradient of the final ones."""
    rng = np.random.default_rng(seed)
    n = len(cell.state_names)
    parameters = cell.initial_parameters(rng, D, H)
    x, dy = rng.standard_normal((T, B, D)), rng.standard_normal((T, B, H))
    initial, cotangent = 0.5 * rng.standard_normal((n, B, H)), rng.standard_normal((n, B, H))
    return Layer(cell, parameters, x, dy, initial, cotangent)


def make_scalar_layer(factor, T, B=1):
    """The recurrence ``h = factor h + 1`` from zero, every step's output with gradient one: all is positive."""
    ones = {"W": np.ones((1, 1)), "R": np.full((1, 1), float(factor)), "b": np.zeros(1)}
    states = np.zeros((1, B, 1))
    return Layer(Elman(activation="relu"), ones, np.ones((T, B, 1)), np.ones((T, B, 1)), states, states)


@dataclass
class Solved:
    """What a layer's two passes computed, all ranks together.

    Attributes
    ----------
    arrays : dict of str to array
        ``y``, final states, and the gradient of everything.
    forward, backward : list of Solve
        One a rank.
    exponents : list of float
    """

    arrays: dict = field(default_factory=dict)
    forward: list = field(default_factory=list)
    backward: list = field(default_factory=list)
    exponents: list = field(default_factory=list)

    def meeting(self, direction):
        """Meeting lengths (segments, samples) of all ranks."""
        return np.concatenate([solve.meeting for solve in getattr(self, direction)])


class FoldedLayer:
    """A rank's window of a layer, folded, and its two passes.

    Parameters
    ----------
    layer : Layer
    settings : RecurrenceSpec
    line : Line
    """

    def __init__(self, layer, settings, line=ALONE):
        cell, dtype = layer.cell, layer.x.dtype
        window = split(layer.steps, line.size)[line.rank]
        self.layer, self.settings, self.line = layer, settings, line
        self.folding = Folding(window.stop - window.start, layer.samples, settings.fold)
        rows, H = self.folding.rows, layer.hidden
        tape = cell.make_tape(self.folding.longest, rows, H, dtype)
        work = cell.make_workspace(rows, H, dtype, NumpyProducts())
        cell.load(layer.parameters, work, backward=True)
        x, dy = (np.ascontiguousarray(self.folding.fold(a[window])) for a in (layer.x, layer.dy))
        self.arrays = LayerArrays(cell, layer.parameters, x, dy, tape, work, self.folding)
        tolerance = tolerance_of(settings, dtype)
        self.solver = Solver(settings, line, make_codec(settings.halo_codec), tolerance)
        self.forward, self.backward = (kind(self.arrays, line, tolerance) for kind in (ForwardPass, BackwardPass))

    def solve(self):
        """Both passes; what this rank saw of each."""
        states = self.solver.solve(self.forward, self.layer.initial)
        return states, self.solver.solve(self.backward, self.layer.cotangent)

    def outcome(self):
        """What this rank knows after both passes."""
        cell, tape, work, samples = self.layer.cell, self.arrays.tape, self.arrays.work, self.folding.samples
        found = {"y": self.folding.unfold(tape.y).copy()}
        found |= {f"final {i}": a for i, a in enumerate(self.forward.handed[:, -samples:].copy())}
        found |= {f"d initial {i}": a for i, a in enumerate(self.backward.handed[:, :samples].copy())}
        dx = np.empty_like(self.arrays.x)
        cell.input_gradient(self.arrays.parameters, tape, dx, work)
        found["dx"] = self.folding.unfold(dx).copy()
        gradients = {name: np.full_like(a, np.nan) for name, a in self.arrays.parameters.items()}
        cell.weight_gradient(self.arrays.x, tape, gradients, work)
        return found | {f"d{name}": a for name, a in gradients.items()}


def solved(layer, method="picard", fold=4, ranks=1, tolerance=TOLERANCE, **settings):
    """Solve a layer in ``ranks * fold`` segments."""
    spec = RecurrenceSpec(method=method, fold=fold, tolerance=tolerance, **settings)

    def on_rank(line):
        folded = FoldedLayer(layer, spec, line)
        solves = folded.solve()
        exponent = largest_exponent(folded.arrays)
        return *solves, exponent, folded.outcome()

    forward, backward, exponents, parts = (list(found) for found in zip(*on_line(ranks, on_rank), strict=True))
    arrays = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name in ("y", "dx"):
            arrays[name] = np.concatenate(values)
        elif name.startswith("final"):
            arrays[name] = values[-1]
        else:
            arrays[name] = values[0] if name.startswith("d initial") else sum(values)
    return Solved(arrays, forward, backward, exponents)


def chain(layer):
    """The same in one pass, step after step, by the cell alone."""
    cell, dtype = layer.cell, layer.x.dtype
    tape = cell.make_tape(layer.steps, layer.samples, layer.hidden, dtype)
    work = cell.make_workspace(layer.samples, layer.hidden, dtype, NumpyProducts())
    cell.load(layer.parameters, work, backward=True)
    for name, state in zip(cell.state_names, layer.initial, strict=True):
        tape.states[name][0] = state
    cell.forward(layer.parameters, layer.x, tape, work)
    arrays = {"y": tape.y.copy()} | {f"final {i}": a[-1].copy() for i, a in enumerate(tape.states.values())}
    carry = {name: a.copy() for name, a in zip(cell.state_names, layer.cotangent, strict=True)}
    cell.backward(layer.dy, carry, tape, work)
    arrays |= {f"d initial {i}": a for i, a in enumerate(carry.values())}
    arrays["dx"] = np.empty_like(layer.x)
    cell.input_gradient(layer.parameters, tape, arrays["dx"], work)
    gradients = {name: np.empty_like(a) for name, a in layer.parameters.items()}
    cell.weight_gradient(layer.x, tape, gradients, work)
    return Solved(arrays | {f"d{name}": a for name, a in gradients.items()})


def error(found, expected):
    """Largest error of any array, relative to the largest of its values."""
    assert found.arrays.keys() == expected.arrays.keys()
    differences = {name: np.abs(found.arrays[name] - a).max() for name, a in expected.arrays.items()}
    return max(differences[name] / max(np.abs(a).max(), 1e-30) for name, a in expected.arrays.items())


def assert_same_bits(found, expected, names=None):
    """Some arrays, or all, of two results."""
    for name in names or expected.arrays:
        np.testing.assert_array_equal(found.arrays[name], expected.arrays[name], err_msg=name)
