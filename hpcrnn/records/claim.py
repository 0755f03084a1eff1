"""What a launcher told a process: that it is number so of so many. MPI may see something else.

Each launcher speaks by variables of its own. They are inherited, so the one that started a process last must be asked
first: below an ``mpirun`` inside a Slurm job lies an ``srun`` that started its proxies, and whose variables mean these.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["mpich", "openmpi", "srun", "other"]
"""Of a launcher: an ``mpirun`` of MPICH's kind (Intel MPI, MVAPICH), of Open MPI's, Slurm's own, or any other."""


@dataclass(frozen=True)
class Claim:
    """What a process was told.

    Attributes
    ----------
    family : Family
    launcher : str
        In words.
    size, rank : int
        How many it started, and which of them this is.
    """

    family: Family
    launcher: str
    size: int
    rank: int


_SOURCES: tuple[tuple[str, str, Family, str], ...] = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "openmpi", "Open MPI's mpirun"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "mpich", "MVAPICH's mpirun"),
    ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", "other", "jsrun"),
    ("PMI_SIZE", "PMI_RANK", "mpich", "an mpirun of MPICH's kind"),
    ("FLUX_JOB_SIZE", "FLUX_TASK_RANK", "other", "flux run"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun", "srun"),
)
"""Variables of size and rank, in the order in which they are asked."""


def claim_of(variables: Mapping[str, str] | None = None) -> Claim | None:
    """Return what this process was told; None where nobody said anything.

    Parameters
    ----------
    variables : mapping, optional
        By default those of this process.
    """
    variables = os.environ if variables is None else variables
    for size_name, rank_name, family, launcher in _SOURCES:
        size, rank = _number(variables, size_name), _number(variables, rank_name)
        if size is None or rank is None or not 0 <= rank < size:
            continue
        if family == "srun" and not _is_a_task_of_a_step(variables):
            continue
        if size_name == "PMI_SIZE" and "MPI_LOCALNRANKS" not in variables and _is_a_task_of_a_step(variables):
            return Claim("srun", "srun", size, rank)  # by --mpi=pmi2; MPICH's mpirun says one thing more
        return Claim(family, launcher, size, rank)
    return None


def _is_a_task_of_a_step(variables: Mapping[str, str]) -> bool:
    """Whether ``srun`` started it: not so a batch script, nor what the user starts in a shell of ``srun --pty``."""
    return "SLURM_STEP_ID" in variables and "SLURM_PTY_PORT" not in variables


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
