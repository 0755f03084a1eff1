"""Linear recurrences with gates that do not see the state: what minGRU and minLSTM share.

Both forget as much as they take in, with a *share* ``w`` in (0, 1) and a candidate ``n`` that depend on ``x_t`` alone::

    h_t = a h_{t-1} + w n        a = 1 - w        n = x_t W_n + b_n

and differ in how the gates make ``w``.  Going back, with ``δ_t`` the whole gradient with respect to ``h_t``::

    δ_t = dy_t + a_{t+1} δ_{t+1}        dn = w δ        dλ = a w (n - h_{t-1}) δ = a (h_t - h_{t-1}) δ

where ``λ = log(w / a)`` is the logit of the share.  The last form needs no candidate, so none is kept.

Only one multiplication and one addition of the state must follow one another in time.  All else is done for a block of
steps at once: as many as stay in the cache together, so that a short step does not pay for a call of NumPy each time,
and a long one is not fetched from memory anew by each.  Pointwise work is in place wherever it can be, and gates are
copied to where they are worked on, and back: adding two arrays of 2^15 float32 takes NumPy 6 µs where one of them is
the result, 11 where a third is, and 17 where one is strided, but copying a strided one takes 5.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from hpcrnn.cells.base import Array, Cell, Parameters, Tape, Workspace, as_rows
from hpcrnn.cells.starts import NoStarts

BLOCK = 1 << 15
"""Elements (steps times rows times units) of a block, unless one step has more.

Eight arrays of so many float32 are 1 MiB, the second-level cache of a core.  Measured there: of 2^11 to 2^18 elements,
2^14 to 2^16 are equally fast.
"""


class LinearCell(Cell):
    """One state; gates of the share first, the candidate last; no recurrent weights."""

    @abstractmethod
    def admit(self, block: Tape, work: Workspace) -> None:
        """Compute the share ``w`` of every step of a block, and leave it in ``block.saved["factor"]``."""

    @abstractmethod
    def spread(self, dlogit: Array, block: Tape, work: Workspace) -> None:
        """Turn the gradient of the share's logit (S, B, H) into those of the share's gates.

        May destroy it, and the scratch ``delta``.
        """

    def parameter_shapes(self, D: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter: ``W`` (D, G*H) and ``b`` (G*H,)."""
        shapes = super().parameter_shapes(D, H, width)
        return {name: shapes[name] for name in ("W", "b")}

    def saved_shapes(self, B: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """``factor``: the ``a`` of each step."""
        return {"factor": (B, H)}

    def recurrent_blocks(self, H: int) -> dict[str, slice]:  # noqa: ARG002
        """None: there is no product in the time loop."""
        return {}

    def scratch_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        """Two blocks, and the ``unit`` of one step."""
        block = (max(BLOCK, B * H),)
        return {"delta": block, "block": block, "unit": (B, H)}

    @property
    def gates_hold_product(self) -> bool:
        """There is none; ``recur`` leaves the gates as they are."""
        return False

    @property
    def unbounded(self) -> tuple[str, ...]:
        """The candidate is linear in ``x``, so the state may be as large as it."""
        return ("h",)

    def retention(self, parameters: Parameters, tape: Tape) -> Array:  # noqa: ARG002
        """The factor: here the diagonal is the whole Jacobian."""
        return tape.saved["factor"]

    def load(self, parameters: Parameters, work: Workspace, *, backward: bool) -> None:  # noqa: ARG002
        """Lay out the bias."""
        work.bias[...] = parameters["b"].reshape(self.n_gates, 1, -1)

    def recur(self, tape: Tape, work: Workspace) -> None:
        for block in _blocks(tape):
            factor, h = block.saved["factor"], block.states["h"]
            self.admit(block, work)
            inflow = h[1:]  # w n, where the state will be
            np.copyto(inflow, block.gates_by_gate[:, -1])
            np.add(inflow, work.bias[-1], out=inflow)
            np.multiply(inflow, factor, out=inflow)
            np.subtract(1, factor, out=factor)
            _advance(factor, h, work.scratch["unit"], block.starts)
            work.poll()
        # No step has needed the other shards' units: one message for all of them.
        work.exchange.gather(as_rows(tape.states["h"][1:]), as_rows(tape.hidden[1:]))

    def backward(self, dy: Array, dstate: dict[str, Array], tape: Tape, work: Workspace) -> None:
        stop = len(dy)
        for block in reversed(list(_blocks(tape))):
            factor, h = block.saved["factor"], block.states["h"]
            delta, scratch = like(factor, work.scratch["delta"]), like(factor, work.scratch["block"])
            _retreat(factor, dy[stop - len(factor) : stop], delta, dstate["h"], block.starts)
            stop -= len(factor)
            np.subtract(1, factor, out=scratch)
            np.multiply(scratch, delta, out=scratch)
            np.copyto(block.gates_by_gate[:, -1], scratch)
            np.subtract(h[1:], h[:-1], out=scratch)
            block.starts.take_at(scratch, h[1:])  # the state before is zero there
            np.multiply(scratch, factor, out=scratch)
            np.multiply(scratch, delta, out=scratch)
            self.spread(scratch, block, work)
            work.poll()

    def recurrent_gradient(self, tape: Tape, into: Parameters, work: Workspace, *, accumulate: bool = False) -> None:
        """There are no recurrent weights."""

    def forward_flops(self, T: int, B: int, D: int, H: int, width: int | None = None) -> int:  # noqa: ARG002
        return 2 * T * B * D * self.n_gates * H

    def backward_flops(
        self, T: int, B: int, D: int, H: int, width: int | None = None, *, input_gradient: bool = True
    ) -> int:
        return self.forward_flops(T, B, D, H, width) if input_gradient else 0

    def weight_flops(self, T: int, B: int, D: int, H: int, width: int | None = None) -> int:
        return self.forward_flops(T, B, D, H, width)


def like(array: Array, scratch: Array) -> Array:
    """The beginning of a flat scratch array in the shape of another array."""
    return scratch[: array.size].reshape(array.shape)


def _blocks(tape: Tape) -> Iterator[Tape]:
    """Windows of a tape, in the order of time, of ``BLOCK`` elements each or a single step."""
    steps, rows, _ = tape.gates.shape
    length = max(1, BLOCK // max(1, rows * tape.states["h"].shape[-1]))
    for start in range(0, steps, length):
        yield tape.window(start, min(start + length, steps))


def _advance(factor: Array, h: Array, unit: Array, starts: NoStarts) -> None:
    """Compute ``h_t = a_t h_{t-1} + u_t`` for ``h`` (S + 1, B, H), of which all rows but the first hold ``u``.

    At B = 1 this loop is nothing but calls: iterating over arrays and naming results by position halve it.
    """
    before = h[0]
    for a_t, h_t, rows in zip(factor, h[1:], starts.by_step(len(factor)), strict=True):
        np.multiply(a_t, before, unit)
        if rows is not None:
            unit[rows] = 0
        np.add(h_t, unit, h_t)
        before = h_t


def _retreat(factor: Array, dy: Array, delta: Array, dh: Array, starts: NoStarts) -> None:
    """Compute ``δ_t = dy_t + a_{t+1} δ_{t+1}``; ``dh`` (B, H) holds the second term, at first and at last."""
    rows_by_step = starts.by_step(len(factor))[::-1]
    for a_t, dy_t, delta_t, rows in zip(factor[::-1], dy[::-1], delta[::-1], rows_by_step, strict=True):
        np.add(dh, dy_t, delta_t)
        np.multiply(delta_t, a_t, dh)
        if rows is not None:
            dh[rows] = 0
