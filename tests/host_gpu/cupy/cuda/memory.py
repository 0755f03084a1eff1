"""Device memory that begins as poison between two guards, a pool that counts it; and page-locked host memory."""

import ctypes
import weakref

import numpy as np
from cupy_backends.cuda.api import driver

from cupy import _settings
from cupy.cuda import stream as streams

_ROUND = 512
_GUARD_BYTES = 512
# NaN as a float of 16 bits of either kind, of 32 and of 64; no index of anything; and not what any rounding makes of a
# NaN, nor the word of set bits that kernels take for "not written".
_POISON = np.uint16(0x7FFD)


class OutOfMemoryError(MemoryError):
    """As CuPy's."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class Block:
    """A piece of device memory.

    Parameters
    ----------
    size : int
        Bytes.
    pool : MemoryPool
        Is told when it is gone.
    """

    def __init__(self, size: int, pool: "MemoryPool") -> None:
        self.size = size
        # As aligned as what cudaMalloc returns.
        raw = np.empty(_round(size) + 2 * _GUARD_BYTES + _ROUND, np.uint8)
        start = -raw.ctypes.data % _ROUND
        self._whole = raw[start : start + _round(size) + 2 * _GUARD_BYTES]
        self._whole.view(np.uint16)[...] = _POISON
        end = _GUARD_BYTES + size + size % 2
        self._guards = self._whole[:_GUARD_BYTES].view(np.uint16), self._whole[end:].view(np.uint16)
        self.bytes = self._whole[_GUARD_BYTES : _GUARD_BYTES + size]
        self.ptr = self.bytes.ctypes.data if size else self._whole.ctypes.data + _GUARD_BYTES
        weakref.finalize(self, pool.give_back, size).atexit = False
        _blocks[self.ptr] = self

    def check_guards(self, who: str) -> None:
        """Raise where somebody wrote before or behind it."""
        if not all(bool((guard == _POISON).all()) for guard in self._guards):
            raise driver.CUDADriverError(f"CUDA_ERROR_ILLEGAL_ADDRESS: {who} wrote beside an array's memory")

    def holds(self, ptr: int, size: int) -> bool:
        """Whether an address range lies in it."""
        return self.ptr <= ptr and ptr + size <= self.ptr + self.size


_blocks: "weakref.WeakValueDictionary[int, Block]" = weakref.WeakValueDictionary()


def _round(size: int) -> int:
    return -(-size // _ROUND) * _ROUND


def block_of(ptr: int, size: int) -> Block | None:
    """The piece of memory that an address range lies in."""
    return next((block for block in list(_blocks.values()) if block.holds(ptr, size)), None)


class MemoryPool:
    """Counts what is allocated; what is given back stays the pool's until ``free_all_blocks``."""

    def __init__(self) -> None:
        self._used = self._held = 0

    def malloc(self, size: int) -> "MemoryPointer":
        """Allocate."""
        streams.refuse_capture("allocating memory")
        rounded = _round(size)
        if self._used + rounded > self._held:
            if self._used + rounded > _settings.MEMORY_BYTES:
                raise OutOfMemoryError(size, self._held)
            self._held = self._used + rounded
        self._used += rounded
        return MemoryPointer(Block(size, self), 0)

    def give_back(self, size: int) -> None:
        """Take back a block of a size; for ``Block``."""
        self._used -= _round(size)

    def free_all_blocks(self, stream: object = None) -> None:
        """Give back to the device what is not used."""
        self._held = self._used

    def used_bytes(self) -> int:
        return self._used

    def total_bytes(self) -> int:
        return self._held

    def free_bytes(self) -> int:
        return self._held - self._used

    def n_free_blocks(self) -> int:
        return int(self._held > self._used)


class MemoryPointer:
    """An address in a block."""

    def __init__(self, mem: Block, offset: int) -> None:
        self.mem, self._offset = mem, offset
        self.ptr = mem.ptr + offset

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> "MemoryPointer":
        return MemoryPointer(self.mem, self._offset + offset)

    def bytes(self, size: int) -> np.ndarray:
        """The next bytes, as host memory; not CuPy's."""
        if not 0 <= self._offset <= self._offset + size <= self.mem.size:
            raise driver.CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {size} bytes from here leave the memory")
        return self.mem.bytes[self._offset : self._offset + size]

    def memset_async(self, value: int, size: int, stream: streams.Stream | None = None) -> None:
        """Set bytes, in the stream's order."""
        target = self.bytes(size)
        streams.submit(lambda: target.fill(value & 0xFF), stream)

    def memset(self, value: int, size: int) -> None:
        """Set bytes, on the default stream."""
        self.memset_async(value, size, streams.Stream.null)

    def copy_from_device_async(self, src: "MemoryPointer", size: int, stream: streams.Stream | None = None) -> None:
        """Copy from device memory, in the stream's order."""
        target, source = self.bytes(size), src.bytes(size)
        streams.submit(lambda: np.copyto(target, source), stream)

    def copy_from_device(self, src: "MemoryPointer", size: int) -> None:
        """Copy from device memory, on the default stream."""
        self.copy_from_device_async(src, size, streams.Stream.null)

    def copy_from_host_async(self, mem: int, size: int, stream: streams.Stream | None = None) -> None:
        """Copy from host memory: read when its turn comes where it is page-locked, else now."""
        target, source = self.bytes(size), _host_bytes(mem, size)
        if not is_pinned(mem):
            source = source.copy()
        streams.submit(lambda: np.copyto(target, source), stream)

    def copy_to_host_async(self, mem: int, size: int, stream: streams.Stream | None = None) -> None:
        """Copy to host memory, in the stream's order."""
        source, target = self.bytes(size), _host_bytes(mem, size)
        streams.submit(lambda: np.copyto(target, source), stream)


def _host_bytes(address: int, size: int) -> np.ndarray:
    """Bytes at an address; the caller sees to it that they stay."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address)))


class PinnedMemoryPointer(bytearray):
    """Page-locked host memory, a buffer for ``numpy.frombuffer``; poisoned."""

    def __init__(self, size: int) -> None:
        padded = size + size % 2
        super().__init__(_POISON.tobytes() * (padded // 2))
        self._size = size
        self.ptr = ctypes.addressof(ctypes.c_char.from_buffer(self)) if padded else 0
        _pinned[self.ptr] = padded

    def size(self) -> int:
        """Bytes."""
        return self._size

    def __del__(self) -> None:
        _pinned.pop(self.ptr, None)


_pinned: dict[int, int] = {}


def is_pinned(address: int) -> bool:
    """Whether host memory is page-locked."""
    return any(start <= address < start + size for start, size in _pinned.items())


class PinnedMemoryPool:
    """Gives page-locked memory."""

    def malloc(self, size: int) -> PinnedMemoryPointer:
        return PinnedMemoryPointer(size)

    def free_all_blocks(self) -> None:
        """Nothing is kept."""

    def n_free_blocks(self) -> int:
        return 0


_pool, _pinned_pool = MemoryPool(), PinnedMemoryPool()


def get_default_memory_pool() -> MemoryPool:
    """The pool of all arrays."""
    return _pool


def get_default_pinned_memory_pool() -> PinnedMemoryPool:
    """Where page-locked memory comes from."""
    return _pinned_pool


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    """Allocate page-locked memory."""
    return PinnedMemoryPointer(size)


def free_and_total() -> tuple[int, int]:
    """Bytes of the device that nobody holds, and all."""
    return _settings.MEMORY_BYTES - _pool.total_bytes(), _settings.MEMORY_BYTES
