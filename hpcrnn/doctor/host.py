"""Python, cores, memory, BLAS and files."""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import hpcrnn
from hpcrnn.doctor.finding import Finding
from hpcrnn.records.attempt import attempt
from hpcrnn.records.host import cpu_quota, host_facts, ranges

_LITTLE_BYTES = 2**30
"""A run of the defaults on one rank takes about half of it."""


def python() -> list[Finding]:
    """Name Python and the package."""
    text = f"{'.'.join(map(str, sys.version_info[:3]))}, hpcrnn {hpcrnn.__version__}, {sys.executable}"
    return [Finding("Python", "ok", text)]


def cores() -> list[Finding]:
    """Say which cores a rank may have, and whether that is what there is."""
    there = os.cpu_count() or 1
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(there))
    facts = host_facts()
    physical = facts.get("n_physical_cores")
    threads = f", {physical} of them physical" if isinstance(physical, int) and physical != len(mine) else ""
    text = f"{len(mine)} of {there} usable ({ranges(mine)}){threads}; more ranks than that share cores: for tests only"
    quota = attempt(cpu_quota)
    if isinstance(quota, float) and quota < len(mine):
        limited = f"{text}; a control group leaves the time of {quota:g} of them"
        return [Finding("cores", "note", limited, f"mpirun -n {max(1, int(quota))}, or a job with more CPUs")]
    if len(mine) == 1 < there:
        return [Finding("cores", "note", f"{text}; this process is bound to one", _more_cores())]
    return [Finding("cores", "ok", text)]


def memory() -> list[Finding]:
    """Say how much memory there is, and what limits it."""
    facts = host_facts()
    total, free = facts.get("memory_bytes"), facts.get("available_memory_bytes")
    if not isinstance(total, int) or not isinstance(free, int):
        return [Finding("memory", "ok", "the system does not say")]
    text = f"{free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB are free"
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        return [Finding("memory", "note", f"{text}; a process may have {limit / 2**30:.1f} GiB", "ulimit -v unlimited")]
    if free < _LITTLE_BYTES:
        return [Finding("memory", "note", text, "end other programs, or a smaller --batch, --seq, --hidden")]
    return [Finding("memory", "ok", text)]


def blas() -> list[Finding]:
    """Name what multiplies, and its threads."""
    from hpcrnn.records.environment import blas_facts

    libraries = blas_facts().get("libraries")
    pools = libraries if isinstance(libraries, list) else []
    named = [f"{b.get('internal_api')} {b.get('version')}, {b.get('num_threads')} thread(s)" for b in pools]
    return [Finding("BLAS", "ok", "; ".join(named) or "of NumPy, not known by name")]


def packed_products() -> list[Finding]:
    """Say whether the recurrent product has a packed matrix."""
    from hpcrnn.backends.numpy.mkl import MklProducts, load_mkl

    library = load_mkl()
    if library is None:
        text = "not installed: the recurrent product runs in NumPy's BLAS"
        return [Finding("packed GEMM", "note", text, "pip install mkl")]
    return [Finding("packed GEMM", "ok", MklProducts(library, 1).name)]


def torch_peer() -> list[Finding]:
    """Say whether the peer is there."""
    if importlib.util.find_spec("torch") is None:
        return [Finding("torch peer", "note", "not installed: --backend torch cannot run", "pip install torch")]
    return [Finding("torch peer", "ok", version("torch"))]


def hdf5() -> list[Finding]:
    """Say what result files are written with."""
    from hpcrnn.records.hdf5 import hdf5_version

    return [Finding("HDF5", "ok", f"{hdf5_version()}, h5py {version('h5py')}")]


def results() -> list[Finding]:
    """Say whether results can be written where they go by default."""
    folder = Path("results")
    nearest = folder if folder.exists() else Path()
    if os.access(nearest, os.W_OK):
        return [Finding("results", "ok", f"{folder.absolute()} can be written")]
    return [Finding("results", "problem", f"{folder.absolute()} cannot be written", "hpcrnn run --out DIR/NAME.h5")]


def _more_cores() -> str:
    if "SLURM_JOB_ID" in os.environ:
        return "srun --cpus-per-task=N --cpu-bind=cores, or sbatch --cpus-per-task=N"
    return f"taskset -cp 0-{(os.cpu_count() or 1) - 1} $$, in the shell that starts the ranks"
