"""One layer's chunk of time: random arrays, and what the NumPy cells make of them in float64."""

from dataclasses import dataclass

import numpy as np

from hpcrnn.cells import GRU, LSTM, Elman
from hpcrnn.cells.products import NumpyProducts

CELLS = {"lstm": LSTM(), "gru": GRU(), "elman": Elman(), "elman-relu": Elman(activation="relu")}


@dataclass
class Solution:
    """All that a forward and a backward pass compute, in float64."""

    h: np.ndarray
    c: np.ndarray | None
    q: np.ndarray | None
    active: np.ndarray
    d: np.ndarray
    dstate: dict


@dataclass
class LayerProblem:
    """What goes in: the input's part of the gates, weights, states, gradients."""

    cell: object
    T: int
    B: int
    H: int
    gates: np.ndarray
    R: np.ndarray
    b: np.ndarray
    bR: np.ndarray  # noqa: N815 - the field's name
    initial: dict
    final: dict
    dy: np.ndarray

    def solve(self):
        """Run the NumPy cell in float64 on an input of its own gates: D = G H and W = 1."""
        cell, (T, B, H) = self.cell, (self.T, self.B, self.H)
        G = cell.n_gates
        parameters = {"W": np.eye(G * H), "R": self.R, "b": self.b}
        if cell.name == "gru":
            parameters["bR"] = self.bR
        tape, work = cell.make_tape(T, B, H, np.float64), cell.make_workspace(B, H, np.float64, NumpyProducts())
        cell.load(parameters, work, backward=True)
        for name, state in self.initial.items():
            tape.states[name][0] = state
        cell.forward(parameters, self.gates, tape, work)
        h = tape.states["h"].copy()
        active = h[1:] if cell.name == "elman" else tape.saved["activations"].transpose(0, 2, 1, 3).reshape(T, B, G * H)
        q = tape.saved["q"].copy() if cell.name == "gru" else None
        dstate = {name: state.copy() for name, state in self.final.items()}
        cell.backward(self.dy, dstate, tape, work)
        d = tape.gates
        if cell.name == "gru":
            d = np.concatenate([d[..., : 2 * H], d[..., 2 * H :] * active[..., :H], d[..., 2 * H :]], axis=-1)
        return Solution(h, tape.states.get("c"), q, active.copy(), d, dstate)


def make_layer_problem(cell, T, B, H, rounded, seed=0, bound=None):
    """Draw a problem whose arrays are what ``rounded`` makes of them."""
    rng = np.random.default_rng(seed)
    made = CELLS[cell]
    G, bound = made.n_gates, bound or H**-0.5

    def normal(*shape):
        return rounded(rng.standard_normal(shape))

    return LayerProblem(
        made,
        T,
        B,
        H,
        gates=normal(T, B, G * H),
        R=rounded(rng.uniform(-bound, bound, (H, G * H))),
        b=rng.uniform(-bound, bound, G * H).astype(np.float32).astype(np.float64),
        bR=rng.uniform(-bound, bound, H).astype(np.float32).astype(np.float64),
        initial={name: rounded(0.5 * rng.standard_normal((B, H))) for name in made.state_names},
        final={name: rounded(rng.standard_normal((B, H))) for name in made.state_names},
        dy=normal(T, B, H),
    )


def relative_error(found, expected):
    """2-norm of the difference over that of the expected; NaN where anything is not finite."""
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected))
