"""Runs the CUDA C kernels on the host: compiled as C++, a fiber for each CUDA thread (see ``host_ptx.h``)."""

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hpcrnn.kernels.source import read_source
from hpcrnn.kernels.variants import Tile, Variant

SHIM = Path(__file__).with_name("host_ptx.h")
_SHARED = "extern __shared__ uint4 shared_memory[];"

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


def host_source(name, mutate=None):
    """A kernel family as C++; ``mutate`` (old, new) plants a mistake."""
    source = read_source(name, {"ptx.cuh": SHIM.read_text("utf-8")})
    source = source.replace(_SHARED, "uint4* shared_memory = host::current->block->shared.data();")
    # One array of fixed size a kernel: it lies where the dynamic one would.
    fixed = r"reinterpret_cast<\1*>(host::current->block->shared.data());"
    source = re.sub(r"__shared__ (\w+) (\w+)\[\d+\];", rf"\1* \2 = {fixed}", source)
    source = re.sub(r"^#pragma unroll\n", "\n", source, flags=re.MULTILINE)
    if mutate:
        assert mutate[0] in source, mutate
        source = source.replace(*mutate)
    return source


def parameters(signature):
    """Types and names of a kernel's parameters."""
    found = []
    for parameter in signature.split(","):
        *kind, name = parameter.replace("__restrict__", "").replace("*", "* ").split()
        found.append((" ".join(kind), name))
    return found


@cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="kernels-")


@cache
def compile_host(name, macros, kernel, mutate=None):
    """Compile one kernel; returns a function of a launch's grid, threads, shared bytes, seed and arguments."""
    source = host_source(name, mutate)
    signature = re.search(rf"__global__ void[^;{{}}]*?\b{kernel}\((.*?)\) {{", source, re.DOTALL)[1]
    arguments = parameters(signature)
    declared = ", ".join(f"{kind} {argument}" for kind, argument in arguments)
    passed = ", ".join(argument for _, argument in arguments)
    source += (
        f'\nextern "C" int launch_{kernel}(unsigned gx, unsigned gy, unsigned threads, unsigned long shared, '
        f"unsigned seed, {declared}) {{\n"
        f"    return host::launch(gx, gy, threads, shared, seed, [=] {{ {kernel}({passed}); }});\n}}\n"
    )
    stem = Path(_folder().name) / hashlib.sha256((source + repr(macros)).encode()).hexdigest()[:16]
    stem.with_suffix(".cpp").write_text(source)
    command = ["g++", "-std=c++17", "-O0", "-shared", "-fPIC", "-w", *(f"-D{k}={v}" for k, v in macros)]
    done = subprocess.run(
        [*command, "-o", str(stem.with_suffix(".so")), str(stem.with_suffix(".cpp"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:4000]
    function = getattr(ctypes.CDLL(str(stem.with_suffix(".so"))), f"launch_{kernel}")
    return function, arguments


def run(name, kernel, macros, grid, threads, shared_bytes, arrays, seed=0, mutate=None):
    """Launch a kernel on the host.

    Returns 0 where it ran to its end, 1 where it gave up waiting, 2 where nothing moved any more.
    """
    function, arguments = compile_host(name, tuple(sorted(macros.items())), kernel, mutate)
    values = []
    for kind, argument in arguments:
        value = arrays[argument]
        if "*" in kind:
            assert value is None or value.flags.c_contiguous
            values.append(None if value is None else value.ctypes.data_as(ctypes.c_void_p))
        else:
            values.append({"float": ctypes.c_float, "long long": ctypes.c_longlong}.get(kind, ctypes.c_int)(value))
    return function(
        *(ctypes.c_uint(v) for v in (*grid, threads)), ctypes.c_ulong(shared_bytes), ctypes.c_uint(seed), *values
    )


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
