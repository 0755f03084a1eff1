"""Gated recurrent unit (Cho et al. 2014), with the reset gate after or before the recurrent product.

Gates ``r, z, n``::

    r, z = σ(x_t W_rz + b_rz + h_{t-1} R_rz)
    after:   q = h_{t-1} R_n + bR          n = tanh(x_t W_n + b_n + r q)        (cuDNN, PyTorch)
    before:  p = r h_{t-1}                 n = tanh(x_t W_n + b_n + p R_n)      (the original)
    h_t = (1 - z) n + z h_{t-1}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hpcrnn.cells.base import Array, Cell, Parameters, Tape, Workspace, as_rows, sigmoid, sum_rows
from hpcrnn.cells.initial import chrono_bias


@dataclass(frozen=True)
class GRU(Cell):
    """Three gates, one state; ``reset="after"`` has one recurrent product a step, ``"before"`` two in a row.

    The update gate keeps the state: ``forget_bias`` is added to its initial bias, which with a ``chrono_span`` is that
    of chrono initialisation.
    """

    reset: Literal["after", "before"] = "after"
    forget_bias: float = 0.0
    chrono_span: int | None = None

    name: ClassVar[str] = "gru"
    n_gates: ClassVar[int] = 3

    def parameter_shapes(self, D: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:
        """As every cell, and ``bR`` (H,): the bias inside the reset product of ``reset="after"``."""
        shapes = super().parameter_shapes(D, H, width)
        return shapes | {"bR": (H,)} if self.reset == "after" else shapes

    def initial_parameters(self, rng: np.random.Generator, D: int, H: int) -> dict[str, Array]:
        parameters = super().initial_parameters(rng, D, H)
        _, z, _ = parameters["b"].reshape(3, H)
        if self.chrono_span:
            z[...] = chrono_bias(rng, self.chrono_span, H)
        z += self.forget_bias
        return parameters

    def saved_shapes(self, B: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:
        """The activations, and ``q`` or ``p``, that of all shards."""
        shapes = super().saved_shapes(B, H, width)
        return shapes | ({"q": (B, H)} if self.reset == "after" else {"p": (B, width or H)})

    @property
    def gates_hold_product(self) -> bool:
        """Only with two products: with one, r scales a part of it before it is added."""
        return self.reset == "before"

    def retention(self, parameters: Parameters, tape: Tape) -> Array:  # noqa: ARG002
        """The update gate."""
        return tape.saved["activations"][:, 1]

    def recurrent_blocks(self, H: int) -> dict[str, slice]:
        if self.reset == "after":
            return {"R": slice(0, 3 * H)}
        return {"rz": slice(0, 2 * H), "n": slice(2 * H, 3 * H)}

    def scratch_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"slopes": (3, B, H), "unit": (B, H)}
        return shapes | ({"product": (B, 3 * H), "bR": (H,)} if self.reset == "after" else {"dp": (B, H)})

    def load(self, parameters: Parameters, work: Workspace, *, backward: bool) -> None:
        super().load(parameters, work, backward=backward)
        if self.reset == "after":
            np.copyto(work.scratch["bR"], parameters["bR"])

    def recur(self, tape: Tape, work: Workspace) -> None:
        candidate = self._candidate_after if self.reset == "after" else self._candidate_before
        h, hidden, unit, exchange = tape.states["h"], tape.hidden, work.scratch["unit"], work.exchange
        starts = tape.starts
        exchange.gather(h[0], hidden[0])
        for t in range(len(tape.gates)):
            starts.hide(t)
            candidate(t, tape, work)
            _, z, n = tape.saved["activations"][t]
            h_t = h[t + 1]
            np.subtract(h[t], n, out=unit)  # h_t = n + z (h_{t-1} - n)
            np.multiply(z, unit, out=unit)
            np.add(n, unit, out=h_t)
            exchange.gather(h_t, hidden[t + 1])
            work.poll()
        starts.show("h")

    def _candidate_after(self, t: int, tape: Tape, work: Workspace) -> None:
        """Compute r, z, n of step t with one product."""
        s, q, unit, product = (
            tape.saved["activations"][t],
            tape.saved["q"][t],
            work.scratch["unit"],
            work.scratch["product"],
        )
        r, _, n = s
        work.forward["R"].multiply(tape.hidden[t], product)
        by_gate = _by_gate(product, 3)
        np.add(tape.gates_by_gate[t], work.bias, out=s)
        np.add(s[:2], by_gate[:2], out=s[:2])
        sigmoid(s[:2])
        np.add(by_gate[2], work.scratch["bR"], out=q)
        np.multiply(r, q, out=unit)
        np.add(n, unit, out=n)
        np.tanh(n, out=n)

    def _candidate_before(self, t: int, tape: Tape, work: Workspace) -> None:
        """Compute r, z, n of step t with two products, the second of r h."""
        s, p, unit, h = tape.saved["activations"][t], tape.saved["p"][t], work.scratch["unit"], tape.states["h"]
        r, _z, n = s
        own = work.own(p)
        work.forward["rz"].accumulate(tape.hidden[t], tape.gates[t][:, : 2 * h.shape[-1]])
        np.add(tape.gates_by_gate[t], work.bias, out=s)
        sigmoid(s[:2])
        np.multiply(r, h[t], out=own)
        work.exchange.gather(own, p)
        work.forward["n"].multiply(p, unit)
        np.add(n, unit, out=n)
        np.tanh(n, out=n)

    def backward(self, dy: Array, dstate: dict[str, Array], tape: Tape, work: Workspace) -> None:
        reset = self._reset_after if self.reset == "after" else self._reset_before
        h, dh, activations, starts = tape.states["h"], dstate["h"], tape.saved["activations"], tape.starts
        slopes, unit = work.scratch["slopes"], work.scratch["unit"]
        _, dz, dn = slopes
        starts.hide_all("h")
        for t in reversed(range(len(dy))):
            s = activations[t]
            _, z, n = s
            np.add(dh, dy[t], out=dh)
            np.multiply(s, s, out=slopes)  # σ' = s - s², tanh' = 1 - n²
            np.subtract(s[:2], slopes[:2], out=slopes[:2])
            np.subtract(1, dn, out=dn)

            np.subtract(h[t], n, out=unit)  # dz = dh (h_{t-1} - n) σ'
            np.multiply(unit, dh, out=unit)
            np.multiply(dz, unit, out=dz)
            np.multiply(dh, z, out=unit)  # what of dh reaches h_{t-1} directly; the rest goes to n
            np.subtract(dh, unit, out=dh)
            np.multiply(dn, dh, out=dn)
            reset(t, dh, tape, work)
            np.add(dh, unit, out=dh)
            starts.cut(t, (dh,))
            work.poll()
        starts.show("h")

    def _reset_after(self, t: int, dh: Array, tape: Tape, work: Workspace) -> None:
        """From dn, dz and the slope of r: the gate gradients, dq, and ``dh = [dr, dz, dq] R^T``."""
        q, slopes, product = tape.saved["q"][t], work.scratch["slopes"], work.scratch["product"]
        dr, _, dn = slopes
        np.multiply(dr, dn, out=dr)
        np.multiply(dr, q, out=dr)
        np.copyto(tape.gates_by_gate[t], slopes)
        by_gate = _by_gate(product, 3)
        np.copyto(by_gate[:2], slopes[:2])
        np.multiply(dn, tape.saved["activations"][t][0], out=by_gate[2])  # dq = dn r
        partial = work.partial(dh)
        work.backward["R"].multiply(product, partial)
        work.exchange.reduce_scatter(partial, dh)

    def _reset_before(self, t: int, dh: Array, tape: Tape, work: Workspace) -> None:
        """From dn, dz and the slope of r: the gate gradients and ``dh = r dp + [dr, dz] R_rz^T``."""
        slopes, dp = work.scratch["slopes"], work.scratch["dp"]
        dr, _, dn = slopes
        partial = work.partial(dp)
        work.backward["n"].multiply(dn, partial)
        work.exchange.reduce_scatter(partial, dp)
        np.multiply(dr, dp, out=dr)
        np.multiply(dr, tape.states["h"][t], out=dr)
        np.multiply(dp, tape.saved["activations"][t][0], out=dp)
        np.copyto(tape.gates_by_gate[t], slopes)
        partial = work.partial(dh)
        work.backward["rz"].multiply(tape.gates[t][:, : 2 * dh.shape[-1]], partial)
        work.exchange.reduce_scatter(partial, dh)
        np.add(dh, dp, out=dh)

    def recurrent_gradient(self, tape: Tape, into: Parameters, work: Workspace, *, accumulate: bool = False) -> None:
        hidden, gates, matmul = as_rows(tape.hidden[:-1]), as_rows(tape.gates), work.library.matmul
        split = 2 * tape.states["h"].shape[-1]  # columns of r and z, then those of n
        tape.starts.hide_all("h")
        matmul(hidden.T, gates[:, :split], into["R"][:, :split], accumulate=accumulate)
        if self.reset == "after":
            # dq = dn r, made again some steps at a time: a backward pass may be corrected after it has run.
            T, B, _ = tape.gates.shape
            steps = max(1, _DQ_ROWS // B)
            for start in range(0, T, steps):
                dn, r = (a[start : start + steps] for a in (tape.gates_by_gate[:, 2], tape.saved["activations"][:, 0]))
                dq, more = as_rows(dn * r), accumulate or start > 0
                rows = hidden[start * B : start * B + len(dq)]
                matmul(rows.T, dq, into["R"][:, split:], accumulate=more)
                sum_rows(dq, into["bR"], work.scratch["sums"], accumulate=more)
        else:
            matmul(as_rows(tape.saved["p"]).T, gates[:, split:], into["R"][:, split:], accumulate=accumulate)
        tape.starts.show("h")


_DQ_ROWS = 8192
"""Rows of dq that are made at once: enough for a product at its best."""


def _by_gate(product: Array, n_gates: int) -> Array:
    """(B, G*H) seen as (G, B, H)."""
    return product.reshape(len(product), n_gates, -1).transpose(1, 0, 2)
