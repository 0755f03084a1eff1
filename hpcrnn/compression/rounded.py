"""Gradients rounded to fewer bits, there and back: a compressed allreduce in two stages.

Each rank is the owner of one part of the gradient. It sends every owner that owner's part, rounded; the owner sums what
comes in full precision and sends the sum to all, rounded again. Both roundings have their own error feedback, as in
DoubleSqueeze (Tang et al. 2019, "DoubleSqueeze: Parallel stochastic gradient descent with double-pass error-compensated
compression", algorithm 1), whose one server is spread over all ranks here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from hpcrnn.compression.rounding import (
    LARGEST_BFLOAT16,
    LARGEST_FLOAT16,
    SCALE_BYTES,
    from_bfloat16,
    from_int8,
    to_bfloat16,
    to_int8,
)
from hpcrnn.compression.stages import Array, FlatLayout, Stage, StageSize, add_checked

RoundingName = Literal["float16", "bfloat16", "int8"]
ROUNDINGS: tuple[RoundingName, ...] = get_args(RoundingName)

INT8_BLOCK = 256
"""Values that share a scale, whose four bytes are 1.6 % of theirs. A step of an LSTM (H 128, two ranks) is then off by
3.2 % of its gradient; with blocks of 1024, whose scales are 0.4 %, by 5.4 %."""


class Rounding(Protocol):
    """A way to write numbers as fewer bytes; what is beyond its range is written as the largest there is."""

    def wire_bytes(self, n: int) -> int:
        """Bytes of n numbers."""

    def encode(self, values: Array, wire: Array) -> None:
        """Write finite numbers (n,) as bytes."""

    def decode(self, wire: Array, out: Array) -> None:
        """Read them."""


class _Float16:
    def wire_bytes(self, n: int) -> int:
        return 2 * n

    def encode(self, values: Array, wire: Array) -> None:
        np.clip(values, -LARGEST_FLOAT16, LARGEST_FLOAT16, out=wire.view(np.float16), casting="unsafe")

    def decode(self, wire: Array, out: Array) -> None:
        out[...] = wire.view(np.float16)


class _Bfloat16:
    def wire_bytes(self, n: int) -> int:
        return 2 * n

    def encode(self, values: Array, wire: Array) -> None:
        wire.view(np.uint16)[...] = to_bfloat16(np.clip(values, -LARGEST_BFLOAT16, LARGEST_BFLOAT16))

    def decode(self, wire: Array, out: Array) -> None:
        from_bfloat16(wire.view(np.uint16), out)


class _Int8:
    """Scales first, then levels; the last block may be shorter."""

    def wire_bytes(self, n: int) -> int:
        return SCALE_BYTES * -(-n // INT8_BLOCK) + n

    def encode(self, values: Array, wire: Array) -> None:
        for (levels, scales), part in zip(self._parts(wire, values.size), self._rows(values), strict=True):
            found, scale = to_int8(part)
            levels[...], scales[...] = found, scale

    def decode(self, wire: Array, out: Array) -> None:
        for (levels, scales), part in zip(self._parts(wire, out.size), self._rows(out), strict=True):
            from_int8(levels, scales, part)

    @staticmethod
    def _rows(values: Array) -> list[Array]:
        """Whole blocks as rows, and the rest as a row."""
        whole = values.size - values.size % INT8_BLOCK
        return [values[:whole].reshape(-1, INT8_BLOCK), values[whole:].reshape(-1, max(1, values.size - whole))]

    def _parts(self, wire: Array, n: int) -> list[tuple[Array, Array]]:
        """Levels and scales of the same, as views of the bytes."""
        head = wire.size - n
        scales, levels = wire[:head].view(np.float32)[:, None], wire[head:].view(np.int8)
        n_whole = n // INT8_BLOCK
        return list(zip(self._rows(levels), (scales[:n_whole], scales[n_whole:]), strict=True))


_ROUNDINGS: dict[RoundingName, Rounding] = {"float16": _Float16(), "bfloat16": _Bfloat16(), "int8": _Int8()}


@dataclass(frozen=True)
class Rounded:
    """The codec.

    Attributes
    ----------
    name : {"float16", "bfloat16", "int8"}
    """

    name: RoundingName

    def stage_sizes(self, layout: FlatLayout, itemsize: int, n_ranks: int) -> tuple[StageSize, ...]:  # noqa: ARG002  # of any codec
        part = _ROUNDINGS[self.name].wire_bytes(_part_size(layout.size, n_ranks))
        return StageSize("alltoall", self.name, n_ranks * part), StageSize("allgather", self.name, part)

    def bind(self, gradient: Array, layout: FlatLayout, rank: int, n_ranks: int) -> RoundedSum:
        return RoundedSum(self.name, gradient, layout, rank, n_ranks)


def _part_size(n: int, n_ranks: int) -> int:
    """Elements of an owner's part, the same for all: the last parts are filled with zeros."""
    return -(-n // n_ranks)


class RoundedSum:
    """One rank's part.

    Parameters
    ----------
    name : {"float16", "bfloat16", "int8"}
    gradient : array (n,)
    layout : FlatLayout
    rank, n_ranks : int
    """

    def __init__(self, name: RoundingName, gradient: Array, layout: FlatLayout, rank: int, n_ranks: int) -> None:
        rounding = _ROUNDINGS[name]
        self._rounding, self._gradient, self._layout, self._rank = rounding, gradient, layout, rank
        part = _part_size(gradient.size, n_ranks)
        self._residual = np.zeros((n_ranks, part), gradient.dtype)
        self._sum_residual = np.zeros(part, gradient.dtype)
        self._decoded = np.empty(part, gradient.dtype)
        n_bytes = rounding.wire_bytes(part)
        self._parts, self._received, self._sums = (np.zeros((n_ranks, n_bytes), np.uint8) for _ in range(3))
        self._sum = np.zeros(n_bytes, np.uint8)
        self.stages = (
            Stage("alltoall", name, self._parts, self._received, self._send_parts, self._add_parts),
            Stage("allgather", name, self._sum, self._sums, self._send_sum, self._take_sums),
        )

    @property
    def state(self) -> dict[str, Array]:
        return {"residual": self._residual, "sum_residual": self._sum_residual}

    def reset(self) -> None:
        for array in self.state.values():
            array.fill(0)

    def held_back(self) -> Array:
        total = self._residual.copy()
        total[self._rank] += self._sum_residual
        return total.ravel()[: self._gradient.size]

    @property
    def memory_bytes(self) -> int:
        wires = (self._parts, self._received, self._sums, self._sum)
        return sum(a.nbytes for a in (*self.state.values(), self._decoded, *wires))

    def _send_parts(self) -> None:
        add_checked(self._residual.ravel()[: self._gradient.size], self._gradient, self._layout, self._rank)
        for values, wire in zip(self._residual, self._parts, strict=True):
            self._encode(values, wire)

    def _encode(self, values: Array, wire: Array) -> None:
        """Write values as bytes; leave in their place what these do not say."""
        self._rounding.encode(values, wire)
        self._rounding.decode(wire, self._decoded)
        np.subtract(values, self._decoded, out=values)

    def _add_parts(self) -> None:
        """Add in the order of the ranks."""
        for wire in self._received:
            self._rounding.decode(wire, self._decoded)
            np.add(self._sum_residual, self._decoded, out=self._sum_residual)

    def _send_sum(self) -> None:
        self._encode(self._sum_residual, self._sum)

    def _take_sums(self) -> None:
        part = self._decoded.size
        for start, wire in zip(range(0, self._gradient.size, part), self._sums, strict=False):
            self._rounding.decode(wire, self._decoded)
            into = self._gradient[start : start + part]
            into[...] = self._decoded[: into.size]
