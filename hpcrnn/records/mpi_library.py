"""Which MPI library a process has loaded, and what starts its ranks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["mpich", "openmpi", "other"]

_KINDS: tuple[tuple[str, Kind], ...] = (
    ("open mpi", "openmpi"),
    ("spectrum mpi", "openmpi"),
    ("mpich", "mpich"),
    ("intel(r) mpi", "mpich"),
    ("mvapich", "mpich"),
    ("parastation", "mpich"),
)


@dataclass(frozen=True)
class MpiLibrary:
    """An MPI library.

    Attributes
    ----------
    version : str
        All that ``MPI_Get_library_version`` says; MPICH's tells how it was built.
    path : Path or None
        The file that is loaded; None where the system does not say.
    has_pmix : bool
        Whether a PMIx library is loaded with it.
    """

    version: str
    path: Path | None = None
    has_pmix: bool = False

    @property
    def name(self) -> str:
        """Its first line, short: ``MPICH 5.0.2``, ``Open MPI v5.0.11``."""
        line = " ".join(self.version.strip("\0 \n").partition("\n")[0].replace("Version:", "").split())
        return line.partition(",")[0]

    @property
    def kind(self) -> Kind:
        """Whose conventions it follows."""
        line = self.version.partition("\n")[0].lower()
        return next((kind for word, kind in _KINDS if word in line), "other")

    @property
    def speaks_pmix(self) -> bool:
        """Whether its ranks can meet by PMIx: Open MPI's do so and by nothing else, MPICH's where it was built so."""
        return self.kind == "openmpi" or self.has_pmix or "pmix" in self.version.lower()

    @property
    def plugin(self) -> str:
        """The word after ``srun --mpi=`` by which its ranks meet."""
        if "cray" in self.version.partition("\n")[0].lower():
            return "cray_shasta"
        return "pmix" if self.speaks_pmix else "pmi2"

    @property
    def mpirun(self) -> Path | None:
        """The ``mpirun`` that lies beside the library, as every installation has it; None where there is none."""
        if self.path is None:
            return None
        # As in <prefix>/lib/libmpi.so, <prefix>/lib64/..., <prefix>/lib/x86_64-linux-gnu/..., <prefix>/lib/release/...
        beside = [folder / "bin" / "mpirun" for folder in list(self.path.parents)[1:4]]
        if self.kind in ("mpich", "openmpi"):  # where several are installed, the plain name is one of them
            beside = [path.with_name(f"mpirun.{self.kind}") for path in beside] + beside
        return next((path for path in beside if os.access(path, os.X_OK)), None)


def loaded_library(version: str, maps: str) -> MpiLibrary:
    """Describe the library of a process.

    Parameters
    ----------
    version : str
        What ``MPI_Get_library_version`` says.
    maps : str
        The process's ``/proc/self/maps``; empty where there is none.
    """
    libraries = re.findall(r"(/\S*/libmpi(?:ch|_cray|_ibm)?\.so[\w.]*)$", maps, re.MULTILINE)
    path = Path(libraries[0]) if libraries else None
    return MpiLibrary(version, path, has_pmix=re.search(r"/libpmix\.so", maps) is not None)


def how_to_start(library: MpiLibrary, n_ranks: int, variables: Mapping[str, str], *, under_slurm: bool) -> str:
    """Write the line that starts ranks which meet.

    Parameters
    ----------
    library : MpiLibrary
    n_ranks : int
    variables : mapping
        The environment, for the plugin of ``srun`` that was used.
    under_slurm : bool
        Whether ``srun`` is what was tried.
    """
    own = library.mpirun
    by_mpirun = f"{own or 'the mpirun of ' + library.name} -n {n_ranks} hpcrnn run ..."
    if under_slurm and variables.get("SLURM_MPI_TYPE") != library.plugin:
        return f"srun --mpi={library.plugin} -n {n_ranks} hpcrnn run ..., or {by_mpirun}"
    return by_mpirun
