"""What one rank sees of the launch: where it runs, on which cores, with what software."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import hpcrnn
from hpcrnn.execution.start import mpi_library
from hpcrnn.records.attempt import UNKNOWN, attempt, text_of
from hpcrnn.records.claim import claim_of
from hpcrnn.records.environment import blas_facts

if TYPE_CHECKING:
    from hpcrnn.execution.world import World

COMPARED_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_DYNAMIC",
    "OMP_PROC_BIND",
    "OPENBLAS_CORETYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
)
"""They change what a rank computes with; OMP_PLACES and its like rightly differ from rank to rank."""

_SOURCES = (".py", ".cu", ".cuh")


@dataclass(frozen=True)
class RankFacts:
    """What one rank sees of the launch.

    Attributes
    ----------
    machine : str
        The same text on all ranks of one running kernel, whatever name the host goes by.
    host : str
        As MPI's launcher calls it, or the system.
    node : int
        The first rank that MPI takes to be on the same node.
    cpus, launcher_cpus : frozenset of int
        Those this rank may run on, and its parent process; empty where the system does not say.
    job : tuple of (str, str)
        The Slurm job and its nodes; empty where not known, or of a heterogeneous job, whose parts rightly differ.
    identity : str
        Digest of :func:`identity`.
    """

    machine: str
    host: str
    node: int
    cpus: frozenset[int]
    launcher_cpus: frozenset[int]
    job: tuple[str, str]
    identity: str


def rank_facts(world: World, mine: Mapping[str, str]) -> RankFacts:
    """Look at this rank's side of the launch.

    Parameters
    ----------
    world : World
    mine : mapping
        Its :func:`identity`.
    """
    variables = os.environ
    apart = "SLURM_HET_SIZE" in variables
    job = ("", "") if apart else (variables.get("SLURM_JOB_ID", ""), variables.get("SLURM_JOB_NODELIST", ""))
    boot = attempt(lambda: text_of(Path("/proc/sys/kernel/random/boot_id")))
    return RankFacts(
        machine=host_name() if boot == UNKNOWN else str(boot),
        host=host_name(),
        node=world.node.bcast(world.rank),
        cpus=_cpus(0),
        launcher_cpus=_cpus(os.getppid()),
        job=job,
        identity=hashlib.sha256(repr(sorted(mine.items())).encode()).hexdigest(),
    )


def host_name() -> str:
    """Name the host as the launcher does, where it does: a list of hosts may hold other names than the system's."""
    claim = claim_of()
    by_slurm = os.environ.get("SLURMD_NODENAME") if claim and claim.family == "srun" else None
    return os.environ.get("PMI_HOSTNAME") or by_slurm or socket.gethostname()


def identity(code: str) -> dict[str, str]:
    """Name the software a rank runs, and the settings that change what it does.

    Parameters
    ----------
    code : str
        Digest of the sources.
    """
    libraries = blas_facts().get("libraries")
    pools = libraries if isinstance(libraries, list) else []
    blas = [f"{p.get('internal_api')} {p.get('version')}" for p in pools if p.get("user_api") == "blas"]
    versions = {name: str(attempt(lambda name=name: metadata.version(name))) for name in ("numpy", "mpi4py")}  # type: ignore[misc]
    return (
        {"hpcrnn": hpcrnn.__version__, "code": code, "Python": platform.python_version()}
        | versions
        | {"BLAS": ", ".join(sorted(blas)), "MPI": mpi_library().name}
        | {name: os.environ.get(name, "unset") for name in COMPARED_VARIABLES}
    )


def code_of_ranks(world: World) -> str:
    """Return the digest of the sources this rank runs; of ranks of a node with the same folder one reads them."""
    folder = str(Path(hpcrnn.__file__).parent)
    folders = world.node.allgather(folder)
    reader = folders.index(folder)
    digests = world.node.allgather(code_digest(Path(folder)) if reader == world.node.Get_rank() else "")
    return str(digests[reader])


@cache
def code_digest(folder: Path) -> str:
    """Return a digest of the sources in a folder: names and contents; short, for people compare it."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SOURCES):
        content = path.read_bytes()
        found.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return found.hexdigest()[:12]


def _cpus(pid: int) -> frozenset[int]:
    get = getattr(os, "sched_getaffinity", None)
    found = attempt(lambda: frozenset(get(pid))) if get else UNKNOWN
    return found if isinstance(found, frozenset) else frozenset()
