"""Numbers in two bytes or one.

``bfloat16`` rounds to nearest even; ``int8`` keeps 127 steps each side of zero, of a scale that a row shares.
NumPy has ``float16`` itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LARGEST_FLOAT16 = 65504.0
LARGEST_BFLOAT16 = float.fromhex("0x1.fep127")
INT8_LEVELS = 127
SCALE_BYTES = 4
"""A scale is a float32."""

_LARGEST_SCALE = np.nextafter(np.float32(np.finfo(np.float32).max / INT8_LEVELS), np.float32(0))
"""So that as many steps of it are a float32 too."""
_HALF = 0x7FFF
_TIE = 0x8000
_LOW = 0xFFFF
_QUIET = 0x40


def to_bfloat16(values: Array) -> npt.NDArray[np.uint16]:
    """Round to the upper two bytes of a float32; what is not a number stays so.

    Parameters
    ----------
    values : float32 or float64 array

    Returns
    -------
    uint16 array
        Of the same shape, contiguous.
    """
    single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    if values.dtype == np.float64:
        bits = _unrounded(bits, single, values)
    rounded = bits + (_HALF + ((bits >> 16) & 1))
    upper = (rounded >> 16).astype(np.uint16)
    if np.isnan(single).any():  # whose bits above may have been carried beyond the sign
        np.copyto(upper, (bits >> 16).astype(np.uint16) | _QUIET, where=np.isnan(single))
    return upper


def _unrounded(bits: Array, single: Array, values: Array) -> Array:
    """Undo, where it matters, that a float64 was rounded to a float32 first: a tie then is none.

    Next to a tie one float32 up or down is on the same side of it as the float64 was.
    """
    tie = (bits & _LOW) == _TIE
    beyond, short = (tie & compare(np.abs(values), np.abs(single)) for compare in (np.greater, np.less))
    return np.asarray(bits + beyond.astype(np.uint32) - short.astype(np.uint32))


def from_bfloat16(upper: Array, out: Array) -> None:
    """Write what :func:`to_bfloat16` returned as the numbers it stands for."""
    out[...] = (upper.astype(np.uint32) << 16).view(np.float32)


def to_int8(rows: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Write every row as whole steps of its own scale, the 127th part of its largest magnitude.

    Parameters
    ----------
    rows : float32 or float64 array (..., m)

    Returns
    -------
    levels : int8 array (..., m)
    scale : float32 array (..., 1)
        NaN where a row holds a NaN.
    """
    largest = np.abs(rows).max(axis=-1, keepdims=True, initial=0.0) / INT8_LEVELS
    scale = np.minimum(largest, _LARGEST_SCALE).astype(np.float32)
    with np.errstate(invalid="ignore"):  # NaN has no level; its row's scale says so
        steps = np.divide(rows, scale, out=np.zeros_like(rows), where=scale > 0)
        np.rint(steps, out=steps)
        # A scale near the least float32 is a coarse one, and the largest may be more steps away.
        return np.clip(steps, -INT8_LEVELS, INT8_LEVELS, out=steps).astype(np.int8), scale


def from_int8(levels: Array, scale: Array, out: Array) -> None:
    """Write what :func:`to_int8` returned as the numbers it stands for."""
    np.multiply(levels, scale, out=out, casting="unsafe")
