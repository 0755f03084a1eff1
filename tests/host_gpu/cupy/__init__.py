"""A host stand-in for CuPy: what hpcrnn's GPU backend uses of it, executed on the CPU, for small shapes.

Put the folder above, ``tests/host_gpu``, in front of PYTHONPATH. In it:

``cupy``, ``cupy_backends``
    What the backend imports, under its own names.
``host_cuda``
    From CUDA C to a library of the host, beside ``tests/kernels/host_ptx.h``; the tests of the kernels use it too.
``tests``
    Of the backend on it, and of itself. What runs on a real GPU as well is there or in ``tests/gpu``.

Kernels are compiled as C++ and run a fiber for each CUDA thread
(``host_cuda``), cuBLAS is NumPy; the rest is NumPy behind CuPy's rules. It is stricter than CuPy where that shows
mistakes: fresh memory is poisoned, and guarded on both sides; arguments of kernels must be of the very type.

Environment
-----------
HPCRNN_HOST_GPU_COUNT, _MEMORY, _CAPABILITY, _MULTIPROCESSORS
    How many devices there are (1), bytes of memory (2 GiB), compute capability (90), multiprocessors (8).
HPCRNN_HOST_GPU_CACHE
    Where compiled kernels are kept; else a folder of this user among the temporary ones.
HPCRNN_HOST_GPU_LATE
    1: work given to a stream is done only when somebody waits for it, which shows where nobody does.
"""

# ruff: noqa: F401 - what is imported here is what the package has
from numpy import (
    bool_,
    complex64,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    intp,
    newaxis,
    uint8,
    uint16,
    uint32,
    uint64,
)

from cupy import cuda, random
from cupy._array import ndarray
from cupy._functions import FUNCTIONS
from cupy._raw import RawKernel, RawModule
from cupy.cuda.memory import get_default_memory_pool, get_default_pinned_memory_pool

__version__ = "0.host"
IS_STAND_IN = True

inf, nan, pi = float("inf"), float("nan"), 3.141592653589793
globals().update(FUNCTIONS)
