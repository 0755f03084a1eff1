"""One GPU: what it can hold, its stream, and kernels compiled for it; imported when a GPU is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from uuid import UUID

import cupy as cp
import numpy as np
from cupy_backends.cuda.api import driver

from hpcrnn.errors import LaunchError
from hpcrnn.kernels.plan import DeviceLimits
from hpcrnn.kernels.source import read_source
from hpcrnn.kernels.variants import Tile, Variant

DeviceArray = Any  # cupy carries no types we check
Kernel = Any

_LOCAL_RANK = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
_OPTIONS = ("-std=c++17", "-default-device")
_THREADS = 256
# Builds of CuPy without the library have a module that only says so.
_NVTX = getattr(cp.cuda.nvtx, "available", True)


class Device:
    """The GPU of this rank.

    Parameters
    ----------
    index : int
        Of the GPU on this host.

    Attributes
    ----------
    name : str
    limits : DeviceLimits
    stream : cupy.cuda.Stream
        All of the engine's work is on it; a graph cannot be captured on the default stream.
    copies : cupy.cuda.Stream
        What goes to MPI and comes from it.
    """

    def __init__(self, index: int) -> None:
        self._device = cp.cuda.Device(index)
        self._device.use()
        has = self._device.attributes
        capability = self._device.compute_capability  # "90": the last digit is the minor one
        self.limits = DeviceLimits(
            n_multiprocessors=has["MultiProcessorCount"],
            shared_bytes=has["MaxSharedMemoryPerBlockOptin"],
            registers=has["MaxRegistersPerMultiprocessor"],
            capability=(int(capability[:-1]), int(capability[-1])),
        )
        self.name = cp.cuda.runtime.getDeviceProperties(index)["name"].decode()
        self.stream, self.copies = self.make_stream(), self.make_stream()

    @contextmanager
    def timed(self, what: str) -> Iterator[Callable[[], float]]:
        """Work on the stream, named in a profiler's view and done when it is left.

        Yields
        ------
        callable
            Seconds that the device took, to be asked for afterwards.
        """
        begin, end = cp.cuda.Event(), cp.cuda.Event()
        if _NVTX:
            cp.cuda.nvtx.RangePush(what)
        try:
            with self.stream:
                begin.record(self.stream)
                yield lambda: float(cp.cuda.get_elapsed_time(begin, end)) * 1e-3
                end.record(self.stream)
                self.synchronize()
        finally:
            if _NVTX:
                cp.cuda.nvtx.RangePop()

    @staticmethod
    def make_stream() -> Any:
        """Return a new stream of work that waits for no other."""
        return cp.cuda.Stream(non_blocking=True)

    def synchronize(self) -> None:
        """Wait until all work given to the GPU is done."""
        self.stream.synchronize()

    def memory_bytes(self) -> tuple[int, int]:
        """Free and total memory; what this process's pool keeps for later is free."""
        free, total = cp.cuda.runtime.memGetInfo()
        return int(free + cp.get_default_memory_pool().free_bytes()), int(total)


def open_device(*, shared: bool, local_rank: int | None = None) -> Device:
    """Take the GPU of this rank's number on its host: see :func:`index_of_gpu`."""
    return Device(index_of_gpu(shared=shared, local_rank=local_rank))


def index_of_gpu(*, shared: bool, local_rank: int | None = None) -> int:
    """Return which GPU of its host a rank takes, without touching it.

    Parameters
    ----------
    shared : bool
        Whether ranks may share one.
    local_rank : int, optional
        By default what the launcher tells.

    Raises
    ------
    LaunchError
        There is no driver or no GPU, or fewer GPUs than ranks on this host.
    """
    try:
        count = int(cp.cuda.runtime.getDeviceCount())
    except cp.cuda.runtime.CUDARuntimeError as error:
        raise LaunchError(f"machine.backend = cupy: no usable GPU: {error}") from None
    local = launched_rank() if local_rank is None else local_rank
    if local >= count and not shared:
        raise LaunchError(
            f"machine.backend = cupy: rank {local} of this host has no GPU of its own, {count} there; "
            "fewer ranks, or machine.allow_shared_gpu = true"
        )
    return local % count


def uuid_of_gpu(index: int) -> str:
    """Return ``GPU-...`` as ``nvidia-smi -L`` writes it, or else where it is plugged in: the same in all processes."""
    instances = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.startswith("MIG-")]
    if index < len(instances):
        return instances[index]  # a part of a GPU; older drivers give all parts the name of the whole
    found = cp.cuda.runtime.getDeviceProperties(index).get("uuid", b"")
    if len(found) == 16:  # CuPy takes it for a text, which ends at the first zero
        return f"GPU-{UUID(bytes=bytes(found))}"
    return f"the GPU at {cp.cuda.runtime.deviceGetPCIBusId(index)}"


