"""Arrays of the device: NumPy's arithmetic behind CuPy's rules.

An array *holds* a NumPy array and is none, so that nothing takes it for host memory by mistake: NumPy's functions get a
TypeError, as from CuPy. What writes into an array that is there is given to the current stream; what makes a new one is
done at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cupy.cuda import memory
from cupy.cuda import stream as streams

Key = Any


class ndarray:  # noqa: N801 - CuPy's name
    """An array of the device.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype
    memptr : MemoryPointer, optional
        Where it begins; freshly allocated, and poison, if not given.
    strides : tuple of int, optional
        With ``memptr``; contiguous if not given.
    """

    __slots__ = ("__weakref__", "_block", "_host", "base")
    __hash__ = None
    __array_priority__ = 100

    def __init__(
        self,
        shape: int | tuple[int, ...],
        dtype: Any = float,
        memptr: memory.MemoryPointer | None = None,
        strides: tuple[int, ...] | None = None,
        order: str = "C",
    ) -> None:
        kind = np.dtype(dtype)
        if kind.kind not in "fiub":
            msg = f"no arrays of {kind} on the device"
            raise TypeError(msg)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        pointer = memory.get_default_memory_pool().malloc(size) if memptr is None else memptr
        offset = pointer.ptr - pointer.mem.ptr
        self._block, self.base = pointer.mem, None
        self._host = np.ndarray(shape, kind, pointer.mem.bytes.data, offset, strides, order)

    # What it is.

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._host.dtype

    @property
    def strides(self) -> tuple[int, ...]:
        return self._host.strides

    @property
    def ndim(self) -> int:
        return self._host.ndim

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def itemsize(self) -> int:
        return self._host.itemsize

    @property
    def nbytes(self) -> int:
        return self._host.nbytes

    @property
    def flags(self) -> Any:
        return self._host.flags

    @property
    def data(self) -> memory.MemoryPointer:
        """Its first element's address."""
        address = self._host.__array_interface__["data"][0] if self.size else self._block.ptr
        return memory.MemoryPointer(self._block, address - self._block.ptr)

    @property
    def device(self) -> Any:
        from cupy.cuda.device import Device

        return Device()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What libraries that know of GPU memory ask for, MPI among them; here, memory that any of them can read."""
        strides = None if self.flags.c_contiguous else self.strides
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": strides,
            "version": 3,
            "stream": streams.get_current_stream().ptr or 1,
        }

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        msg = (
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )
        raise TypeError(msg)

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> ndarray:
        if method != "__call__":
            return NotImplemented
        return compute(function, *inputs, **options)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        import cupy

        ours = getattr(cupy, function.__name__, None)
        return NotImplemented if ours is None else ours(*args, **kwargs)

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"device {self._host!r}"

    # To the host and back.

    def get(
        self,
        stream: streams.Stream | None = None,
        order: str = "C",
        out: np.ndarray | None = None,
        blocking: bool = True,
    ) -> np.ndarray:
        """Copy to the host: in the order of a stream, and waiting for it unless told not to."""
        stream = stream or streams.get_current_stream()
        if blocking and stream.is_capturing():
            streams.refuse_capture("a copy to the host")
        _check_like(self, out)
        if out is not None and not out.flags.c_contiguous:
            msg = "`out` cannot be specified when copying to non-contiguous ndarray"
            raise RuntimeError(msg)
        result = np.empty(self.shape, self.dtype) if out is None else out
        source = self._host
        streams.submit(lambda: np.copyto(result, source), stream)
        if blocking:
            stream.synchronize()
        return result

    def set(self, arr: np.ndarray, stream: streams.Stream | None = None) -> None:
        """Copy from the host, in the order of a stream; what is not page-locked is read at once."""
        if arr is None:
            msg = "Only numpy.ndarray can be set to cupy.ndarray"
            raise TypeError(msg)
        _check_like(self, arr)
        if not self.flags.c_contiguous:
            msg = "Cannot set to non-contiguous array"
            raise RuntimeError(msg)
        target, source = self._host, np.ascontiguousarray(arr)
        if not memory.is_pinned(source.ctypes.data):
            source = source.copy()
        streams.submit(lambda: np.copyto(target, source), stream)

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self.get().__index__()

    def __bool__(self) -> bool:
        return bool(self.get())

    # Parts and other forms.

    def __getitem__(self, key: Key) -> ndarray:
        place = _host_key(key)
        if _is_basic(place):
            return self._view(self._host[(*place, Ellipsis)] if Ellipsis not in place else self._host[place])
        return compute(lambda a, *_: a[place], self, *_device_parts(key))

    def __setitem__(self, key: Key, value: Any) -> None:
        target, place, source = self._host, _host_key(key), _operand(value)

        def write() -> None:
            target[place] = source

        streams.submit(write)

    def _view(self, host: np.ndarray) -> ndarray:
        made = ndarray.__new__(ndarray)
        made._block, made._host, made.base = self._block, host, self if self.base is None else self.base
        return made

    def _seen_as(self, form: Callable[[np.ndarray], np.ndarray]) -> ndarray:
        """Another form of the same memory where there is one; else a copy, as in NumPy."""
        host = form(self._host)
        if host.size == 0 or np.may_share_memory(host, self._host):
            return self._view(host)
        return compute(form, self)

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        return self._seen_as(lambda a: a.reshape(*shape, order=order))

    def ravel(self, order: str = "C") -> ndarray:
        return self._seen_as(lambda a: a.ravel(order))

    def view(self, dtype: Any = None) -> ndarray:
        return self._view(self._host.view() if dtype is None else self._host.view(dtype))

    def transpose(self, *axes: Any) -> ndarray:
        return self._view(self._host.transpose(*axes))

    @property
    def T(self) -> ndarray:  # noqa: N802
        return self.transpose()

    def swapaxes(self, one: int, other: int) -> ndarray:
        return self._view(self._host.swapaxes(one, other))

    def squeeze(self, axis: Any = None) -> ndarray:
        return self._view(self._host.squeeze(axis))

    def flatten(self) -> ndarray:
        return compute(np.ndarray.flatten, self)

    def copy(self, order: str = "C") -> ndarray:
        return compute(lambda a: a.copy(order), self)

    __copy__ = copy

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        if not copy and self.dtype == dtype:
            return self
        return compute(lambda a: a.astype(dtype), self)

    def fill(self, value: Any) -> None:
        self[...] = value

    def take(self, indices: Any, axis: int | None = None) -> ndarray:
        return compute(np.take, self, indices, axis=axis)

    def dot(self, other: ndarray) -> ndarray:
        return compute(np.dot, self, other)


def _check_like(array: ndarray, host: Any) -> None:
    """Raise where a host array is no counterpart of ours; None is one."""
    if host is None:
        return
    if not isinstance(host, np.ndarray):
        msg = "Only numpy.ndarray can be set to, or obtained from, cupy.ndarray"
        raise TypeError(msg)
    if host.dtype != array.dtype:
        msg = f"{host.dtype} array on the host and {array.dtype} array on the device"
        raise TypeError(msg)
    if host.shape != array.shape:
        msg = f"Shape mismatch: {host.shape} on the host, {array.shape} on the device"
        raise ValueError(msg)


def _operand(value: Any) -> Any:
    """What NumPy is to be given for an operand; host arrays are refused."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray) and value.ndim:
        msg = f"Unsupported type {type(value)}: a host array beside arrays of the device"
        raise TypeError(msg)
    if isinstance(value, list | tuple) and any(isinstance(v, ndarray) for v in value):
        return type(value)(_operand(v) for v in value)
    return value


