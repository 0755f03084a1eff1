"""cuBLAS: a tiny library under its name, whose matrix product is NumPy's.

The backend loads cuBLAS by name. A library of that name which is loaded already is what it finds: this one, compiled
here, hands each call over to Python.
"""

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from cupy import _settings
from cupy.cuda import memory, stream
from host_cuda.build import compile_source, load_library

_NAME = f"libcublas.so.{_settings.CUDA_VERSION // 1000}"
_SOURCE = """
struct Handle { void* stream; void* workspace; unsigned long workspace_bytes; int used; };
struct Gemm {
    Handle* handle;
    int transpose_a, transpose_b, m, n, k;
    const void *alpha, *a;
    int type_a, lda;
    const void* b;
    int type_b, ldb;
    const void *beta, *c;
    int type_c, ldc, compute, algorithm;
};
static int (*multiply)(const Gemm*);
extern "C" void host_connect(int (*function)(const Gemm*)) { multiply = function; }
extern "C" int cublasCreate_v2(Handle** handle) { *handle = new Handle{}; return 0; }
extern "C" int cublasDestroy_v2(Handle* handle) { delete handle; return 0; }
extern "C" int cublasSetStream_v2(Handle* handle, void* stream) {
    *handle = {stream, nullptr, 0, handle->used};
    return 0;
}
extern "C" int cublasSetWorkspace_v2(Handle* handle, void* workspace, unsigned long bytes) {
    handle->workspace = workspace;
    handle->workspace_bytes = bytes;
    return 0;
}
extern "C" int cublasGemmEx(Handle* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
                            const void* a, int type_a, int lda, const void* b, int type_b, int ldb, const void* beta,
                            void* c, int type_c, int ldc, int compute, int algorithm) {
    const Gemm gemm{handle, transpose_a, transpose_b, m, n, k, alpha, a, type_a, lda, b, type_b, ldb, beta, c, type_c,
                    ldc, compute, algorithm};
    return multiply(&gemm);
}
"""

# Names of numbers in library_types.h and cublas_api.h.
_TYPES = {0: np.dtype(np.float32), 2: np.dtype(np.float16), 14: np.dtype(np.uint16)}
_BFLOAT16, _TF32 = 14, 77
_COMPUTE = {68, _TF32}
_SUCCESS, _ALLOC_FAILED, _INVALID_VALUE, _EXECUTION_FAILED, _NOT_SUPPORTED = 0, 3, 7, 13, 15


class _Handle(ctypes.Structure):
    _fields_ = (
        ("stream", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_ulong),
        ("used", ctypes.c_int),
    )


class _Gemm(ctypes.Structure):
    _fields_ = (
        ("handle", ctypes.POINTER(_Handle)),
        *((name, ctypes.c_int) for name in ("transpose_a", "transpose_b", "m", "n", "k")),
        ("alpha", ctypes.POINTER(ctypes.c_float)),
        ("a", ctypes.c_void_p),
        ("type_a", ctypes.c_int),
        ("lda", ctypes.c_int),
        ("b", ctypes.c_void_p),
        ("type_b", ctypes.c_int),
        ("ldb", ctypes.c_int),
        ("beta", ctypes.POINTER(ctypes.c_float)),
        ("c", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("type_c", "ldc", "compute", "algorithm")),
    )


_Multiply = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Gemm))


class _RefusedError(Exception):
    """A call that cuBLAS answers with a status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@cache
def _library() -> tuple[ctypes.CDLL, Any]:
    """The library, loaded, and what it calls; both must stay."""
    path = compile_source(_SOURCE, (f"-Wl,-soname,{_NAME}",), _settings.cache_folder())
    library, function = load_library(path), _Multiply(_multiply)
    library.host_connect(function)
    return library, function


@cache
def create() -> int:
    """CuPy's own handle."""
    handle = ctypes.c_void_p()
    _library()[0].cublasCreate_v2(ctypes.byref(handle))
    return int(handle.value or 0)


def getVersion(handle: int) -> int:  # noqa: N802
    """The library's version."""
    return _settings.CUDA_VERSION * 10


