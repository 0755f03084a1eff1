"""Kernels from CUDA C: compiled for the host, launched with the checks that CuPy does not make.

A real kernel reads its arguments' bytes as what it declares. Here the number of arguments, the kind and size of every
scalar and of what every pointer points to must be those of the declaration.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from cupy_backends.cuda.api import driver
from cupy_backends.cuda.api.runtime import CUDARuntimeError
from host_cuda.build import CompileError, HostKernel, Parameter, compile_source, host_source, load_library

from cupy import _settings
from cupy._array import ndarray
from cupy.cuda.compiler import CompileException
from cupy.cuda.stream import Stream, get_current_stream, submit

_launches = itertools.count(1)  # each in another order of threads and blocks


class RawModule:
    """Kernels of one source.

    Parameters
    ----------
    code : str
    options : tuple of str
        Macros (``-D``) are heeded, all else is of CUDA's compiler.
    enable_cooperative_groups : bool
        All blocks of a launch are there at once.
    """

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        enable_cooperative_groups: bool = False,
        name_expressions: object = None,
    ) -> None:
        self.code, self.options = code, options
        self.enable_cooperative_groups = enable_cooperative_groups

    def get_function(self, name: str) -> "RawKernel":
        """Return a kernel, compiled."""
        return RawKernel(self.code, name, self.options, enable_cooperative_groups=self.enable_cooperative_groups)

    def compile(self, log_stream: object = None) -> None:
        """Compile all kernels."""
        _compile(self.code, self.options)


def _compile(code: str, options: tuple[str, ...]) -> Any:
    macros = tuple(option for option in options if option.startswith("-D"))
    try:
        return load_library(compile_source(host_source(code), macros, _settings.cache_folder()))
    except CompileError as error:
        raise CompileException(str(error)) from None


@dataclass(frozen=True)
class _Function:
    """What ``RawKernel.kernel`` is: its handle."""

    ptr: int


class RawKernel:
    """One kernel; what the compiler would say of its registers is invented.

    As on a device, it is loaded when it is first launched or asked about, which a capture does not allow.
    """

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        *,
        enable_cooperative_groups: bool = False,
    ) -> None:
        self.name, self._cooperative = name, enable_cooperative_groups
        try:
            self._made = HostKernel(_compile(code, options), name)
        except KeyError:
            raise driver.CUDADriverError(f"CUDA_ERROR_NOT_FOUND: no kernel {name}") from None
        self._shared_bytes = _settings.SHARED_BYTES
        self._loaded = False

    @property
    def kernel(self) -> _Function:
        self._load(get_current_stream())
        return _Function(id(self))

    def _load(self, stream: Stream) -> None:
        if not self._loaded and stream.is_capturing():
            raise CUDARuntimeError(
                f"cudaErrorStreamCaptureUnsupported: the kernel {self.name} would be loaded while the stream captures"
            )
        self._loaded = True

    @property
    def num_regs(self) -> int:
        return _settings.REGISTERS_OF_A_THREAD if self.kernel else 0

    @property
    def local_size_bytes(self) -> int:
        return 0 if self.kernel else -1

    @property
    def max_threads_per_block(self) -> int:
        return self._made.most_threads

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shared_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > _settings.SHARED_BYTES_AT_MOST:
            raise driver.CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {size} bytes of shared memory")
        self._load(get_current_stream())
        self._shared_bytes = size

    @property
    def attributes(self) -> dict[str, int]:
        names = ("max_threads_per_block", "local_size_bytes", "num_regs", "max_dynamic_shared_size_bytes")
        return {name: getattr(self, name) for name in names}

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
        stream: Stream | None = None,
    ) -> None:
        """Give a launch to a stream."""
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        self._load(stream or get_current_stream())
        self._check_launch(grid, block, shared_mem)
        values = self._values(args)
        arrays = [a for a in args if isinstance(a, ndarray)]

        def run() -> None:
            status = self._made.launch(
                grid, block[0], shared_mem, values, next(_launches), cooperative=self._cooperative
            )
            if status:
                why = "gave up waiting" if status == 1 else "hangs: no thread moves any more"
                raise driver.CUDADriverError(f"CUDA_ERROR_LAUNCH_FAILED: the kernel {self.name} {why}")
            for array in arrays:
                array._block.check_guards(f"the kernel {self.name}")

        submit(run, stream)

    def _check_launch(self, grid: tuple[int, ...], block: tuple[int, ...], shared_bytes: int) -> None:
        blocks = grid[0] * grid[1] * grid[2]
        if block[1:] != (1, 1):
            msg = "the stand-in has blocks of one dimension only"
            raise NotImplementedError(msg)
        if min(*grid, block[0]) < 1 or block[0] > self._made.most_threads or max(grid[1:]) > 0xFFFF:
            raise driver.CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {self.name}: grid {grid}, block {block}")
        if shared_bytes > self._shared_bytes:
            raise driver.CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: {self.name}: {shared_bytes} bytes of shared memory, {self._shared_bytes} "
                "allowed (max_dynamic_shared_size_bytes)"
            )
        if self._cooperative and blocks > _settings.MULTIPROCESSORS:
            raise driver.CUDADriverError(f"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: {self.name}: {blocks} blocks")

    def _values(self, args: tuple[Any, ...]) -> list[bytes]:
        declared = self._made.parameters
        if len(args) != len(declared):
            names = ", ".join(parameter.name for parameter in declared)
            msg = f"{self.name}: {len(args)} arguments for {len(declared)} parameters ({names})"
            raise TypeError(msg)
        return [self._value(parameter, argument) for parameter, argument in zip(declared, args, strict=True)]

    def _value(self, parameter: Parameter, argument: Any) -> bytes:
        """The bytes of an argument, if it is what the parameter says."""
        if parameter.is_pointer:
            if isinstance(argument, ndarray) and _may_point_to(parameter, argument.dtype):
                return np.intp(argument.data.ptr).tobytes()
            if isinstance(argument, np.integer) and argument.itemsize == 8 and argument == 0:
                return bytes(8)
        elif isinstance(argument, np.generic) and _same(parameter, argument.dtype):
            return argument.tobytes()
        kind = getattr(argument, "dtype", type(argument).__name__)
        wanted = f"{parameter.kind or 'void'}{parameter.size}" + " *" * parameter.is_pointer
        msg = f"{self.name}: {parameter.name} is {wanted} (kind, bytes), not {kind}"
        raise TypeError(msg)


def _same(parameter: Parameter, dtype: np.dtype[Any]) -> bool:
    return parameter.size == dtype.itemsize and parameter.kind == dtype.kind


def _may_point_to(parameter: Parameter, dtype: np.dtype[Any]) -> bool:
    """Numbers of 16 bits are passed as their bits, bytes as anything; the sign of integers is not asked for."""
    if dtype.itemsize == 1 or not parameter.kind:
        return True
    if dtype.itemsize != parameter.size:
        return False
    return dtype.itemsize == 2 or (dtype.kind == "f") == (parameter.kind == "f")
