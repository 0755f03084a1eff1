"""The probe of the peer: PyTorch's own product and addition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from hpcrnn.backends.probe import Stream, free_host_bytes, random_matrices, timed, touched_arrays
from hpcrnn.spec import DType


class TorchProbe:
    """See :class:`~hpcrnn.backends.probe.Probe`.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    threads : int
        PyTorch has them while something is timed, and then as many as before.
    cache_bytes : int or None
    """

    def __init__(self, dtype: DType, threads: int, cache_bytes: int | None) -> None:
        self._dtype, self._threads = dtype, threads
        self.library, self.itemsize = f"torch {torch.__version__} mm", np.dtype(dtype).itemsize
        self.cache_bytes = cache_bytes

    def free_bytes(self) -> int:
        return free_host_bytes()

    def release(self) -> None:
        """Nothing is kept."""

    def product(self, n: int) -> Callable[[], float]:
        a, b = map(torch.from_numpy, random_matrices(n, self._dtype))
        out = torch.empty_like(a)
        return lambda: self._timed(lambda: torch.mm(a, b, out=out))

    def stream(self, footprint_bytes: int, limit_s: float) -> Stream:
        a, b, out = map(torch.from_numpy, touched_arrays(3, footprint_bytes, limit_s))
        return Stream("add", 3 * out.nbytes, lambda: self._timed(lambda: torch.add(a, b, out=out)))

    def _timed(self, work: Callable[[], object]) -> float:
        with self._own_threads():
            return timed(work)

    @contextmanager
    def _own_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
