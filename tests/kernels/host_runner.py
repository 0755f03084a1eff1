"""Runs single kernels on the host (see ``host_gpu/host_cuda``), and numbers as kernels store them."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from host_gpu.host_cuda.build import NO_COMPILER, HostKernel, compile_source, host_source, load_library

from hpcrnn.kernels.source import read_source
from hpcrnn.kernels.variants import Tile, Variant

needs_compiler = pytest.mark.skipif(NO_COMPILER is not None, reason=str(NO_COMPILER))


@cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="kernels-")


@cache
def compile_host(name, macros, kernel, mutate=None):
    """Compile a family's kernels and return one; ``mutate`` (old, new) plants a mistake."""
    source = host_source(read_source(name))
    if mutate:
        assert mutate[0] in source, mutate
        source = source.replace(*mutate)
    path = compile_source(source, tuple(f"-D{key}={value}" for key, value in macros), Path(_folder().name))
    return HostKernel(load_library(path), kernel)


def run(name, kernel, macros, grid, threads, shared_bytes, arrays, seed=0, mutate=None):
    """Launch a kernel on the host, all blocks at once; arguments by name.

    Returns 0 where it ran to its end, 1 where it gave up waiting, 2 where nothing moved any more.
    """
    made = compile_host(name, tuple(sorted(macros.items())), kernel, mutate)
    values = []
    for parameter in made.parameters:
        value = arrays[parameter.name]
        if parameter.is_pointer:
            assert value is None or value.flags.c_contiguous
            values.append(np.intp(0 if value is None else value.ctypes.data).tobytes())
        else:
            values.append(np.array(value, f"{parameter.kind}{parameter.size}").tobytes())
    return made.launch((*grid, 1), threads, shared_bytes, values, seed, cooperative=True)


# Numbers as the kernels store them.


def to_stored(a, precision):
    """Round to what is stored: float32, or the bits of 16-bit numbers."""
    a = np.ascontiguousarray(a, np.float32)
    if precision == "float16":
        return a.astype(np.float16).view(np.uint16)
    if precision == "bfloat16":
        bits = a.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return a


def from_stored(a, precision):
    """Float64 values of stored numbers."""
    if precision == "float16":
        return a.view(np.float16).astype(np.float64)
    if precision == "bfloat16":
        return (a.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return a.astype(np.float64)


def rounded(a, precision):
    """Values that survive being stored."""
    return from_stored(to_stored(a, precision), precision)


def unwritten(shape, precision):
    """An array no block has written yet: all bits set."""
    kind = np.uint16 if precision in ("float16", "bfloat16") else np.float32
    a = np.empty(shape, kind)
    a.view(np.uint8)[...] = 0xFF
    return a


def launch_persistent(variant: Variant, tile: Tile, arrays, T, B, H, seed=0, mutate=None):
    """Run a persistent kernel over the arrays it names."""
    grid = tile.grid(B, H)
    arrays = arrays | {"T": T, "B": B, "H": H, "training": 1, "counters": np.zeros(grid[1] * tile.subtiles, np.uint32)}
    return run(
        "persistent.cu",
        variant.direction,
        tile.macros(variant),
        grid,
        tile.threads,
        tile.shared_bytes(variant),
        arrays,
        seed,
        mutate,
    )
