"""Kernels of a CUDA C source as functions of a shared library: the text, the compiler, what is known of parameters."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

from hpcrnn.kernels.source import read_source

SHIM = Path(__file__).parents[2] / "kernels" / "host_ptx.h"
COMPILER = "g++"
NO_COMPILER = None if shutil.which(COMPILER) else f"{COMPILER} is not installed"
_FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-U_FORTIFY_SOURCE")  # it takes our jumps for mistakes

_PATIENCE_S = 300

_ONCE = "#pragma once\n"
_KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\((?P<bounds>[^()]*)\)\s+)?'
    r"(?P<name>\w+)\((?P<parameters>[^()]*)\) {"
)
_LAUNCHED_SHARED = re.compile(r"extern __shared__ (\w+) (\w+)\[\];")
_DECLARED_SHARED = re.compile(r"__shared__ (\w+) (\w+)((?:\[[^\]]+\])+);")

# All that a library says of one kernel; the kernel itself follows. Its arguments come as CUDA takes them: addresses of
# the values.
_LAUNCHER = """
static void {name}({parameters});
extern "C" const host::Parameter parameters_{name}[] = {{ {described} }};
extern "C" const int n_parameters_{name} = {n};
extern "C" const char names_{name}[] = "{names}";
extern "C" const unsigned most_threads_{name} = host::most_threads({bounds});
extern "C" int launch_{name}(const host::Launch* how, void** arguments) {{
    return host::launch(*how, [=] {{ {name}({passed}); }});
}}
static void {name}({parameters}) {{"""


class CompileError(Exception):
    """The compiler's own words."""


def host_source(code: str) -> str:
    """Return a kernel source as C++: a text of ``read_source``, or any that needs no header of CUDA's."""
    code = code.replace(read_source("ptx.cuh").replace(_ONCE, ""), "")
    code = _LAUNCHED_SHARED.sub(r"\1* \2 = host::launched_shared<\1>();", code)
    count = iter(range(len(code)))
    code = _DECLARED_SHARED.sub(
        lambda found: f"auto& {found[2]} = host::declared_shared<{found[1]}{found[3]}>({next(count)});", code
    )
    code = re.sub(r"^#pragma unroll\n", "\n", code, flags=re.MULTILINE)
    return SHIM.read_text("utf-8").replace(_ONCE, "") + _KERNEL.sub(_with_launcher, code)


def _with_launcher(kernel: re.Match[str]) -> str:
    """A kernel's head behind its launcher: where macros leave the kernel out, they leave out the launcher."""
    kinds, names = zip(*(_parameter(text) for text in kernel["parameters"].split(",")), strict=True)
    return _LAUNCHER.format(
        name=kernel["name"],
        parameters=kernel["parameters"],
        described=", ".join(f"host::parameter<{kind}>()" for kind in kinds),
        n=len(kinds),
        names=",".join(names),
        bounds=kernel["bounds"] or "",
        passed=", ".join(
            f"*static_cast<{kind.removesuffix(' const')} const*>(arguments[{i}])" for i, kind in enumerate(kinds)
        ),
    )


def _parameter(text: str) -> tuple[str, str]:
    """Type and name of a parameter."""
    *kind, name = text.replace("__restrict__", "").replace("*", "* ").split()
    return " ".join(kind), name


def compile_source(source: str, options: tuple[str, ...], folder: Path) -> Path:
    """Compile what ``host_source`` returned, unless the folder has it; several processes may do so at once."""
    key = hashlib.sha256("\0".join((source, *options, *_FLAGS)).encode()).hexdigest()[:20]
    library = folder / f"{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as work:
        text, made = Path(work) / "kernel.cpp", Path(work) / "kernel.so"
        text.write_text(source, "utf-8")
        command = [COMPILER, *_FLAGS, *options, "-o", str(made), str(text)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        if done.returncode:
            raise CompileError(done.stderr[:4000])
        made.replace(library)
    return library


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter.

    Attributes
    ----------
    name : str
    is_pointer : bool
    size : int
        Bytes of the value, or of what it points to; 0 where that is nothing.
    kind : str
        As in NumPy's dtypes: ``f``, ``i``, ``u``; empty where it is none of these.
    """

    name: str
    is_pointer: bool
    size: int
    kind: str


class _CParameter(ctypes.Structure):
    _fields_ = (("is_pointer", ctypes.c_int), ("size", ctypes.c_int), ("kind", ctypes.c_int))


class _CLaunch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("threads", ctypes.c_uint),
        ("shared_bytes", ctypes.c_ulong),
        ("seed", ctypes.c_uint),
        ("cooperative", ctypes.c_uint),
    )


_one_at_a_time = Lock()  # the fibers know of one launch only


class HostKernel:
    """A kernel of a library.

    Parameters
    ----------
    library : CDLL
    name : str

    Raises
    ------
    KeyError
        There is no such kernel.
    """

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        try:
            self._launch = library[f"launch_{name}"]
        except AttributeError:
            raise KeyError(name) from None
        n = ctypes.c_int.in_dll(library, f"n_parameters_{name}").value
        described = (_CParameter * n).in_dll(library, f"parameters_{name}")
        names = ctypes.c_char.in_dll(library, f"names_{name}")
        self.most_threads = ctypes.c_uint.in_dll(library, f"most_threads_{name}").value
        self.parameters = tuple(
            Parameter(text, bool(p.is_pointer), p.size, chr(p.kind).strip("\0"))
            for text, p in zip(ctypes.string_at(ctypes.addressof(names)).decode().split(","), described, strict=True)
        )

    def launch(
        self,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        values: list[bytes],
        seed: int = 0,
        *,
        cooperative: bool = False,
    ) -> int:
        """Run to the end.

        Parameters
        ----------
        grid : tuple of int
        threads : int
            Of a block.
        shared_bytes : int
        values : list of bytes
            One a parameter: the value, or the address it points to.
        seed : int
            Of the order in which threads and blocks run.
        cooperative : bool
            All blocks are there at once; otherwise they run one by one.

        Returns
        -------
        int
            0 where it ran to its end, 1 where it gave up waiting, 2 where nothing moved any more.
        """
        kept = [ctypes.create_string_buffer(value, max(8, len(value))) for value in values]
        arguments = (ctypes.c_void_p * len(kept))(*map(ctypes.addressof, kept))
        how = _CLaunch((ctypes.c_uint * 3)(*grid), threads, shared_bytes, seed & 0xFFFFFFFF, cooperative)
        with _one_at_a_time:
            return self._launch(ctypes.byref(how), arguments)


@cache
def load_library(path: Path) -> ctypes.CDLL:
    """Load what was compiled."""
    return ctypes.CDLL(os.fspath(path))
