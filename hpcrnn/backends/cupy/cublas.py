"""cuBLAS's matrix product through ctypes: CuPy's own call refuses to be captured in a graph."""

from __future__ import annotations

import ctypes
from typing import Any

import cupy as cp
import numpy as np
from cupy_backends.cuda.libs import cublas

from hpcrnn.errors import LaunchError

Operand = tuple[int, int, int]
"""Address, cudaDataType, leading dimension."""

_DEFAULT_ALGORITHM = -1
_WORKSPACE_BYTES = 32 << 20  # what NVIDIA advises for Hopper; ours, as a capture must not allocate


class Cublas:
    """A handle of the library that CuPy has loaded, with its own workspace; used on CuPy's current stream."""

    def __init__(self) -> None:
        version = cublas.getVersion(cp.cuda.device.get_cublas_handle())
        try:
            self._library: Any = ctypes.CDLL(f"libcublas.so.{version // 10000}")
        except OSError as error:
            raise LaunchError(f"machine.backend = cupy: cuBLAS cannot be loaded: {error}") from None
        self._handle = ctypes.c_void_p()
        self._check(self._library.cublasCreate_v2(ctypes.byref(self._handle)))
        self._workspace = cp.empty(_WORKSPACE_BYTES, np.uint8)
        self._stream = -1

    def gemm(
        self,
        transposed: tuple[bool, bool],
        sizes: tuple[int, int, int],
        factors: tuple[float, float],
        a: Operand,
        b: Operand,
        out: Operand,
        compute: int,
    ) -> None:
        """Compute ``out = alpha op(a) op(b) + beta out``, columns first.

        Parameters
        ----------
        transposed : tuple of bool
            Of a and b.
        sizes : tuple of int
            m, n and k.
        factors : tuple of float
            alpha and beta.
        a, b, out : Operand
        compute : int
            A cublasComputeType_t.
        """
        self._use_current_stream()
        alpha, beta = (ctypes.byref(ctypes.c_float(factor)) for factor in factors)
        m, n, k = sizes
        self._check(
            self._library.cublasGemmEx(
                self._handle,
                int(transposed[0]),
                int(transposed[1]),
                m,
                n,
                k,
                alpha,
                *_c_operand(a),
                *_c_operand(b),
                beta,
                *_c_operand(out),
                compute,
                _DEFAULT_ALGORITHM,
            )
        )

    def _use_current_stream(self) -> None:
        stream = cp.cuda.get_current_stream().ptr
        if stream != self._stream:
            self._check(self._library.cublasSetStream_v2(self._handle, ctypes.c_void_p(stream)))
            # Setting a stream takes the workspace away.
            self._check(
                self._library.cublasSetWorkspace_v2(
                    self._handle, ctypes.c_void_p(self._workspace.data.ptr), ctypes.c_size_t(_WORKSPACE_BYTES)
                )
            )
            self._stream = stream

    @staticmethod
    def _check(status: int) -> None:
        if status != 0:
            msg = f"cuBLAS returned status {status}"
            raise RuntimeError(msg)


def _c_operand(operand: Operand) -> tuple[ctypes.c_void_p, int, int]:
    address, kind, leading = operand
    return ctypes.c_void_p(address), kind, leading
