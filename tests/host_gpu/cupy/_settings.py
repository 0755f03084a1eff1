"""What the environment says of the invented device."""

import os
import tempfile
from pathlib import Path


def _number(name: str, default: int) -> int:
    return int(os.environ.get(f"HPCRNN_HOST_GPU_{name}", default))


DEVICE_COUNT = _number("COUNT", 1)
MEMORY_BYTES = _number("MEMORY", 2 << 30)
CAPABILITY = str(_number("CAPABILITY", 90))  # the last digit is the minor one
MULTIPROCESSORS = _number("MULTIPROCESSORS", 8)
LATE = bool(_number("LATE", 0))

NAME = "host (no GPU)"
CUDA_VERSION = 13000
WARP = 32
SHARED_BYTES = 48 << 10
"""Of a block, unless its kernel was allowed more."""
SHARED_BYTES_AT_MOST = 227 << 10
REGISTERS = 65536
"""Of a multiprocessor."""
REGISTERS_OF_A_THREAD = 128
"""What every kernel is said to take."""


def cache_folder() -> Path:
    """The folder of compiled kernels; made here."""
    default = Path(tempfile.gettempdir()) / f"hpcrnn-host-gpu-{os.getuid()}"
    folder = Path(os.environ.get("HPCRNN_HOST_GPU_CACHE") or default)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
