"""Whether MPI takes pointers to a GPU's memory: asked of the library that is loaded, never of a second one.

A library that does not take them ends the process at the first message, so a yes must be sure; where it is not, arrays
are staged through the host, which always works.  No standard call asks it, and each library has its own way:

===========================  =======================================================================================
library                      asked
===========================  =======================================================================================
MPICH                        ``MPIX_GPU_query_support``.  It has ``MPIX_Query_cuda_support`` too, which up to 3.4 may
                             end the process: its assertion is the wrong way round (pmodels/mpich#5716)
Open MPI, ParaStation, ...   ``MPIX_Query_cuda_support``; of Open MPI before 4.1 it told only what was built
                             (open-mpi/ompi#7963)
MVAPICH                      ``MPIX_Query_cuda_support``, which tells what was built, and the variable that turns it on
Cray MPICH                   its variable, and whether its transfer library for CUDA is loaded
Intel MPI                    its variables, from 2021.13 on: before, they meant Intel's GPUs alone
===========================  =======================================================================================
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mpi4py import MPI

from hpcrnn.errors import LaunchError
from hpcrnn.records.attempt import attempt, text_of
from hpcrnn.spec import TransportName

Lookup = Callable[[str], Callable[..., int] | None]
"""From the name of a C function to it; None where the MPI library has none of that name."""

_GPU_SUPPORT_CUDA = 0
"""``MPIX_GPU_SUPPORT_CUDA`` of MPICH's ``mpi.h``."""

_ON = ("1", "on", "yes", "true", "enable")


@dataclass(frozen=True)
class CudaAwareness:
    """Whether MPI takes device pointers.

    Attributes
    ----------
    aware : bool
    how : str
        What was asked, and what the answer was; one line.
    """

    aware: bool
    how: str


@dataclass(frozen=True)
class Loaded:
    """The MPI library of a process, as far as one may ask it.

    Attributes
    ----------
    version : str
        What ``MPI_Get_library_version`` says.
    lookup : Lookup
    variables : mapping
        The environment.
    maps : str
        What the process has loaded, as ``/proc/self/maps`` has it.
    """

    version: str
    lookup: Lookup
    variables: Mapping[str, str]
    maps: str


def cuda_awareness(communicator: MPI.Intracomm) -> CudaAwareness:
    """Say whether MPI takes device pointers on all ranks; every rank calls this and has the same answer."""
    return agreed(communicator.allgather(probe()))


def agreed(answers: list[CudaAwareness]) -> CudaAwareness:
    """Return the answer that counts, of those of all ranks: the first no."""
    refusing = [rank for rank, answer in enumerate(answers) if not answer.aware]
    if not refusing:
        return answers[0]
    first = answers[refusing[0]]
    return first if len(refusing) == len(answers) else replace(first, how=f"rank {refusing[0]}: {first.how}")


def probe(loaded: Loaded | None = None) -> CudaAwareness:
    """Ask the MPI library of this process; what cannot be found out is a no.

    Parameters
    ----------
    loaded : Loaded, optional
        By default what mpi4py has loaded.
    """
    if loaded is None and (MPI.Is_finalized() or not MPI.Is_initialized()):
        return CudaAwareness(aware=False, how="MPI is not running")  # and would end the process if it were asked
    try:
        return _ask(loaded or _loaded())
    except Exception as error:  # noqa: BLE001 - staged is right too; a question must not end a run
        return CudaAwareness(aware=False, how=f"MPI could not be asked: {type(error).__name__}")


def settled(transport: TransportName, mpi: CudaAwareness) -> TransportName:
    """Return what ``machine.transport`` comes to on several ranks: ``direct`` or ``staged``.

    Raises
    ------
    LaunchError
        ``direct`` is asked for and MPI takes no device pointers.
    """
    if transport == "direct" and not mpi.aware:
        raise LaunchError(
            f"machine.transport = direct: allowed is staged or auto: MPI takes no pointers to a GPU's memory: {mpi.how}"
        )
    if transport == "auto":
        return "direct" if mpi.aware else "staged"
    return transport


