"""How a change of the state a segment starts from is predicted to change the state it ends with.

Segment k ran from ``used_k`` and came to ``out_k``; its neighbour ran from ``used_{k+1}``. With a linear prediction
``A_k`` of the segment's map, the starts that would fit are ``used + δ`` with

    δ_0 = 0        δ_{k+1} = (out_k - used_{k+1}) + A_k δ_k

one affine exclusive scan over the segments: along the rows of a rank, then over ranks. ``A = 0`` is Picard's iteration,
which needs no scan; a diagonal of gate products a quasi-Newton step; the full Jacobian Newton's, which for linear cells
is exact. The gradient is the same with the segments from right to left and the transposed maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hpcrnn.cells.base import Array
from hpcrnn.methods.line import Line


class Transfer(Protocol):
    """A prediction of every segment's map on one rank."""

    def corrections(self, gaps: Array, line: Line, *, leftward: bool) -> Array:
        """Solve for the δ of every segment.

        Parameters
        ----------
        gaps : array (n, V, B, H)
            ``out_k - used_{k+1}`` by the segment that receives it; zero where time begins.
        line : Line
        leftward : bool
            Segments from right to left: the adjoint.

        Returns
        -------
        array (n, V, B, H)
        """


@dataclass(frozen=True)
class DiagonalTransfer:
    """One state keeps what the gates' product leaves of it; the others follow it.

    Attributes
    ----------
    memory : int
        Index of that state.
    kept : array (V, B, H)
        Product of the retention over each segment.
    exposures : dict of int to array (V, B, H)
        Derivative of each other state, at the segment's end, by ``memory``.
    """

    memory: int
    kept: Array
    exposures: dict[int, Array]

    def corrections(self, gaps: Array, line: Line, *, leftward: bool) -> Array:
        order = range(gaps.shape[1])[:: -1 if leftward else 1]
        effect = np.zeros_like(gaps[:, 0])
        if line.size > 1:
            local = self._swept(gaps, effect, order)
            effect = self._arriving(local[:, order[-1]], np.prod(self.kept, axis=0), order[-1], line, leftward=leftward)
        return self._swept(gaps, effect, order)

    def _swept(self, gaps: Array, effect: Array, order: range) -> Array:
        """Scan along this rank's segments, from what arrives at the first of them."""
        deltas = np.empty_like(gaps)
        for v in order:
            np.add(gaps[:, v], effect, out=deltas[:, v])
            effect = self._applied(deltas[:, v], v, leftward=order.step < 0)
        return deltas

    def _applied(self, delta: Array, v: int, *, leftward: bool) -> Array:
        """A δ of one segment; transposed for the adjoint."""
        effect = np.zeros_like(delta)
        if leftward:
            felt = delta[self.memory] + sum(delta[i] * q[v] for i, q in self.exposures.items())
            np.multiply(self.kept[v], felt, out=effect[self.memory])
            return effect
        np.multiply(self.kept[v], delta[self.memory], out=effect[self.memory])
        for i, q in self.exposures.items():
            np.multiply(q[v], effect[self.memory], out=effect[i])
        return effect

    def _arriving(self, last: Array, total: Array, v: int, line: Line, *, leftward: bool) -> Array:
        """What arrives at this rank's first segment: an exclusive scan of the ranks' maps ``δ → total δ + own``.

        Only ``memory`` of what arrives goes on; a rank sends what leaves it, and what that does to its other states.
        """
        own = self._applied(last, v, leftward=leftward)
        factors = np.stack([total, *(q[v] for q in self.exposures.values())])
        effect = np.zeros_like(own)
        ranks = list(zip(line.gather(own), line.gather(factors), strict=True))
        before = ranks[: line.rank] if not leftward else ranks[: line.rank : -1]
        for left, (through, *exposed) in before:
            passed = through * effect[self.memory]
            effect = left.copy()
            effect[self.memory] += passed
            if not leftward:
                for i, q in zip(self.exposures, exposed, strict=True):
                    effect[i] += q * passed
        return effect


@dataclass(frozen=True)
class DenseTransfer:
    """The Jacobian of every segment.

    Attributes
    ----------
    jacobian : array (V, B, n*H, n*H)
        ``[.., i, j]``: derivative of component i of the end by component j of the start.
    """

    jacobian: Array

    def corrections(self, gaps: Array, line: Line, *, leftward: bool) -> Array:
        n, V, B, H = gaps.shape
        maps = self.jacobian.swapaxes(-1, -2) if leftward else self.jacobian
        flat = gaps.transpose(1, 2, 0, 3).reshape(V, B, n * H, 1)
        order = range(V)[:: -1 if leftward else 1]
        effect = np.zeros_like(flat[0])
        if line.size > 1:
            through = maps[order[0]]
            for v in order[1:]:
                through = maps[v] @ through
            own = maps[order[-1]] @ _swept_dense(maps, flat, effect, order)[order[-1]]
            ranks = list(zip(line.gather(own), line.gather(np.ascontiguousarray(through)), strict=True))
            for left, total in ranks[: line.rank] if not leftward else ranks[: line.rank : -1]:
                effect = left + total @ effect
        deltas = _swept_dense(maps, flat, effect, order)
        return np.ascontiguousarray(deltas.reshape(V, B, n, H).transpose(2, 0, 1, 3))


def _swept_dense(maps: Array, gaps: Array, effect: Array, order: range) -> Array:
    deltas = np.empty_like(gaps)
    for v in order:
        np.add(gaps[v], effect, out=deltas[v])
        effect = maps[v] @ deltas[v]
    return deltas
