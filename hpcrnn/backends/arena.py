"""Memory that buffers share whose lives do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Allocate = Callable[[Shape], Array]
Tenant = TypeVar("Tenant", bound=Hashable)

_ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""


def aligned_zeros(size: int, dtype: npt.DTypeLike) -> Array:
    """Zeros that start on a cache line."""
    itemsize = np.dtype(dtype).itemsize
    raw = np.zeros(size * itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size * itemsize].view(dtype)


@dataclass(frozen=True)
class Memory:
    """Where arrays lie, and of what.

    Attributes
    ----------
    dtype : dtype
    zeros : callable
        From size and dtype to a flat array of zeros that starts on a multiple of 64 bytes; of the host if not given.
    """

    dtype: npt.DTypeLike
    zeros: Callable[[int, npt.DTypeLike], Array] = aligned_zeros


class Arena(Generic[Tenant]):
    """One flat array a slot; every tenant of a slot carves its arrays out of it from the start.

    Parameters
    ----------
    shapes : mapping of tenant to sequence of shape
        What each tenant will ask for.
    slots : mapping of tenant to int
        Tenants of the same slot overlap.
    memory : Memory
    """

    def __init__(
        self,
        shapes: Mapping[Tenant, Sequence[Shape]],
        slots: Mapping[Tenant, int],
        memory: Memory,
    ) -> None:
        self._slots, itemsize = slots, np.dtype(memory.dtype).itemsize
        self._step = max(1, _ALIGNMENT // itemsize)
        sizes: dict[int, int] = {}
        for tenant, wanted in shapes.items():
            needed = sum(self._rounded(math.prod(shape)) for shape in wanted)
            sizes[slots[tenant]] = max(sizes.get(slots[tenant], 0), needed)
        self._flat = {slot: memory.zeros(size, memory.dtype) for slot, size in sizes.items()}

    @property
    def n_bytes(self) -> int:
        """Memory of all slots."""
        return sum(flat.nbytes for flat in self._flat.values())

    def allocator(self, tenant: Tenant) -> Allocate:
        """Return a function that carves one array after another for a tenant."""
        flat, position = self._flat[self._slots[tenant]], 0

        def allocate(shape: Shape) -> Array:
            nonlocal position
            size = math.prod(shape)
            carved = flat[position : position + size].reshape(shape)
            position += self._rounded(size)
            return carved

        return allocate

    def _rounded(self, size: int) -> int:
        return -(-size // self._step) * self._step
