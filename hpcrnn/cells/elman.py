"""Elman's cell (Elman 1990, *Finding structure in time*): ``h_t = φ(x_t W + b + h_{t-1} R)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hpcrnn.cells.base import Array, Cell, Parameters, Tape, Workspace, input_product


@dataclass(frozen=True)
class Elman(Cell):
    """One gate; φ is tanh or relu."""

    activation: Literal["tanh", "relu"] = "tanh"

    name: ClassVar[str] = "elman"
    n_gates: ClassVar[int] = 1

    def saved_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """Nothing: the one activation is the state."""
        return {}

    def recurrent_blocks(self, H: int) -> dict[str, slice]:
        return {"R": slice(0, H)}

    def scratch_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        return {"slope": (B, H)}

    def forward(self, parameters: Parameters, x: Array, tape: Tape, work: Workspace) -> None:
        input_product(parameters, x, tape, work)
        R, bias = work.forward["R"], work.bias[0]
        h, gates = tape.states["h"], tape.gates
        for t in range(len(x)):
            a = gates[t]
            R.accumulate(h[t], a)
            np.add(a, bias, out=a)
            if self.activation == "tanh":
                np.tanh(a, out=h[t + 1])
            else:
                np.maximum(a, 0, out=h[t + 1])

    def backward(self, dy: Array, dstate: dict[str, Array], tape: Tape, work: Workspace) -> None:
        R, slope = work.backward["R"], work.scratch["slope"]
        h, gates, dh = tape.states["h"], tape.gates, dstate["h"]
        for t in reversed(range(len(dy))):
            da = gates[t]
            np.add(dh, dy[t], out=dh)
            if self.activation == "tanh":  # φ' = 1 - h²
                np.multiply(h[t + 1], h[t + 1], out=slope)
                np.subtract(1, slope, out=slope)
            else:  # φ' = 1 where h > 0
                np.greater(h[t + 1], 0, out=slope, casting="unsafe")
            np.multiply(dh, slope, out=da)
            R.multiply(da, dh)