def launched_rank() -> int:
    """Return this process's number on its host, as the launcher tells it; 0 where none does."""
    return next((int(os.environ[name]) for name in _LOCAL_RANK if os.environ.get(name, "").isdigit()), 0)


@cache
def load_kernel(file: str, name: str, macros: tuple[tuple[str, int], ...], *, cooperative: bool = False) -> Kernel:
    """Compile a kernel, or take it from CuPy's cache on disk.

    Parameters
    ----------
    file : str
        In ``hpcrnn/kernels``.
    name : str
    macros : tuple of (name, value)
    cooperative : bool
        All of its blocks must run at once.
    """
    options = (*_OPTIONS, *(f"-D{key}={value}" for key, value in macros))
    module = cp.RawModule(code=read_source(file), options=options, enable_cooperative_groups=cooperative)
    return module.get_function(name)


def sorted_macros(macros: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Macros as a key of the kernel cache."""
    return tuple(sorted(macros.items()))


class PersistentKernel:
    """A persistent kernel with its tile, ready to be launched.

    Parameters
    ----------
    variant : Variant
    tile : Tile
    B, H : int
    file : str
        Kernel family.

    Attributes
    ----------
    registers, spilled_bytes, shared_bytes, blocks_per_multiprocessor : int
        What the compiler and the driver say of it.
    """

    def __init__(self, variant: Variant, tile: Tile, B: int, H: int, file: str = "persistent.cu") -> None:
        self.variant, self.tile = variant, tile
        macros = sorted_macros(tile.macros(variant))
        self._kernel = load_kernel(file, variant.direction, macros, cooperative=True)
        self.shared_bytes = tile.shared_bytes(variant)
        self._kernel.max_dynamic_shared_size_bytes = self.shared_bytes
        self.registers = int(self._kernel.num_regs)
        self.spilled_bytes = int(self._kernel.local_size_bytes)
        self.blocks_per_multiprocessor = int(
            driver.occupancyMaxActiveBlocksPerMultiprocessor(
                getattr(self._kernel.kernel, "ptr", self._kernel.kernel), tile.threads, self.shared_bytes
            )
        )
        self.grid = tile.grid(B, H)
        self._counters = cp.zeros(self.grid[1] * tile.subtiles, cp.uint32)

    def fits(self, limits: DeviceLimits) -> bool:
        """Whether all blocks can be there at once, and nothing of a thread lies in memory."""
        most = self.blocks_per_multiprocessor * limits.n_multiprocessors
        return self.grid[0] * self.grid[1] <= most and self.spilled_bytes == 0

    def launch(
        self,
        arrays: tuple[DeviceArray, ...],
        written: DeviceArray | None,
        scalars: tuple[int | float, ...],
        grid: tuple[int, int] | None = None,
    ) -> None:
        """Launch over a chunk.

        Parameters
        ----------
        arrays : tuple of array
            The kernel's pointers, without the counters.
        written : array or None
            What the blocks hand to one another, where its words say that they have been written.
        scalars : tuple of int or float
        grid : tuple of int, optional
            Fewer blocks than there could be.
        """
        # The blocks wait for words to change from this: see EXCHANGE in persistent.cuh.
        if written is not None and self.tile.exchange == "data":
            written.data.memset_async(0xFF, written.nbytes)
        else:
            self._counters.data.memset_async(0, self._counters.nbytes)
        plain = (np.float32(s) if isinstance(s, float) else np.int32(s) for s in scalars)
        arguments = (*arrays, self._counters, *plain)
        self._kernel((*(grid or self.grid), 1), (self.tile.threads, 1, 1), arguments, shared_mem=self.shared_bytes)

    def describe(self) -> str:
        """Say what runs, on one line, for the record."""
        t = self.tile
        return (
            f"persistent {self.variant.direction} {self.grid[0]}x{self.grid[1]} blocks of {t.warps} warps, {t.units} "
            f"units, {t.rows}x{t.subtiles} rows, {self.registers} registers, {self.shared_bytes} B shared, "
            f"{self.blocks_per_multiprocessor} blocks/SM"
        )


def launch_flat(kernel: Kernel, n: int, arguments: tuple[Any, ...]) -> None:
    """Launch a kernel of one thread an element."""
    blocks = max(1, (n + _THREADS - 1) // _THREADS)
    kernel((blocks, 1, 1), (_THREADS, 1, 1), arguments)
