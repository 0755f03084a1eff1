"""One recurrent layer on given arrays: what a backend's layer is asked to time, whoever computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.cells import GRU, LSTM, Cell, Elman
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.kernels.variants import Precision

Array = npt.NDArray[Any]
Pass = Literal["inference", "training"]

PASSES: tuple[Pass, ...] = ("inference", "training")
"""``inference``: forward, nothing kept; ``training``: forward and backward, with dx and the weights' gradients."""


@dataclass(frozen=True)
class LayerCase:
    """A layer's sizes.

    Attributes
    ----------
    cell : {"lstm", "gru", "elman"}
    precision : {"float32", "tf32", "float16", "bfloat16"}
    B, T, H, D : int
    group : str
        Why it is measured.
    fold : int
        Segments of time that run at once, as rows, by method ``picard``; 1: the layer's steps one after another.
    tolerance : float
        Of the method: the largest difference at which trajectories have met.
    """

    cell: str
    precision: Precision
    B: int
    T: int
    H: int
    D: int
    group: str = ""
    fold: int = 1
    tolerance: float = 0.0

    @property
    def name(self) -> str:
        """For tables and figures."""
        sizes = f"{self.cell} {self.precision} B{self.B} H{self.H} T{self.T}"
        return f"{sizes} fold {self.fold}" if self.is_folded else sizes

    @property
    def is_folded(self) -> bool:
        """Whether segments of time run at once."""
        return self.fold > 1

    def make_cell(self) -> Cell:
        """Return the cell."""
        return {"lstm": LSTM(), "gru": GRU(), "elman": Elman()}[self.cell]

    def flops(self, which: Pass) -> int:
        """Operations of a pass: every product, two a multiply-add; what a method computes again is not counted."""
        cell, sizes = self.make_cell(), (self.T, self.B, self.D, self.H)
        total = cell.forward_flops(*sizes)
        return total if which == "inference" else total + cell.backward_flops(*sizes) + cell.weight_flops(*sizes)

    def least_bytes(self, which: Pass) -> int:
        """The fewest bytes a pass moves through memory: input, output and weights once, and what it must keep.

        Training writes and reads the gates' activations, and reads and writes a gradient for each value.
        """
        size = 2 if self.precision in ("float16", "bfloat16") else 4
        gates = self.make_cell().n_gates
        steps = self.T * self.B
        weights = gates * self.H * (self.D + self.H) * size
        values = steps * (self.D + self.H) * size
        if which == "inference":
            return values + weights
        return 2 * values + 2 * steps * gates * self.H * size + 3 * weights


@dataclass(frozen=True)
class LayerArrays:
    """Random arrays of a case, float32; the initial state is zero.

    Attributes
    ----------
    x (T, B, D), dy (T, B, H), W (D, G*H), R (H, G*H), b (G*H,), bR (H,) : float32 array
    """

    x: Array
    dy: Array
    W: Array
    R: Array
    b: Array
    bR: Array  # noqa: N815 - the field's name

    @classmethod
    def draw(cls, case: LayerCase, seed: int) -> LayerArrays:
        """Draw input and gradient from N(0, 1), weights from U(-1/sqrt(H), 1/sqrt(H))."""
        rng = np.random.default_rng(seed)
        gates, bound = case.make_cell().n_gates * case.H, case.H**-0.5

        def uniform(*shape: int) -> Array:
            return (rng.random(shape, np.float32) * 2 - 1) * np.float32(bound)

        return cls(
            rng.standard_normal((case.T, case.B, case.D), np.float32),
            rng.standard_normal((case.T, case.B, case.H), np.float32),
            uniform(case.D, gates),
            uniform(case.H, gates),
            uniform(gates),
            uniform(case.H),
        )

    def parameters(self, case: LayerCase) -> dict[str, Array]:
        """Parameters by the cell's names."""
        named = {"W": self.W, "R": self.R, "b": self.b}
        return named | {"bR": self.bR} if case.cell == "gru" else named

    def rounded(self, rounding: Callable[[Array], Array]) -> LayerArrays:
        """The arrays with input, gradient and matrices rounded to what is stored."""
        return LayerArrays(
            rounding(self.x), rounding(self.dy), rounding(self.W), rounding(self.R), rounding(self.b), rounding(self.bR)
        )


class TimedLayer(Protocol):
    """A layer of one backend, loaded with a case's arrays."""

    kernel: str
    """What runs, for the record."""

    def run(self, which: Pass) -> float:
        """Run a pass; return its seconds, from before its first kernel to after its last."""

    def results(self) -> dict[str, Array]:
        """What the last training pass computed, float64: ``y``, ``dx``, ``dW``, ``dR``, ``db``, ``dbR``."""

    def solve_facts(self) -> dict[str, float]:
        """What a method did in the last training pass, for the record; nothing where steps go one after another."""


def solve_layer(case: LayerCase, arrays: LayerArrays) -> dict[str, Array]:
    """Compute a training pass in float64 with the NumPy cell.

    Returns
    -------
    dict of str to float64 array
        As :meth:`TimedLayer.results`.
    """
    cell, sizes = case.make_cell(), (case.T, case.B, case.H)
    parameters = {name: a.astype(np.float64) for name, a in arrays.parameters(case).items()}
    tape, work = cell.make_tape(*sizes, np.float64), cell.make_workspace(case.B, case.H, np.float64, NumpyProducts())
    x = arrays.x.astype(np.float64)
    cell.load(parameters, work, backward=True)
    cell.forward(parameters, x, tape, work)
    y = tape.y.copy()
    dstate = {name: np.zeros((case.B, case.H)) for name in cell.state_names}
    cell.backward(arrays.dy.astype(np.float64), dstate, tape, work)
    dx = np.empty_like(x)
    cell.input_gradient(parameters, tape, dx, work)
    gradients = {name: np.empty_like(a) for name, a in parameters.items()}
    cell.weight_gradient(x, tape, gradients, work)
    return {"y": y, "dx": dx} | {f"d{name}": a for name, a in gradients.items()}
