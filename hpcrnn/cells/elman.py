"""Elman's cell (Elman 1990, *Finding structure in time*): ``h_t = φ(x_t W + b + h_{t-1} R)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hpcrnn.cells.base import Array, Cell, Parameters, Tape, Workspace


@dataclass(frozen=True)
class Elman(Cell):
    """One gate; φ is tanh or relu."""

    activation: Literal["tanh", "relu"] = "tanh"

    name: ClassVar[str] = "elman"
    n_gates: ClassVar[int] = 1

    def saved_shapes(self, B: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """Nothing: the one activation is the state."""
        return {}

    @property
    def unbounded(self) -> tuple[str, ...]:
        return ("h",) if self.activation == "relu" else ()

    def retention(self, parameters: Parameters, tape: Tape) -> Array:
        """The diagonal of the step's Jacobian, ``φ' diag(R)``: there is no gate."""
        h = tape.states["h"][1:]
        slope = 1 - h * h if self.activation == "tanh" else (h > 0).astype(h.dtype)
        return np.asarray(slope * np.diagonal(parameters["R"]))

    def recurrent_blocks(self, H: int) -> dict[str, slice]:
        return {"R": slice(0, H)}

    def scratch_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        return {"slope": (B, H)}

    def recur(self, tape: Tape, work: Workspace) -> None:
        R, bias, exchange = work.forward["R"], work.bias[0], work.exchange
        h, hidden, gates, starts = tape.states["h"], tape.hidden, tape.gates, tape.starts
        exchange.gather(h[0], hidden[0])
        for t in range(len(tape.gates)):
            a, h_t = gates[t], h[t + 1]
            starts.hide(t)
            R.accumulate(hidden[t], a)
            np.add(a, bias, out=h_t)  # the gates stay what the products made of them
            if self.activation == "tanh":
                np.tanh(h_t, out=h_t)
            else:
                np.maximum(h_t, 0, out=h_t)
            exchange.gather(h_t, hidden[t + 1])
            work.poll()
        starts.show("h")

    def backward(self, dy: Array, dstate: dict[str, Array], tape: Tape, work: Workspace) -> None:
        R, slope, exchange = work.backward["R"], work.scratch["slope"], work.exchange
        h, gates, dh, starts = tape.states["h"], tape.gates, dstate["h"], tape.starts
        partial = work.partial(dh)
        for t in reversed(range(len(dy))):
            da, h_t = gates[t], h[t + 1]
            np.add(dh, dy[t], out=dh)
            if self.activation == "tanh":  # φ' = 1 - h²
                np.multiply(h_t, h_t, out=slope)
                np.subtract(1, slope, out=slope)
            else:  # φ' = 1 where h > 0
                np.greater(h_t, 0, out=slope, casting="unsafe")
            np.multiply(dh, slope, out=da)
            R.multiply(da, partial)
            exchange.reduce_scatter(partial, dh)
            starts.cut(t, (dh,))
            work.poll()
