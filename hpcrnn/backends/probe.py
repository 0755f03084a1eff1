"""What a rank can do at the most, asked of the libraries and the memory that a backend works with.

A probe makes two kinds of work and says how long each piece of it took: products of square matrices, and passes over
arrays too large for a cache.  Who measures with it, how long, and on how many ranks at once is not its affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.spec import BackendName, RunSpec

Array = npt.NDArray[Any]
StreamKind = Literal["add", "copy"]

MOVED = {"add": 3, "copy": 2}
"""Arrays that a pass moves: two read and one written, one read and one written. What a cache reads before it may write
is not counted, as in STREAM (McCalpin 1995)."""

_PIECE = 1 << 22
"""Bytes of an array that are touched between two looks at the clock."""


@dataclass(frozen=True)
class Stream:
    """A pass over arrays.

    Attributes
    ----------
    kind : {"add", "copy"}
    footprint_bytes : int
        Of all its arrays; a pass moves each of them once.
    run : callable
        Makes a pass; returns its seconds.
    """

    kind: StreamKind
    footprint_bytes: int
    run: Callable[[], float]


class Probe(Protocol):
    """Work of a backend on a rank's own device."""

    library: str
    """What multiplies."""

    itemsize: int
    """Bytes of a number in the products."""

    cache_bytes: int | None
    """The last cache before the memory; None where it is not known."""

    def free_bytes(self) -> int:
        """Memory that is there for arrays."""

    def product(self, n: int) -> Callable[[], float]:
        """Make two random matrices (n, n); the result multiplies them and returns the seconds."""

    def stream(self, footprint_bytes: int, limit_s: float) -> Stream:
        """Make arrays of about that size together, or of less where to touch them takes longer than the limit."""

    def release(self) -> None:
        """Give back what is kept of arrays that nobody has any more."""


def make_probe(backend: BackendName, spec: RunSpec, local_rank: int, cache_bytes: int | None) -> Probe:
    """Return the probe of a backend; heavy libraries are imported here and not before.

    Parameters
    ----------
    backend : {"numpy", "torch", "cupy"}
    spec : RunSpec
        For its machine section and dtype.
    local_rank : int
        Of ``cupy``: number of this rank among those of its host that see the same GPUs.
    cache_bytes : int or None
        Last-level cache of the host.
    """
    if backend == "cupy":
        from hpcrnn.backends.cupy.probe import CupyProbe

        return CupyProbe(spec.machine, local_rank)
    if backend == "torch":
        from hpcrnn.backends.torch.probe import TorchProbe

        return TorchProbe(spec.model.dtype, spec.machine.threads, cache_bytes)
    from hpcrnn.backends.numpy.probe import NumpyProbe
    from hpcrnn.backends.registry import product_library

    library = product_library(spec.machine.gemm, spec.machine.threads)
    return NumpyProbe(library, spec.model.dtype, spec.machine.threads, cache_bytes)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) * 1e-9


def random_matrices(n: int, dtype: npt.DTypeLike) -> tuple[Array, Array]:
    """Make two matrices (n, n) of numbers from N(0, 1): a processor may take less time, or power, for zeros.

    They repeat themselves, but not from row to row: to draw them all takes longer than to multiply them.
    """
    drawn = np.random.default_rng(0).standard_normal(16 * (n + 1)).astype(dtype)
    return np.resize(drawn, (n, n)), np.resize(drawn[::-1], (n, n))


def touched_arrays(n_arrays: int, footprint_bytes: int, limit_s: float) -> list[Array]:
    """Allocate float64 arrays of equal length and write to all of their pages; shorter ones once time is up.

    A page is there once it has been written to, which on a virtual machine may take longer than all else.
    """
    size = max(1, footprint_bytes // (8 * n_arrays))
    arrays = [np.empty(size) for _ in range(n_arrays)]
    end, done, piece = time.perf_counter() + limit_s, 0, _PIECE // 8
    while done < size and (done == 0 or time.perf_counter() < end):
        for array in arrays:
            array[done : done + piece] = 1.0
        done += piece
    return [array[:done] for array in arrays]


def free_host_bytes() -> int:
    """Memory of this host that nobody uses; 256 MiB where the system does not say."""
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):
        return 1 << 28
