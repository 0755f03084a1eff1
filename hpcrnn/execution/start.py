"""MPI, loaded and started: where it is known that starting would end the process, that is said instead."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from hpcrnn.errors import LaunchError
from hpcrnn.records.attempt import attempt, text_of
from hpcrnn.records.claim import Claim, claim_of
from hpcrnn.records.mpi_library import MpiLibrary, how_to_start, loaded_library


def start_mpi() -> None:
    """Load the MPI library and start it, as importing ``mpi4py.MPI`` does; to be called before that is imported.

    Raises
    ------
    LaunchError
        The launcher and the library have no language in common, and the library would end the process.
    ImportError, RuntimeError
        No library can be loaded.
    """
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = True  # by default as the line above
    with warnings.catch_warnings():
        # Told by each of N ranks, on three lines, right or wrong; ours comes once, when it is known.
        warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)
        from mpi4py import MPI

        if MPI.Is_initialized():  # a program of its own, or python -m mpi4py
            return
        problem = no_common_language(mpi_library(), claim_of(), os.environ)
        if problem:
            raise LaunchError(problem, told=is_first(claim_of()))
        MPI.Init_thread(MPI.THREAD_MULTIPLE)


def mpi_library() -> MpiLibrary:
    """Describe the MPI library of this process; it need not be started."""
    from mpi4py import MPI

    maps = attempt(lambda: text_of(Path("/proc/self/maps")))
    return loaded_library(MPI.Get_library_version(), str(maps))


def is_first(claim: Claim | None) -> bool:
    """Whether this is the one process to speak of several that do not know of one another."""
    return claim is None or claim.rank == 0


def no_common_language(library: MpiLibrary, claim: Claim | None, variables: Mapping[str, str]) -> str:
    """Say what is wrong where the launcher speaks PMIx alone and the library does not; empty where it may work.

    MPICH then ends the process from within, with five lines on each rank of which none says what to do.

    Parameters
    ----------
    library : MpiLibrary
    claim : Claim or None
    variables : mapping
        The environment.
    """
    speaks_pmi = any(name in variables for name in ("PMI_FD", "PMI_PORT"))
    if "PMIX_NAMESPACE" not in variables or speaks_pmi or library.kind != "mpich" or library.speaks_pmix:
        return ""
    launcher = claim.launcher if claim else "the launcher"
    start = how_to_start(
        library, claim.size if claim else 1, variables, under_slurm=claim is not None and claim.family == "srun"
    )
    return f"{launcher} speaks PMIx alone, and mpi4py has loaded {library.name}, which does not; start with: {start}"
