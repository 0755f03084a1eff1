"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000).

Gates ``i, f, g, o`` of ``a = x_t W + b + h_{t-1} R``::

    i, f, o = σ(a_i), σ(a_f), σ(a_o)      g = tanh(a_g)
    c_t = f c_{t-1} + i g                 h_t = o tanh(c_t)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpcrnn.cells.base import Array, Cell, Parameters, Tape, Workspace, sigmoid
from hpcrnn.cells.initial import chrono_bias


@dataclass(frozen=True)
class LSTM(Cell):
    """Four gates, two states; ``forget_bias`` is added to the forget gate's initial bias.

    With a ``chrono_span`` the initial biases of the forget and the input gate are those of chrono initialisation.
    """

    forget_bias: float = 0.0
    chrono_span: int | None = None

    name: ClassVar[str] = "lstm"
    n_gates: ClassVar[int] = 4
    state_names: ClassVar[tuple[str, ...]] = ("h", "c")
    memory: ClassVar[str] = "c"

    def initial_parameters(self, rng: np.random.Generator, D: int, H: int) -> dict[str, Array]:
        parameters = super().initial_parameters(rng, D, H)
        i, f, *_ = parameters["b"].reshape(4, H)
        if self.chrono_span:
            f[...] = chrono_bias(rng, self.chrono_span, H)
            i[...] = -f
        f += self.forget_bias
        return parameters

    def saved_shapes(self, B: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:
        """The activations, and ``tanh_c``: recomputing it would cost a transcendental a step."""
        return super().saved_shapes(B, H, width) | {"tanh_c": (B, H)}

    def recurrent_blocks(self, H: int) -> dict[str, slice]:
        return {"R": slice(0, 4 * H)}

    @property
    def unbounded(self) -> tuple[str, ...]:
        return ("c",)

    def retention(self, parameters: Parameters, tape: Tape) -> Array:  # noqa: ARG002
        """The forget gate."""
        return tape.saved["activations"][:, 1]

    def exposure(self, tape: Tape, steps: Array) -> dict[str, Array]:
        """``h = o tanh(c)``: o (1 - tanh²c)."""
        rows = np.arange(len(steps))
        o, tanh_c = tape.saved["activations"][steps, 3, rows], tape.saved["tanh_c"][steps, rows]
        return {"h": o * (1 - tanh_c * tanh_c)}

    def scratch_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        return {"slopes": (4, B, H), "unit": (B, H)}

    def recur(self, tape: Tape, work: Workspace) -> None:
        R, bias, unit, exchange = work.forward["R"], work.bias, work.scratch["unit"], work.exchange
        h, c, hidden, tanh_c = tape.states["h"], tape.states["c"], tape.hidden, tape.saved["tanh_c"]
        gates, by_gate, activations = tape.gates, tape.gates_by_gate, tape.saved["activations"]
        starts = tape.starts
        exchange.gather(h[0], hidden[0])
        for t in range(len(tape.gates)):
            starts.hide(t)
            R.accumulate(hidden[t], gates[t])
            s, h_t, c_t, tanh_c_t = activations[t], h[t + 1], c[t + 1], tanh_c[t]
            i, f, g, o = s
            np.add(by_gate[t], bias, out=s)
            sigmoid(s[:2])
            np.tanh(g, out=g)
            sigmoid(o)
            np.multiply(f, c[t], out=c_t)
            np.multiply(i, g, out=unit)
            np.add(c_t, unit, out=c_t)
            np.tanh(c_t, out=tanh_c_t)
            np.multiply(o, tanh_c_t, out=h_t)
            exchange.gather(h_t, hidden[t + 1])
            work.poll()
        starts.show("h", "c")

    def backward(self, dy: Array, dstate: dict[str, Array], tape: Tape, work: Workspace) -> None:
        R, slopes, unit, exchange = work.backward["R"], work.scratch["slopes"], work.scratch["unit"], work.exchange
        c, tanh_c = tape.states["c"], tape.saved["tanh_c"]
        gates, by_gate, activations = tape.gates, tape.gates_by_gate, tape.saved["activations"]
        dh, dc = dstate["h"], dstate["c"]
        starts = tape.starts
        partial = work.partial(dh)
        di, df, dg, do = slopes
        starts.hide_all("c")
        for t in reversed(range(len(dy))):
            s, tanh_c_t = activations[t], tanh_c[t]
            i, f, g, o = s
            np.add(dh, dy[t], out=dh)
            np.multiply(tanh_c_t, tanh_c_t, out=unit)  # dc += dh o (1 - tanh²c)
            np.subtract(1, unit, out=unit)
            np.multiply(unit, o, out=unit)
            np.multiply(unit, dh, out=unit)
            np.add(dc, unit, out=dc)

            np.multiply(s, s, out=slopes)  # σ' = s - s², tanh' = 1 - g²
            np.subtract(s[:2], slopes[:2], out=slopes[:2])
            np.subtract(1, dg, out=dg)
            np.subtract(o, do, out=do)

            np.multiply(slopes[:3], dc, out=slopes[:3])  # slopes become the gates' gradients
            np.multiply(di, g, out=di)
            np.multiply(df, c[t], out=df)
            np.multiply(dg, i, out=dg)
            np.multiply(do, dh, out=do)
            np.multiply(do, tanh_c_t, out=do)
            np.multiply(dc, f, out=dc)
            np.copyto(by_gate[t], slopes)
            R.multiply(gates[t], partial)
            exchange.reduce_scatter(partial, dh)
            starts.cut(t, (dh, dc))
            work.poll()
        starts.show("c")
