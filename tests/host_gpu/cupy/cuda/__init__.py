"""Devices, streams, memory."""

from cupy_backends.cuda.api import driver, runtime
from cupy_backends.cuda.libs import nvrtc

from cupy.cuda import compiler, device, memory, nvtx, stream
from cupy.cuda.device import Device
from cupy.cuda.graph import Graph
from cupy.cuda.memory import (
    MemoryPointer,
    MemoryPool,
    PinnedMemoryPointer,
    PinnedMemoryPool,
    alloc_pinned_memory,
)
from cupy.cuda.stream import Event, Stream, get_current_stream, get_elapsed_time

__all__ = [
    "Device",
    "Event",
    "Graph",
    "MemoryPointer",
    "MemoryPool",
    "PinnedMemoryPointer",
    "PinnedMemoryPool",
    "Stream",
    "alloc_pinned_memory",
    "compiler",
    "device",
    "driver",
    "get_current_stream",
    "get_elapsed_time",
    "is_available",
    "memory",
    "nvrtc",
    "nvtx",
    "runtime",
    "stream",
]


def is_available() -> bool:
    """Whether there is a device."""
    from cupy import _settings

    return _settings.DEVICE_COUNT > 0