def _multiply(call: Any) -> int:
    """Check a call and give it to the handle's stream; whatever goes wrong must become a status."""
    try:
        gemm = call.contents
        handle = gemm.handle.contents
        target = stream.stream_of(handle.stream or 0)
        _check_capture(handle, target)
        stream.submit(_product(gemm), target)
        handle.used = 1
    except _RefusedError as error:
        sys.stderr.write(f"cublasGemmEx: {error}\n")
        return error.status
    except Exception as error:  # noqa: BLE001 - there is C between this and the caller
        sys.stderr.write(f"cublasGemmEx: {error!r}\n")
        return _EXECUTION_FAILED
    return _SUCCESS


def _check_capture(handle: _Handle, target: stream.Stream) -> None:
    """A capture allows neither loading kernels, at a handle's first product, nor allocating a workspace."""
    if target.is_capturing() and not handle.used:
        raise _RefusedError(_EXECUTION_FAILED, "the first product of a handle while the stream captures")
    if target.is_capturing() and not handle.workspace:
        raise _RefusedError(_ALLOC_FAILED, "a product without a workspace of one's own while the stream captures")


@dataclass(frozen=True)
class _Matrix:
    """An operand as it lies in memory, columns first; ``values`` seen with its rows and columns."""

    values: np.ndarray
    is_bfloat16: bool
    block: memory.Block

    def read(self, *, tf32: bool) -> np.ndarray:
        if self.is_bfloat16:
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        values = self.values.astype(np.float32)
        return _rounded(values, 13) if tf32 else values

    def write(self, values: np.ndarray) -> None:
        if self.is_bfloat16:
            self.values[...] = np.where(
                np.isnan(values), np.uint16(0x7FFF), _rounded(values, 16).view(np.uint32) >> np.uint32(16)
            )
        else:
            self.values[...] = values


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Float32 without its last bits: to nearest, even where 16 go (bfloat16), away from zero where 13 do (TF32)."""
    raw = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32(1 << (bits - 1))
    if bits == 16:
        half = half - np.uint32(1) + (raw >> np.uint32(16) & np.uint32(1))
    return ((raw + half) & ~np.uint32((1 << bits) - 1)).view(np.float32)


def _matrix(address: int, kind: int, rows: int, columns: int, leading: int, name: str) -> _Matrix:
    if kind not in _TYPES:
        raise _RefusedError(_NOT_SUPPORTED, f"{name}: type {kind}")
    if leading < max(1, rows):
        raise _RefusedError(_INVALID_VALUE, f"{name}: {rows} rows, leading dimension {leading}")
    dtype = _TYPES[kind]
    size = ((columns - 1) * leading + rows) * dtype.itemsize
    block = memory.block_of(address or 0, size)
    if block is None:
        raise _RefusedError(_EXECUTION_FAILED, f"{name}: {rows} x {columns} are not in one piece of device memory")
    strides = dtype.itemsize, leading * dtype.itemsize
    values = np.ndarray((rows, columns), dtype, block.bytes.data, address - block.ptr, strides)
    return _Matrix(values, kind == _BFLOAT16, block)


def _product(gemm: _Gemm) -> Callable[[], None]:
    """The work of a call, all of its arguments read."""
    m, n, k = gemm.m, gemm.n, gemm.k
    if min(m, n, k) < 1:
        raise _RefusedError(_INVALID_VALUE, f"m, n, k = {m}, {n}, {k}")
    if gemm.compute not in _COMPUTE or gemm.type_a != gemm.type_b or gemm.type_c not in (0, gemm.type_a):
        types = (gemm.type_a, gemm.type_b, gemm.type_c)
        raise _RefusedError(_NOT_SUPPORTED, f"types {types}, compute type {gemm.compute}")
    a = _matrix(gemm.a, gemm.type_a, *((k, m) if gemm.transpose_a else (m, k)), gemm.lda, "a")
    b = _matrix(gemm.b, gemm.type_b, *((n, k) if gemm.transpose_b else (k, n)), gemm.ldb, "b")
    c = _matrix(gemm.c, gemm.type_c, m, n, gemm.ldc, "c")
    alpha, beta = np.float32(gemm.alpha.contents.value), np.float32(gemm.beta.contents.value)
    transposed, tf32 = (gemm.transpose_a, gemm.transpose_b), gemm.compute == _TF32

    def multiply() -> None:
        left, right = (
            x.read(tf32=tf32).T if across else x.read(tf32=tf32) for x, across in zip((a, b), transposed, strict=True)
        )
        result = alpha * (left @ right)
        # With beta = 0 what was there is not read: it may be anything.
        c.write(result if beta == 0 else result + beta * c.read(tf32=False))

    return multiply
