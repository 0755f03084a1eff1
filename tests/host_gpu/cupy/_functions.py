"""CuPy's functions, by NumPy's of the same name."""

from typing import Any

import numpy as np

from cupy._array import compute, from_host, ndarray
from cupy.cuda.stream import Stream, refuse_capture

_BY_NAME = """
    abs absolute add bitwise_and bitwise_or clip cos divide equal exp floor greater greater_equal isfinite isinf isnan
    left_shift less less_equal log log2 logical_and logical_not logical_or maximum minimum multiply negative not_equal
    power right_shift rint round sign sin sqrt square subtract tanh true_divide trunc
    all any argmax argmin argsort broadcast_to count_nonzero cumsum diag diagonal dot einsum matmul max mean min
    moveaxis outer prod repeat roll sort sum swapaxes take tensordot tile trace tril triu
    where
"""
_OF_LISTS = "concatenate hstack stack vstack"


def _by_name(name: str) -> Any:
    function = getattr(np, name)

    def ours(*operands: Any, **options: Any) -> ndarray:
        return compute(function, *operands, **options)

    ours.__name__ = name
    return ours


_made = {name: _by_name(name) for name in (_BY_NAME + _OF_LISTS).split()}


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Allocate; the memory is poisoned."""
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    made = empty(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order)
    made.fill(fill_value)
    return made


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def empty_like(a: ndarray, dtype: Any = None, shape: Any = None) -> ndarray:
    return empty(a.shape if shape is None else shape, dtype or a.dtype)


def full_like(a: ndarray, fill_value: Any, dtype: Any = None, shape: Any = None) -> ndarray:
    made = empty_like(a, dtype, shape)
    made.fill(fill_value)
    return made


def zeros_like(a: ndarray, dtype: Any = None, shape: Any = None) -> ndarray:
    return full_like(a, 0, dtype, shape)


def ones_like(a: ndarray, dtype: Any = None, shape: Any = None) -> ndarray:
    return full_like(a, 1, dtype, shape)


def arange(*args: Any, dtype: Any = None) -> ndarray:
    refuse_capture("arange")
    return from_host(np.arange(*args, dtype=dtype))


def array(obj: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    """A copy of an array of either kind, or of a list."""
    if isinstance(obj, ndarray):
        return obj.astype(dtype or obj.dtype, copy=copy)
    if isinstance(obj, list | tuple) and any(isinstance(part, ndarray) for part in obj):
        return _made["stack"](obj)
    refuse_capture("a copy from the host")
    return from_host(np.asarray(obj, dtype))


def asarray(a: Any, dtype: Any = None) -> ndarray:
    """An array of the device: itself, or a copy of what is on the host."""
    return array(a, dtype, copy=False)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    made = asarray(a, dtype)
    return made if made.flags.c_contiguous else made.copy()


def asnumpy(
    a: Any, stream: Stream | None = None, order: str = "C", out: np.ndarray | None = None, *, blocking: bool = True
) -> np.ndarray:
    """A copy on the host."""
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a)


def copyto(dst: ndarray, src: Any, casting: str = "same_kind") -> None:
    """Copy between arrays of the device."""
    if isinstance(src, ndarray) and not np.can_cast(src.dtype, dst.dtype, casting):
        msg = f"Cannot cast {src.dtype} to {dst.dtype} in {casting} casting mode"
        raise TypeError(msg)
    dst[...] = src


def reshape(a: ndarray, shape: Any) -> ndarray:
    return a.reshape(shape)


def ravel(a: ndarray) -> ndarray:
    return a.ravel()


def transpose(a: ndarray, axes: Any = None) -> ndarray:
    return a.transpose(axes)


def shares_memory(a: Any, b: Any) -> bool:
    """Whether two arrays have bytes in common."""
    both = isinstance(a, ndarray) and isinstance(b, ndarray)
    return both and np.shares_memory(a._host, b._host)


# What the package shows under these names.
FUNCTIONS = _made | {
    function.__name__: function
    for function in (
        arange,
        array,
        asarray,
        ascontiguousarray,
        asnumpy,
        copyto,
        empty,
        empty_like,
        full,
        full_like,
        ones,
        ones_like,
        ravel,
        reshape,
        shares_memory,
        transpose,
        zeros,
        zeros_like,
    )
}
FUNCTIONS["may_share_memory"] = shares_memory
