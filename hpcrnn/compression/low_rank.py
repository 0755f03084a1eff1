"""Gradients of matrices as products of two thin ones.

PowerSGD (Vogels, Karimireddy & Jaggi 2019, "PowerSGD: Practical low-rank gradient compression for distributed
optimization", algorithms 1 and 2): one step of a power iteration that goes on from the last step's result,

    P = orthogonalise(sum of M Q)        Q = sum of M^T P        applied: P Q^T

where M is a rank's gradient and what it held back. Both sums are plain allreduces of few numbers. What has no second
dimension, or would not be smaller as two factors, is summed as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from hpcrnn.compression.stages import Array, FlatLayout, Shape, Stage, StageSize, add_checked
from hpcrnn.errors import NumericsError

_SEED = 20190531
"""Of the first Q, the same on all ranks and in every run."""
_OPERANDS = ("P", "Q")
"""Factors; with the first goes what is sent as it is."""


@dataclass(frozen=True)
class LowRank:
    """The codec.

    Attributes
    ----------
    rank : int
        Columns of P and Q; of a smaller matrix as many as it has rows or columns.
    """

    rank: int

    def factors(self, shape: Shape) -> tuple[Shape, Shape] | None:
        """Shapes of P and Q for a parameter; None where it is sent as it is, for factors would save nothing."""
        if len(shape) < 2:
            return None
        a, b = shape[0], prod(shape[1:])
        r = min(self.rank, a, b)
        return ((a, r), (b, r)) if r * (a + b) < a * b else None

    def stage_sizes(self, layout: FlatLayout, itemsize: int, n_ranks: int) -> tuple[StageSize, ...]:  # noqa: ARG002  # of any codec
        factors = [self.factors(shape) for shape in layout.shapes]
        first = sum(prod(f[0] if f else shape) for f, shape in zip(factors, layout.shapes, strict=True))
        second = sum(prod(f[1]) for f in factors if f)
        numbers = zip(_OPERANDS, (first, second), strict=True)
        return tuple(StageSize("allreduce", operand, itemsize * n) for operand, n in numbers if n)

    def bind(self, gradient: Array, layout: FlatLayout, rank: int, n_ranks: int) -> LowRankSum:  # noqa: ARG002  # of any codec
        return LowRankSum(self, gradient, layout, rank)


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A parameter that is sent as two factors: views, but for what is held back and Q."""

    gradient: Array
    residual: Array
    p: Array
    q_sum: Array
    q: Array


class LowRankSum:
    """One rank's part.

    Parameters
    ----------
    codec : LowRank
    gradient : array (n,)
    layout : FlatLayout
    rank : int
    """

    def __init__(self, codec: LowRank, gradient: Array, layout: FlatLayout, rank: int) -> None:
        self._gradient, self._layout, self._rank = gradient, layout, rank
        self._residual = np.zeros_like(gradient)
        sizes = codec.stage_sizes(layout, gradient.itemsize, 1)
        self._buffers = [np.zeros(size.n_bytes // gradient.itemsize, gradient.dtype) for size in sizes]
        self._matrices: dict[str, _Matrix] = {}
        self._plain: list[tuple[slice, Array]] = []
        self._cut(codec)
        self.reset()
        calls = ((self._send_p, self._take_p), (self._send_q, self._take_q))
        self.stages = tuple(
            Stage("allreduce", size.operand, buffer, buffer, *pair)
            for size, buffer, pair in zip(sizes, self._buffers, calls, strict=False)
        )

    def _cut(self, codec: LowRank) -> None:
        """Give every parameter its place in the buffers."""
        at = [0] * len(self._buffers)

        def piece(stage: int, shape: Shape) -> Array:
            start, at[stage] = at[stage], at[stage] + prod(shape)
            return self._buffers[stage][start : at[stage]].reshape(shape)

        for name, shape, where in zip(self._layout.names, self._layout.shapes, self._layout.slices, strict=True):
            if factors := codec.factors(shape):
                p, q = factors
                matrix, held = (flat[where].reshape(shape[0], -1) for flat in (self._gradient, self._residual))
                self._matrices[name] = _Matrix(matrix, held, piece(0, p), piece(1, q), np.zeros_like(held, shape=q))
            else:
                self._plain.append((where, piece(0, (where.stop - where.start,))))

    @property
    def state(self) -> dict[str, Array]:
        return {"residual": self._residual} | {f"q {name}": m.q for name, m in self._matrices.items()}

    def reset(self) -> None:
        self._residual.fill(0)
        for matrix in self._matrices.values():
            matrix.q[...] = first_q(matrix.q.shape)

    def held_back(self) -> Array:
        return self._residual.copy()

    @property
    def memory_bytes(self) -> int:
        return sum(a.nbytes for a in (*self.state.values(), *self._buffers))

    def _send_p(self) -> None:
        add_checked(self._residual, self._gradient, self._layout, self._rank)
        for matrix in self._matrices.values():
            matrix.q[...] = directions(matrix.q)
            np.matmul(matrix.residual, matrix.q, out=matrix.p)
        for where, buffer in self._plain:
            buffer[...] = self._residual[where]
            self._residual[where] = 0

    def _take_p(self) -> None:
        for where, buffer in self._plain:
            self._gradient[where] = buffer
        for name, matrix in self._matrices.items():
            matrix.p[...] = orthogonal(matrix.p, name)

    def _send_q(self) -> None:
        for matrix in self._matrices.values():
            np.matmul(matrix.residual.T, matrix.p, out=matrix.q_sum)
            # The product this rank adds; its place in the gradient is free until all have added theirs.
            np.matmul(matrix.p, matrix.q_sum.T, out=matrix.gradient)
            np.subtract(matrix.residual, matrix.gradient, out=matrix.residual)

    def _take_q(self) -> None:
        for matrix in self._matrices.values():
            np.matmul(matrix.p, matrix.q_sum.T, out=matrix.gradient)
            matrix.q[...] = matrix.q_sum


def first_q(shape: Shape) -> Array:
    """Random directions, float64 (b, r), which any rank draws alike."""
    return np.random.default_rng([_SEED, *shape]).standard_normal(shape)


def directions(q: Array) -> Array:
    """Scale columns to length one; those that are zero, from which an iteration would never return, are drawn anew."""
    wide = q.astype(np.float64)
    largest = np.abs(wide).max(axis=0)
    wide = np.where(largest > 0, wide / np.where(largest > 0, largest, 1), first_q(q.shape))
    return np.asarray(wide / np.linalg.norm(wide, axis=0))


def orthogonal(p: Array, name: str) -> Array:
    """Columns (a, r) that are orthogonal to one another, of length one, and span those of ``p``.

    By Householder reflections in float64, for which columns may depend on one another.

    Raises
    ------
    NumericsError
        They are not finite.
    """
    if not np.isfinite(p).all():
        raise NumericsError(
            f"the gradient of {name}, summed over ranks, is not finite; a smaller training.lr usually helps"
        )
    return np.asarray(np.linalg.qr(p.astype(np.float64))[0])
