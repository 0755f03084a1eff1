"""The invented devices."""

import threading
from typing import Self

from cupy_backends.cuda.api import runtime
from cupy_backends.cuda.libs import cublas

from cupy import _settings
from cupy.cuda import memory, stream

_stack = threading.local()


class Device:
    """A device; without a number, the current one."""

    def __init__(self, device: int | None = None) -> None:
        self.id = runtime.getDevice() if device is None else int(device)

    def use(self) -> None:
        """Make it the current one."""
        runtime.setDevice(self.id)

    def __enter__(self) -> Self:
        _stack.before = [*getattr(_stack, "before", []), runtime.getDevice()]
        self.use()
        return self

    def __exit__(self, *_: object) -> None:
        runtime.setDevice(_stack.before.pop())

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id

    def synchronize(self) -> None:
        """Wait for all streams."""
        stream.synchronize_all()

    @property
    def compute_capability(self) -> str:
        return _settings.CAPABILITY

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "MultiProcessorCount": _settings.MULTIPROCESSORS,
            "MaxSharedMemoryPerBlock": _settings.SHARED_BYTES,
            "MaxSharedMemoryPerBlockOptin": _settings.SHARED_BYTES_AT_MOST,
            "MaxSharedMemoryPerMultiprocessor": _settings.SHARED_BYTES_AT_MOST + 1024,
            "MaxRegistersPerMultiprocessor": _settings.REGISTERS,
            "MaxRegistersPerBlock": _settings.REGISTERS,
            "MaxThreadsPerBlock": 1024,
            "WarpSize": _settings.WARP,
            "CooperativeLaunch": 1,
            "ComputeCapabilityMajor": int(_settings.CAPABILITY[:-1]),
            "ComputeCapabilityMinor": int(_settings.CAPABILITY[-1]),
        }

    @property
    def mem_info(self) -> tuple[int, int]:
        return memory.free_and_total()

    @property
    def pci_bus_id(self) -> str:
        return runtime.deviceGetPCIBusId(self.id)


def get_cublas_handle() -> int:
    """CuPy's own handle."""
    return cublas.create()


def get_compute_capability() -> str:
    """Of the current device."""
    return _settings.CAPABILITY
