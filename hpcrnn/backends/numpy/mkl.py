"""Stationary products by Intel MKL's packed GEMM, through ``ctypes``.

``cblas_?gemm_pack`` rearranges the right operand once into the order the inner kernel reads, so the T
products of a sequence skip the packing that an ordinary GEMM repeats at every step: for a skinny product
that packing is most of what keeps it from the machine's peak.  ``beta = 1`` adds in place besides.

MKL is optional (extra ``mkl``, or any ``libmkl_rt`` the loader or ``MKLROOT`` knows of).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.cells.products import Array

_ALIGNMENT = 64

# cblas.h and mkl_cblas.h
_ROW_MAJOR, _NO_TRANSPOSE, _TRANSPOSE, _PACKED, _B_MATRIX = 101, 111, 112, 151, 162
_SEQUENTIAL_LAYER = 1

_PRECISION: dict[str, tuple[str, type[ctypes.c_float | ctypes.c_double]]] = {
    "float32": ("s", ctypes.c_float),
    "float64": ("d", ctypes.c_double),
}


@lru_cache(maxsize=1)
def load_mkl() -> ctypes.CDLL | None:
    """Load ``libmkl_rt``, or return None where there is none."""
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        if hasattr(library, "cblas_sgemm_pack") and hasattr(library, "cblas_dgemm_compute"):
            return library
    return None


def _candidates() -> list[str]:
    folders = [Path(sys.prefix) / "lib", Path(sys.prefix) / "Library" / "bin"]
    if root := os.environ.get("MKLROOT"):
        folders += [Path(root) / "lib", Path(root) / "lib" / "intel64"]
    found = [str(path) for folder in folders for path in sorted(folder.glob("libmkl_rt.so*"), reverse=True)]
    name = ctypes.util.find_library("mkl_rt")
    return [*found, name] if name else found


def _address(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _layout(matrix: Array) -> tuple[int, int]:
    """Orientation and leading dimension of a matrix whose rows or columns are contiguous.

    Along an axis of length one any stride is right, to NumPy, but a leading dimension is never less than a row.
    """
    columns = matrix.shape[1]
    across, along = (stride // matrix.itemsize for stride in matrix.strides)
    if along == 1 or columns == 1:
        return _NO_TRANSPOSE, max(across, columns)
    return _TRANSPOSE, along


class MklProduct:
    """One planned product with a packed right operand.

    Parameters
    ----------
    library : ctypes.CDLL
    rows, inner, columns : int
        Sizes of ``(rows, inner) @ (inner, columns)``; a packed matrix serves exactly these.
    dtype : float32 or float64
    """

    def __init__(self, library: ctypes.CDLL, rows: int, inner: int, columns: int, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        letter, scalar = _PRECISION[self._dtype.name]
        self._pack = getattr(library, f"cblas_{letter}gemm_pack")
        self._compute = getattr(library, f"cblas_{letter}gemm_compute")
        get_size = getattr(library, f"cblas_{letter}gemm_pack_get_size")
        get_size.restype = ctypes.c_size_t
        self._sizes = tuple(ctypes.c_int(n) for n in (rows, columns, inner))
        self._shape = (inner, columns)
        self._one, self._zero = scalar(1), scalar(0)
        self._buffer = np.empty(get_size(_B_MATRIX, *self._sizes) + _ALIGNMENT, np.uint8)
        address = self._buffer.ctypes.data
        self._packed = ctypes.c_void_p(address + -address % _ALIGNMENT)

    def load(self, matrix: Array) -> None:
        if matrix.shape != self._shape or matrix.dtype != self._dtype:
            msg = f"a {self._shape} {self._dtype} matrix was planned, {matrix.shape} {matrix.dtype} given"
            raise ValueError(msg)
        orientation, leading = _layout(matrix)
        self._pack(
            _ROW_MAJOR,
            _B_MATRIX,
            orientation,
            *self._sizes,
            self._one,
            _address(matrix),
            leading,
            self._packed,
        )

    def multiply(self, a: Array, out: Array) -> None:
        self._run(a, out, self._zero)

    def accumulate(self, a: Array, out: Array) -> None:
        self._run(a, out, self._one)

    def _run(self, a: Array, out: Array, beta: ctypes._SimpleCData[Any]) -> None:
        self._compute(
            _ROW_MAJOR,
            _NO_TRANSPOSE,
            _PACKED,
            *self._sizes,
            _address(a),
            a.strides[0] // a.itemsize,
            self._packed,
            self._shape[1],
            beta,
            _address(out),
            out.strides[0] // out.itemsize,
        )


class MklProducts:
    """MKL as a product library.

    Parameters
    ----------
    library : ctypes.CDLL
        From :func:`load_mkl`.
    threads : int
        Threads MKL may use.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._library = library
        if threads == 1:
            library.MKL_Set_Threading_Layer(_SEQUENTIAL_LAYER)
        library.MKL_Set_Num_Threads(ctypes.c_int(threads))

    @property
    def name(self) -> str:
        """``MKL 2026.2 packed gemm``."""
        buffer = ctypes.create_string_buffer(256)
        self._library.mkl_get_version_string(buffer, len(buffer))
        words = buffer.value.decode(errors="replace").split()
        version = next((w for w in words if w[:1].isdigit()), "unknown")
        return f"MKL {version.split('-')[0]} packed gemm"

    def product(self, rows: int, inner: int, columns: int, dtype: npt.DTypeLike) -> MklProduct:
        return MklProduct(self._library, rows, inner, columns, dtype)

    def matmul(self, a: Array, b: Array, out: Array, *, accumulate: bool = False) -> None:
        letter, scalar = _PRECISION[out.dtype.name]
        a_orientation, a_leading = _layout(a)
        b_orientation, b_leading = _layout(b)
        getattr(self._library, f"cblas_{letter}gemm")(
            _ROW_MAJOR,
            a_orientation,
            b_orientation,
            *(ctypes.c_int(n) for n in (*out.shape, a.shape[1])),
            scalar(1),
            _address(a),
            a_leading,
            _address(b),
            b_leading,
            scalar(1 if accumulate else 0),
            _address(out),
            out.strides[0] // out.itemsize,
        )
