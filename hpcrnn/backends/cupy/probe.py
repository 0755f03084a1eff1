"""The probe of a GPU: cuBLAS in the precision of the run, and a copy inside the device's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy as cp
import numpy as np

from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import open_device
from hpcrnn.backends.probe import Stream
from hpcrnn.spec import MachineSpec


class CupyProbe:
    """See :class:`~hpcrnn.backends.probe.Probe`; seconds are the device's own, between two events.

    Parameters
    ----------
    machine : MachineSpec
        For precision and the sharing of GPUs.
    local_rank : int
    """

    def __init__(self, machine: MachineSpec, local_rank: int) -> None:
        self._device = open_device(shared=machine.allow_shared_gpu, local_rank=local_rank)
        with self._device.stream:
            self._arithmetic = Arithmetic(machine.precision)
        self.library, self.itemsize = f"cuBLAS {machine.precision}", self._arithmetic.stored.itemsize
        self.cache_bytes = self._cache_bytes()

    def _cache_bytes(self) -> int | None:
        attributes: dict[str, Any] = cp.cuda.Device().attributes
        return attributes.get("L2CacheSize") or None

    def free_bytes(self) -> int:
        return self._device.memory_bytes()[0]

    def product(self, n: int) -> Callable[[], float]:
        with self._device.stream:
            random = cp.random.standard_normal((2, n, n), dtype=np.float32)
            a, b = (self._arithmetic.round(m, self._arithmetic.empty(n, n)) for m in random)
            out = self._arithmetic.empty(n, n)
        return lambda: self._timed(lambda: self._arithmetic.gemm(a, b, out))

    def stream(self, footprint_bytes: int, limit_s: float) -> Stream:  # noqa: ARG002 - its pages are there at once
        size = max(1, footprint_bytes // 8)
        with self._device.stream:
            a, b = cp.ones(size, np.float32), cp.empty(size, np.float32)
        n_bytes = int(a.nbytes)
        return Stream("copy", 2 * n_bytes, lambda: self._timed(lambda: b.data.copy_from_device_async(a.data, n_bytes)))

    def release(self) -> None:
        cp.get_default_memory_pool().free_all_blocks()  # or it would be in the peak that is recorded of the cases

    def _timed(self, work: Callable[[], object]) -> float:
        with self._device.timed("ceiling") as seconds:
            work()
        return seconds()
