"""The probe of the NumPy backend: its product library, and NumPy's addition on as many threads as that may use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hpcrnn.backends.probe import Stream, free_host_bytes, random_matrices, timed, touched_arrays
from hpcrnn.cells.products import ProductLibrary
from hpcrnn.schedules.placement import split
from hpcrnn.spec import DType


class NumpyProbe:
    """See :class:`~hpcrnn.backends.probe.Probe`.

    Parameters
    ----------
    library : ProductLibrary
    dtype : {"float32", "float64"}
    threads : int
    cache_bytes : int or None
    """

    def __init__(self, library: ProductLibrary, dtype: DType, threads: int, cache_bytes: int | None) -> None:
        self._library, self._dtype, self._threads = library, dtype, threads
        self.library, self.itemsize, self.cache_bytes = library.name, np.dtype(dtype).itemsize, cache_bytes

    def free_bytes(self) -> int:
        return free_host_bytes()

    def release(self) -> None:
        """Nothing is kept."""

    def product(self, n: int) -> Callable[[], float]:
        a, b = random_matrices(n, self._dtype)
        out = np.empty_like(a)
        return lambda: timed(lambda: self._library.matmul(a, b, out))

    def stream(self, footprint_bytes: int, limit_s: float) -> Stream:
        a, b, out = touched_arrays(3, footprint_bytes, limit_s)
        parts = split(out.size, self._threads)

        def add(part: slice) -> None:
            np.add(a[part], b[part], out=out[part])

        def add_all() -> None:
            if self._threads == 1:
                add(parts[0])
                return
            # NumPy adds on one thread, without holding the interpreter's lock.
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(add, parts))

        return Stream("add", 3 * out.nbytes, lambda: timed(add_all))
