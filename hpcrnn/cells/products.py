"""Products with a stationary matrix: the one operation of a recurrent layer that repeats every time step.

The recurrent weights stay the same for a whole sequence while a skinny ``(B, K)`` operand changes, so a
matrix may be laid out once, in whatever form its library likes best, and used T times.  A cell asks a
:class:`ProductLibrary` for such products and never sees the layout.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class StationaryProduct(Protocol):
    """``a @ M`` for a matrix that is loaded now and then and used often."""

    def load(self, matrix: Array) -> None:
        """Take in M (K, N), contiguous or the transpose of a contiguous array."""

    def multiply(self, a: Array, out: Array) -> None:
        """Compute ``out = a @ M`` for ``a`` (B, K) and ``out`` (B, N), each with contiguous rows."""

    def accumulate(self, a: Array, out: Array) -> None:
        """Compute ``out += a @ M``."""


class ProductLibrary(Protocol):
    """A BLAS: ordinary products, and a maker of stationary ones."""

    @property
    def name(self) -> str:
        """What does the product, with its version, for the record."""

    def product(self, rows: int, inner: int, columns: int, dtype: npt.DTypeLike) -> StationaryProduct:
        """Plan ``(rows, inner) @ (inner, columns)``; allocates all that the product will need."""

    def matmul(self, a: Array, b: Array, out: Array, *, accumulate: bool = False) -> None:
        """Compute ``out = a @ b``, or ``out += a @ b``; each operand has contiguous rows or contiguous columns."""


class NumpyProduct:
    """``numpy.matmul`` with a contiguous copy of the matrix, cut into panels of columns where that is faster.

    The copy matters for a transposed M: OpenBLAS takes a (64, 2048) @ (2048, 512) product with the right
    operand contiguous at 98 GFLOP/s where the transposed view of the same matrix gives 68.  The panels matter
    for few rows: see :func:`panel_width`.
    """

    def __init__(self, rows: int, inner: int, columns: int, dtype: npt.DTypeLike) -> None:
        width = panel_width(rows, inner, columns)
        bounds = [slice(start, min(start + width, columns)) for start in range(0, columns, width)]
        self._panels = [(part, np.empty((inner, part.stop - part.start), dtype)) for part in bounds]
        self._scratch = np.empty((rows, columns), dtype)

    def load(self, matrix: Array) -> None:
        for part, panel in self._panels:
            np.copyto(panel, matrix[:, part])

    def multiply(self, a: Array, out: Array) -> None:
        for part, panel in self._panels:
            np.matmul(a, panel, out=out[:, part])

    def accumulate(self, a: Array, out: Array) -> None:
        self.multiply(a, self._scratch)
        np.add(out, self._scratch, out=out)


def panel_width(rows: int, inner: int, columns: int) -> int:
    """Columns of a panel: all of them, or as many as OpenBLAS takes without packing.

    Up to about 10^6 multiply-adds OpenBLAS multiplies in place; beyond, it packs the right operand anew in every
    call, which for 16 rows is half the time: (16, 256) @ (256, 1024) runs at 52 GFLOP/s in one piece and at 66 in
    panels of 128 columns, (16, 1024) @ (1024, 256) at 49 and, in panels of 32, at 62.  More rows than that share
    the cost of packing, and panels gain nothing.
    """
    few, small = 16, 1_000_000
    if rows > few or rows * inner * columns <= small:
        return columns
    return next((width for width in (128, 64, 32) if rows * inner * width <= small), columns)


class NumpyProducts:
    """The library every machine has: NumPy's own BLAS.

    NumPy has no product that adds: one is made in a scratch array, kept at the largest size met, and then added.
    """

    def __init__(self) -> None:
        self._scratch: Array = np.empty(0, np.uint8)

    @property
    def name(self) -> str:
        return f"numpy {np.__version__} matmul"

    def product(self, rows: int, inner: int, columns: int, dtype: npt.DTypeLike) -> NumpyProduct:
        return NumpyProduct(rows, inner, columns, dtype)

    def matmul(self, a: Array, b: Array, out: Array, *, accumulate: bool = False) -> None:
        if not accumulate:
            np.matmul(a, b, out=out)
            return
        if self._scratch.nbytes < out.nbytes:
            self._scratch = np.empty(out.nbytes, np.uint8)
        product = self._scratch[: out.nbytes].view(out.dtype).reshape(out.shape)
        np.matmul(a, b, out=product)
        np.add(out, product, out=out)
