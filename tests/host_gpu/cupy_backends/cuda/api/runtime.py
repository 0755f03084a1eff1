"""Functions of the CUDA runtime."""

import os
import threading
from typing import Any

from cupy import _settings
from host_cuda.build import NO_COMPILER

streamCaptureModeGlobal, streamCaptureModeThreadLocal, streamCaptureModeRelaxed = range(3)  # noqa: N816
memcpyHostToHost, memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice, memcpyDefault = range(5)  # noqa: N816

_current = threading.local()


class CUDARuntimeError(RuntimeError):
    """What the runtime says."""


def getDeviceCount() -> int:  # noqa: N802
    """How many devices there are; none is an error, and so is a host that cannot compile kernels."""
    if NO_COMPILER:
        raise CUDARuntimeError(f"cudaErrorSystemDriverMismatch: {NO_COMPILER}")
    if _settings.DEVICE_COUNT < 1:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    return _settings.DEVICE_COUNT


def getDevice() -> int:  # noqa: N802
    """The current device's number."""
    return getattr(_current, "device", 0)


def setDevice(device: int) -> None:  # noqa: N802
    """Change the current device."""
    if not 0 <= device < getDeviceCount():
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    _current.device = device


def getDeviceProperties(device: int) -> dict[str, Any]:  # noqa: N802
    """What a device is. Its UUID is of the device that CUDA_VISIBLE_DEVICES puts there, as of a real one."""
    visible = [int(name) for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.isdigit()]
    plugged = visible[device] if device < len(visible) else device
    return {
        "uuid": bytes([*range(15), plugged + 1]),
        "name": _settings.NAME.encode(),
        "totalGlobalMem": _settings.MEMORY_BYTES,
        "multiProcessorCount": _settings.MULTIPROCESSORS,
        "major": int(_settings.CAPABILITY[:-1]),
        "minor": int(_settings.CAPABILITY[-1]),
        "regsPerMultiprocessor": _settings.REGISTERS,
        "sharedMemPerBlock": _settings.SHARED_BYTES,
        "sharedMemPerBlockOptin": _settings.SHARED_BYTES_AT_MOST,
        "warpSize": _settings.WARP,
        "cooperativeLaunch": 1,
        "pciBusID": device + 1,
        "pciDeviceID": 0,
        "pciDomainID": 0,
    }


def deviceGetPCIBusId(device: int) -> str:  # noqa: N802
    """Where a device is plugged in."""
    return f"0000:{device + 1:02X}:00.0"


def deviceCanAccessPeer(device: int, peerDevice: int) -> int:  # noqa: N802
    """Devices see one another's memory."""
    return int(device != peerDevice)


def memGetInfo() -> tuple[int, int]:  # noqa: N802
    """Free and total bytes."""
    from cupy.cuda import memory

    return memory.free_and_total()


def deviceSynchronize() -> None:  # noqa: N802
    """Wait for all streams."""
    from cupy.cuda import stream

    stream.synchronize_all()


def driverGetVersion() -> int:  # noqa: N802
    """What the driver supports."""
    return _settings.CUDA_VERSION


def runtimeGetVersion() -> int:  # noqa: N802
    """Of the runtime."""
    return _settings.CUDA_VERSION


def profilerStart() -> None:  # noqa: N802
    """There is no profiler."""


def profilerStop() -> None:  # noqa: N802
    """There is no profiler."""