def _loaded() -> Loaded:
    maps = attempt(lambda: text_of(Path("/proc/self/maps")))
    return Loaded(MPI.Get_library_version(), _look_up, os.environ, str(maps))


def _look_up(name: str) -> Callable[..., int] | None:
    """Find a function among the libraries that mpi4py's own was linked with; nothing is loaded for it."""
    # The process's own names would not do: mpi4py's library and what it needs are loaded for themselves (RTLD_LOCAL).
    library = ctypes.CDLL(MPI.__file__, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    return getattr(library, name, None)


def _ask(loaded: Loaded) -> CudaAwareness:
    # Further lines hold compilers and paths, which may bear any name.
    version = " ".join(loaded.version.strip().partition("\n")[0].lower().split())
    if "cray mpich" in version:
        return _ask_cray(loaded)
    if "intel(r) mpi" in version:
        return _ask_intel(loaded, version)
    if "mvapich" in version:
        on = _switch(loaded, "MV2_USE_CUDA", "MVP_USE_CUDA")
        return _ask_cuda(loaded) if on.aware else on
    if "parastation" not in loaded.version.lower() and loaded.lookup("MPIX_GPU_query_support"):
        return _ask_gpu(loaded)
    open_mpi = re.search(r"open mpi v(\d+)\.(\d+)", version)
    if open_mpi and (int(open_mpi[1]), int(open_mpi[2])) < (4, 1):
        return CudaAwareness(aware=False, how="Open MPI before 4.1 does not say whether it is on")
    return _ask_cuda(loaded)


def _ask_gpu(loaded: Loaded) -> CudaAwareness:
    query, flag = loaded.lookup("MPIX_GPU_query_support"), ctypes.c_int(0)
    # What it returns is an error code; 0 is success.
    aware = query is not None and query(_GPU_SUPPORT_CUDA, ctypes.byref(flag)) == 0 and flag.value == 1
    return CudaAwareness(aware, f"MPIX_GPU_query_support(CUDA) says {_spoken(aware)}")


def _ask_cuda(loaded: Loaded) -> CudaAwareness:
    query = loaded.lookup("MPIX_Query_cuda_support")
    if query is None:
        return CudaAwareness(aware=False, how="the library has no MPIX_Query_cuda_support")
    aware = query() == 1
    return CudaAwareness(aware, f"MPIX_Query_cuda_support says {_spoken(aware)}")


def _ask_cray(loaded: Loaded) -> CudaAwareness:
    on = _switch(loaded, "MPICH_GPU_SUPPORT_ENABLED")
    if not on.aware or "libmpi_gtl_cuda" in loaded.maps:
        return on
    return CudaAwareness(aware=False, how=f"{on.how}, but libmpi_gtl_cuda is not loaded")


def _ask_intel(loaded: Loaded, version: str) -> CudaAwareness:
    release = re.search(r"(\d{4})\.(\d+)", version)
    if release is None or (int(release[1]), int(release[2])) < (2021, 13):
        return CudaAwareness(aware=False, how="Intel MPI before 2021.13 takes no pointers of CUDA")
    mode = loaded.variables.get("I_MPI_OFFLOAD_MODE", "auto").lower()
    if mode not in ("auto", "cuda"):
        return CudaAwareness(aware=False, how=f"I_MPI_OFFLOAD_MODE is {mode}")
    return _switch(loaded, "I_MPI_OFFLOAD")


def _switch(loaded: Loaded, *names: str) -> CudaAwareness:
    """Say whether one of these environment variables turns it on."""
    found = next((name for name in names if loaded.variables.get(name, "").lower() in _ON), None)
    return CudaAwareness(found is not None, f"{found} is on" if found else f"{' or '.join(names)} is not 1")


def _spoken(answer: bool) -> str:
    return "yes" if answer else "no"