def _host_key(key: Key) -> tuple[Any, ...]:
    parts = key if isinstance(key, tuple) else (key,)
    return tuple(part._host if isinstance(part, ndarray) else part for part in parts)


def _device_parts(key: Key) -> list[ndarray]:
    return [part for part in (key if isinstance(key, tuple) else (key,)) if isinstance(part, ndarray)]


def _is_basic(place: tuple[Any, ...]) -> bool:
    return all(
        part is None or part is Ellipsis or (isinstance(part, slice | int | np.integer) and not isinstance(part, bool))
        for part in place
    )


def from_host(values: np.ndarray) -> ndarray:
    """A new array of the device."""
    made = ndarray(values.shape, values.dtype)
    made._host[...] = values
    return made


def compute(function: Callable[..., Any], *operands: Any, out: Any = None, **options: Any) -> Any:
    """Apply a NumPy function to arrays of the device.

    With ``out``, it is given to the current stream; without, it is done at once, into a new array.
    """
    hosts = [_operand(operand) for operand in operands]
    options = {name: _operand(value) for name, value in options.items()}
    if out is not None:
        (target,) = out if isinstance(out, tuple) else (out,)
        if not isinstance(target, ndarray):
            msg = f"`out` must be an array of the device, not {type(target)}"
            raise TypeError(msg)
        where = target._host
        streams.submit(lambda: function(*hosts, out=where, **options))
        return target
    streams.catch_up(f"an operation ({getattr(function, '__name__', 'index')}) that makes a new array")
    return from_host(np.asarray(function(*hosts, **options)))


def _give_operators() -> None:
    """Python's operators, and the methods that are functions too."""
    binary = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "truediv": np.true_divide,
        "floordiv": np.floor_divide,
        "mod": np.remainder,
        "pow": np.power,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "lshift": np.left_shift,
        "rshift": np.right_shift,
    }
    for name, function in binary.items():
        setattr(ndarray, f"__{name}__", lambda a, b, f=function: compute(f, a, b))
        setattr(ndarray, f"__r{name}__", lambda a, b, f=function: compute(f, b, a))
        setattr(ndarray, f"__i{name}__", lambda a, b, f=function: compute(f, a, b, out=a))
    compared = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    for name, function in {**compared, "eq": np.equal, "ne": np.not_equal, "matmul": np.matmul}.items():
        setattr(ndarray, f"__{name}__", lambda a, b, f=function: compute(f, a, b))
    for name, function in {"neg": np.negative, "abs": np.abs, "invert": np.invert, "pos": np.positive}.items():
        setattr(ndarray, f"__{name}__", lambda a, f=function: compute(f, a))
    for name in ("sum", "prod", "max", "min", "mean", "any", "all", "argmax", "argmin", "cumsum"):
        function = getattr(np, name)
        setattr(ndarray, name, lambda a, *args, f=function, **options: compute(f, a, *args, **options))


_give_operators()
