"""Where arrays on the GPU meet MPI: as they are, or through memory of the host that does not move."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cupy as cp
import numpy as np
import numpy.typing as npt

from hpcrnn.backends.base import Array
from hpcrnn.backends.cupy.device import Device, DeviceArray


def pinned_zeros(size: int, dtype: npt.DTypeLike) -> Array:
    """Return flat zeros that the GPU copies from and to by itself."""
    kind: np.dtype[Any] = np.dtype(dtype)
    memory = cp.cuda.alloc_pinned_memory(max(1, size * kind.itemsize))
    array: Array = np.frombuffer(memory, kind, size)
    array[...] = 0
    return array


class Staging:
    """What messages are received into and sent from, an array on the host for each on the GPU.

    Copies are made on a stream of their own, so that they wait for nothing but what they copy.

    Parameters
    ----------
    device : Device
    direct : bool
        MPI takes arrays on the GPU as they are: nothing is staged.
    """

    def __init__(self, device: Device, *, direct: bool) -> None:
        self._device, self.direct = device, direct
        self._of: dict[tuple[int, int], Array] = {}

    def array(self, on_device: DeviceArray) -> Array:
        """Return what MPI is given in place of a contiguous array; the same at every call."""
        words = as_words(on_device)
        if self.direct:
            return words  # type: ignore[no-any-return]
        # Those that share a slot begin at the same address, and may have other sizes and shapes.
        key = words.data.ptr, words.nbytes
        if key not in self._of:
            self._of[key] = pinned_zeros(math.prod(words.shape), words.dtype)
        return self._of[key].reshape(words.shape)

    def mover(self, on_device: DeviceArray, *, incoming: bool) -> Callable[[], None] | None:
        """Return what brings the array from the host, or to it; None where nothing is staged."""
        if self.direct:
            return None
        words, host, copies = as_words(on_device), self.array(on_device), self._device.copies

        def fetch() -> None:
            words.set(host, stream=copies)
            copies.synchronize()

        def leave() -> None:
            words.get(out=host, stream=copies)
            copies.synchronize()

        return fetch if incoming else leave


def as_words(a: DeviceArray) -> DeviceArray:
    """See half precision as what it is stored in: MPI has no type for it everywhere."""
    return a.view(np.uint16) if a.dtype == np.float16 else a
