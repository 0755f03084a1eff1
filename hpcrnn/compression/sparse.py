"""The largest elements of a gradient alone, with their indices.

Aji & Heafield 2017, "Sparse communication for distributed gradient descent"; with memory as in Stich, Cordonnier &
Jaggi 2018, "Sparsified SGD with memory", algorithm 1. Ranks send different elements, so what a rank receives grows with
their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hpcrnn.compression.stages import Array, FlatLayout, Stage, StageSize, add_checked

_INDEX_BYTES = 4


@dataclass(frozen=True)
class TopK:
    """The codec.

    Attributes
    ----------
    amount : int or Fraction
        Elements of every sum that a rank sends: so many, or this share of them, rounded up.
    """

    amount: int | Fraction

    def count(self, n: int) -> int:
        """Elements sent of n."""
        return min(n, self.amount if isinstance(self.amount, int) else math.ceil(self.amount * n))

    def stage_sizes(self, layout: FlatLayout, itemsize: int, n_ranks: int) -> tuple[StageSize, ...]:  # noqa: ARG002  # of any codec
        return (StageSize("allgather", "topk", self.count(layout.size) * (_INDEX_BYTES + itemsize)),)

    def bind(self, gradient: Array, layout: FlatLayout, rank: int, n_ranks: int) -> SparseSum:
        return SparseSum(self.count(layout.size), gradient, layout, rank, n_ranks)


class SparseSum:
    """One rank's part.

    Parameters
    ----------
    count : int
        Elements it sends.
    gradient : array (n,)
    layout : FlatLayout
    rank, n_ranks : int
    """

    def __init__(self, count: int, gradient: Array, layout: FlatLayout, rank: int, n_ranks: int) -> None:
        self._count, self._gradient, self._layout, self._rank = count, gradient, layout, rank
        self._residual = np.zeros_like(gradient)
        n_bytes = count * (_INDEX_BYTES + gradient.itemsize)
        self._wire, self._wires = np.zeros(n_bytes, np.uint8), np.zeros((n_ranks, n_bytes), np.uint8)
        self.stages = (Stage("allgather", "topk", self._wire, self._wires, self._send, self._take),)

    @property
    def state(self) -> dict[str, Array]:
        return {"residual": self._residual}

    def reset(self) -> None:
        for array in self.state.values():
            array.fill(0)

    def held_back(self) -> Array:
        return self._residual.copy()

    @property
    def memory_bytes(self) -> int:
        return self._residual.nbytes + self._wire.nbytes + self._wires.nbytes

    def _send(self) -> None:
        add_checked(self._residual, self._gradient, self._layout, self._rank)
        indices, values = self._read(self._wire)
        indices[...] = largest(self._residual, self._count)
        values[...] = self._residual[indices]
        self._residual[indices] = 0

    def _take(self) -> None:
        """Add in the order of the ranks; the indices of one rank are different from one another."""
        self._gradient[...] = 0
        for wire in self._wires:
            indices, values = self._read(wire)
            self._gradient[indices] += values

    def _read(self, wire: Array) -> tuple[Array, Array]:
        """Indices and values as views of the bytes; values first, for they may be the wider numbers."""
        values = self._count * self._gradient.itemsize
        return wire[values:].view(np.int32), wire[:values].view(self._gradient.dtype)


def largest(values: Array, count: int) -> Array:
    """Indices of the ``count`` largest magnitudes of a flat array, ascending."""
    first = values.size - count
    return np.sort(np.argpartition(np.abs(values), min(first, values.size - 1))[first:])
