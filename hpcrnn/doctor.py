"""What this machine can run, and what is wrong with it: each finding with the line that mends it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import hpcrnn

Level = Literal["ok", "note", "problem"]

_TIMEOUT_S = 30.0
_RANKS_PROGRAM = "from mpi4py import MPI; c = MPI.COMM_WORLD; n = c.allreduce(1); c.rank or print('ranks:', n)"
_LIBRARY_PROGRAM = (
    "from mpi4py import MPI; from hpcrnn.records.environment import mpi_origin;"
    "print(' '.join(MPI.Get_library_version().split('\\n')[0].split()), 'from', mpi_origin())"
)

_CUDA_PROGRAM = "from hpcrnn.execution.cuda_aware import probe; found = probe(); print(int(found.aware), found.how)"


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes
    ----------
    topic : str
    level : {"ok", "note", "problem"}
        A note is something that cannot be done here; a problem keeps ``hpcrnn run`` from working.
    text : str
        What was found.
    remedy : str
        The line that mends it; empty where nothing needs mending.
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything a run needs; nothing found raises."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _cores,
        _mpi_library,
        _mpirun,
        _blas,
        _mkl,
        _torch,
        _gpus,
        _mpi_and_gpus,
        _hdf5,
        _results,
        _slurm,
    )
    return [check() for check in checks]


def render(findings: list[Finding], *, as_json: bool) -> str:
    """Write findings as lines, or as JSON for programs."""
    if as_json:
        return json.dumps([asdict(f) for f in findings], indent=2) + "\n"
    width = max(len(f.topic) for f in findings)
    marks = {"ok": "ok  ", "note": "note", "problem": "PROBLEM"}
    lines = []
    for f in findings:
        lines.append(f"{f.topic:<{width}}  {marks[f.level]}  {f.text}")
        if f.remedy:
            lines.append(f"{'':<{width}}        mend it with: {f.remedy}")
    problems = sum(f.level == "problem" for f in findings)
    lines.append(f"{problems} problem(s)" if problems else "everything hpcrnn run needs is here")
    return "\n".join(lines) + "\n"


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", "ok", f"{version}, hpcrnn {hpcrnn.__version__}")


def _cores() -> Finding:
    there = os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    text = f"{mine} of {there} usable; more ranks than that share cores: right for tests, not for timings"
    return Finding("cores", "ok", text)


def _mpi_library() -> Finding:
    status, output = _try([sys.executable, "-c", _LIBRARY_PROGRAM])
    if status == 0:
        return Finding("MPI library", "ok", output)
    return Finding("MPI library", "problem", f"cannot be loaded: {output}", "pip install mpich")


def _mpirun() -> Finding:
    """Start two ranks for real: ranks that never meet are the largest trap there is."""
    beside = Path(sys.executable).parent / "mpirun"
    launcher = str(beside) if beside.exists() else shutil.which("mpirun")
    if launcher is None:
        return Finding("mpirun", "problem", "not found", "pip install mpich, or load the site's MPI module")
    status, output = _try([launcher, "-n", "2", sys.executable, "-c", _RANKS_PROGRAM])
    if status != 0:
        return Finding(
            "mpirun", "problem", f"{launcher} -n 2 failed: {output}", "use the mpirun of the MPI library above"
        )
    if output != "ranks: 2":
        remedy = "start with the mpirun that belongs to the MPI library above"
        return Finding("mpirun", "problem", f"{launcher} -n 2 starts ranks that never meet", remedy)
    return Finding("mpirun", "ok", f"{launcher}: two ranks met")


def _blas() -> Finding:
    from hpcrnn.records.environment import blas_facts

    libraries = blas_facts().get("libraries", [])
    named = [f"{b.get('internal_api')} {b.get('version')}, {b.get('num_threads')} thread(s)" for b in libraries]
    return Finding("BLAS", "ok", "; ".join(named) or "of NumPy, not known by name")


def _mkl() -> Finding:
    from hpcrnn.backends.numpy.mkl import MklProducts, load_mkl

    library = load_mkl()
    if library is None:
        text = "not installed: the recurrent product runs in NumPy's BLAS"
        return Finding("packed GEMM", "note", text, "pip install mkl")
    return Finding("packed GEMM", "ok", MklProducts(library, 1).name)


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("torch peer", "note", "not installed: --backend torch cannot run", "pip install torch")
    from importlib.metadata import version

    return Finding("torch peer", "ok", version("torch"))


def _gpus() -> Finding:
    from hpcrnn.records.environment import gpu_facts

    gpus = gpu_facts()
    if not gpus:
        return Finding("GPUs", "note", "none visible: --backend cupy cannot run")
    found = f"{len(gpus)} visible: {gpus[0].get('name')}"
    if importlib.util.find_spec("cupy") is None:
        return Finding("GPUs", "note", f"{found}; CuPy is not installed", "pip install 'cupy-cuda13x[ctk]'")
    return Finding("GPUs", "ok", found)


def _mpi_and_gpus() -> Finding:
    """Say whether MPI takes arrays on a GPU as they are."""
    from hpcrnn.records.environment import gpu_facts

    status, output = _try([sys.executable, "-c", _CUDA_PROGRAM])
    answer, _, how = output.partition(" ")
    aware = status == 0 and answer == "1"
    reason = how if status == 0 else f"MPI could not be asked: {output}"
    if aware:
        return Finding("MPI and GPU", "ok", f"CUDA-aware: {reason}")
    if not gpu_facts():
        return Finding("MPI and GPU", "ok", f"not CUDA-aware, which matters on GPUs only: {reason}")
    text = f"not CUDA-aware, arrays on a GPU go through pinned host memory: {reason}"
    return Finding("MPI and GPU", "note", text, "an MPI built with CUDA, and mpi4py with it: it takes them directly")


def _hdf5() -> Finding:
    from importlib.metadata import version

    return Finding("HDF5", "ok", f"h5py {version('h5py')}")


def _results() -> Finding:
    folder = Path("results")
    nearest = folder if folder.exists() else Path()
    if os.access(nearest, os.W_OK):
        return Finding("results", "ok", f"{folder.absolute()} can be written")
    return Finding("results", "problem", f"{folder.absolute()} cannot be written", "hpcrnn run --out DIR/NAME.h5")


def _slurm() -> Finding:
    if shutil.which("sinfo") is None:
        return Finding("Slurm", "note", "not here: use mpirun")
    status, output = _try(["sinfo", "--version"])
    return Finding("Slurm", "ok" if status == 0 else "note", output)


def _try(command: list[str]) -> tuple[int, str]:
    """Exit code and the last line of what a command said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {_TIMEOUT_S:.0f} s"
    except OSError as error:
        return 1, str(error)
    said = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    return done.returncode, said[-1].strip() if said else "it said nothing"
