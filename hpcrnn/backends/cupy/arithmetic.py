"""Numbers on the GPU: how a precision stores them, rounding, and matrix products by cuBLAS.

CuPy needs no bfloat16 for this: such numbers are kept as their bits, in uint16.
"""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np

from hpcrnn.backends.arena import Memory
from hpcrnn.backends.cupy.cublas import Cublas, Operand
from hpcrnn.backends.cupy.device import DeviceArray, launch_flat, load_kernel
from hpcrnn.kernels.variants import PRECISIONS, Precision

_STORED = {"float32": np.float32, "tf32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
# Names of numbers in the CUDA headers: library_types.h (cudaDataType) and cublas_api.h (cublasComputeType_t).
_CUDA_TYPE = {np.dtype(np.float32): 0, np.dtype(np.float16): 2, np.dtype(np.uint16): 14}
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32 = 68, 77


class Arithmetic:
    """One precision.

    Parameters
    ----------
    precision : {"float32", "tf32", "float16", "bfloat16"}

    Attributes
    ----------
    memory : Memory
        The device's, for stored numbers.
    stored : dtype
        Of weights, activations and gate gradients; sums, c and parameters are float32.
    """

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self.stored: np.dtype[Any] = np.dtype(_STORED[precision])
        self.memory = Memory(self.stored, cp.zeros)
        self._compute = _COMPUTE_32F_FAST_TF32 if precision == "tf32" else _COMPUTE_32F
        self._cublas = Cublas()
        self._ones: dict[int, DeviceArray] = {}
        self._macros = (("PRECISION", PRECISIONS.index(precision)),)

    def kernel(self, name: str) -> Any:
        """Return a kernel of ``layers.cu``."""
        return load_kernel("layers.cu", name, self._macros)

    def empty(self, *shape: int) -> DeviceArray:
        """Allocate stored numbers, not set."""
        return cp.empty(shape, self.stored)

    def zeros(self, *shape: int) -> DeviceArray:
        """Allocate stored zeros."""
        return cp.zeros(shape, self.stored)

    def round(self, values: DeviceArray, out: DeviceArray, scale: float = 1.0) -> DeviceArray:
        """Store ``scale * values``; both contiguous, ``values`` float32."""
        launch_flat(self.kernel("round_all"), out.size, (values, out, np.float32(scale), np.int64(out.size)))
        return out

    def widen(self, stored: DeviceArray) -> DeviceArray:
        """Return stored numbers as a new float32 array."""
        stored = cp.ascontiguousarray(stored)
        out = cp.empty(stored.shape, np.float32)
        launch_flat(self.kernel("widen_all"), out.size, (stored, out, np.int64(out.size)))
        return out

    def ones(self, n: int) -> DeviceArray:
        """Return a row (1, n) of stored ones, made once."""
        if n not in self._ones:
            self._ones[n] = self.round(cp.ones((1, n), np.float32), self.empty(1, n))
        return self._ones[n]

    def gemm(
        self,
        a: DeviceArray,
        b: DeviceArray,
        out: DeviceArray,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        """Compute ``out = alpha * op(a) @ op(b) + beta * out``, summed in float32.

        Parameters
        ----------
        a, b, out : array (rows, columns)
            Rows may lie apart, columns may not. ``out`` may be float32 where a and b are stored in 16 bits.
        transpose_a, transpose_b : bool
        alpha, beta : float
        """
        m, n = out.shape
        k = a.shape[0] if transpose_a else a.shape[1]
        if not out.size:
            return
        # cuBLAS counts columns first: it sees the transposes, and out^T = op(b)^T op(a)^T.
        self._cublas.gemm(
            (transpose_b, transpose_a), (n, m, k), (alpha, beta), _operand(b), _operand(a), _operand(out), self._compute
        )


def _operand(a: DeviceArray) -> Operand:
    return a.data.ptr, _CUDA_TYPE[a.dtype], _leading(a)


def _leading(a: DeviceArray) -> int:
    """Numbers from one row to the next."""
    return max(int(a.strides[0] // a.itemsize), int(a.shape[1])) if a.shape[0] > 1 else int(a.shape[1])


def as_rows(a: DeviceArray) -> DeviceArray:
    """(T, B, N) seen as (T*B, N)."""
    return a.reshape(-1, a.shape[-1])
