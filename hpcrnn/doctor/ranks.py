"""The MPI library, and what ``mpirun`` and ``srun`` make of two ranks: tried for real, for no variable says it.

Ranks that never meet are the largest trap there is: each runs alone, nothing fails, and the numbers are wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from hpcrnn.doctor.asking import Answer, ask
from hpcrnn.doctor.finding import Finding
from hpcrnn.records.mpi_library import MpiLibrary

_RANKS_PROGRAM = "from mpi4py import MPI; c = MPI.COMM_WORLD; n = c.allreduce(1); c.rank or print('ranks:', n)"
_LIBRARY_PROGRAM = """
import json, mpi4py
mpi4py.rc.initialize = False
from hpcrnn.execution.start import mpi_library
from hpcrnn.records.environment import mpi_origin
found = mpi_library()
print(json.dumps([found.version, str(found.path or ""), found.has_pmix, mpi_origin(), mpi4py.__version__]))
"""

_OF_A_LAUNCHER = ("PMI_", "PMIX_", "PRTE_", "OMPI_COMM_", "OMPI_UNIVERSE", "MPI_LOCAL", "HYDRA_", "HYDI_")
"""Variables that a launcher set for this very process: what it starts would take itself for one of its ranks."""

_SETTINGS = ("MPI4PY_LIBMPI", "MPI4PY_MPIABI")

_KNOWN_TROUBLE = (
    ("allow-run-as-root", "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or not as root"),
    ("enough slots", "mpirun --oversubscribe for a test; a job with more tasks for timings"),
    ("no answer within", "{0} -n 2 hostname: if that hangs too, hosts cannot reach one another (names, firewall, ssh)"),
)
"""What launchers say, and what helps."""


def ranks() -> list[Finding]:
    """Look at the library, then at each launcher with it."""
    library, finding = _library()
    if library is None:
        return [finding]
    mpirun = _mpirun(library)
    return [finding, *mpirun, *_srun(library, mpirun_works=any(f.level == "ok" for f in mpirun))]


def outside() -> dict[str, str]:
    """Return the environment without what tells this process that it is a rank itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_A_LAUNCHER)}


def _library() -> tuple[MpiLibrary | None, Finding]:
    """Load the library in a process of its own: one that is broken may end it."""
    answer = ask([sys.executable, "-c", _LIBRARY_PROGRAM], variables=outside())
    try:
        version, path, has_pmix, origin, mpi4py = json.loads(answer.last_line)
    except ValueError:
        text = f"cannot be loaded: {answer.last_line}"
        return None, Finding("MPI library", "problem", text, "pip install mpich, or load the site's MPI module")
    library = MpiLibrary(version, Path(path) if path else None, has_pmix)
    chosen = "".join(f"; {name}={os.environ[name]}" for name in _SETTINGS if name in os.environ)
    text = f"{library.name} ({origin}), found by mpi4py {mpi4py}: {path or 'no file is named'}{chosen}"
    return library, Finding("MPI library", "ok", text)


def _mpirun(library: MpiLibrary) -> list[Finding]:
    """Try the ``mpirun`` of this environment, and the one that the plain word means where that is another."""
    beside, on_path = Path(sys.executable).parent / "mpirun", shutil.which("mpirun")
    programs = [str(beside)] if os.access(beside, os.X_OK) else []
    if on_path and on_path not in programs:
        programs.append(on_path)
    if not programs:
        if shutil.which("srun"):
            return [Finding("mpirun", "note", "not found: srun has to start the ranks")]
        return [Finding("mpirun", "problem", "not found", "pip install mpich, or load the site's MPI module")]
    if "SLURM_STEP_ID" in os.environ:  # where it would wait for the cores that this very process has
        return [Finding("mpirun", "note", "not tried within a step of srun", "salloc -n 2 hpcrnn doctor, without srun")]
    topics = ("mpirun", "mpirun on PATH")
    return [_try_mpirun(topic, program, library) for topic, program in zip(topics, programs, strict=False)]


def _try_mpirun(topic: str, program: str, library: MpiLibrary) -> Finding:
    answer = ask([program, "-n", "2", sys.executable, "-c", _RANKS_PROGRAM], variables=outside())
    met = _met(answer)
    if met == 2:
        return Finding(topic, "ok", f"{program}: two ranks met")
    own = library.mpirun
    another = own is not None and own.resolve() != Path(program).resolve()
    mend = f"{own} -n 2 hpcrnn run ..." if another else f"the mpirun that belongs to {library.name}"
    if met:
        text = f"{program} -n 2 starts ranks that never meet: it is not of {library.name}"
    else:
        text = f"{program} -n 2 failed: {answer.last_line}"
        said = answer.out + answer.err
        mend = next((remedy.format(program) for words, remedy in _KNOWN_TROUBLE if words in said), mend)
    return Finding(topic, "problem", text, mend)


def _srun(library: MpiLibrary, *, mpirun_works: bool) -> list[Finding]:
    """Try ``srun``, within an allocation only: outside it would queue a job, and charge somebody for it."""
    if shutil.which("srun") is None:
        return []
    listed = ask(["srun", "--mpi=list"])
    if listed.code != 0:
        if shutil.which("sinfo"):  # which says the same
            return []
        return [Finding("srun", "note", f"does not list its plugins: {listed.last_line}", not_set_up(listed))]
    plugins = _plugins(listed)
    fits = next((name for name in plugins if name.startswith(library.plugin)), None)
    by_mpirun = "mpirun inside the job" if mpirun_works else f"an MPI built for one of {', '.join(plugins)}"
    if "SLURM_JOB_ID" not in os.environ:
        return [_srun_untried(library, plugins, fits, by_mpirun)]
    return [_srun_tried(library, plugins, fits, Finding("srun", "note" if mpirun_works else "problem", "", by_mpirun))]


def _srun_untried(library: MpiLibrary, plugins: list[str], fits: str | None, by_mpirun: str) -> Finding:
    offered = f"plugins {', '.join(plugins) or 'none'}"
    if fits is None:
        text = f"{offered}: none for {library.name}, which wants {library.plugin}"
        return Finding("srun", "note", text, by_mpirun)
    untried = "not tried, for there is no allocation here: salloc -n 2 hpcrnn doctor does"
    return Finding("srun", "ok", f"{offered}; {library.name} wants --mpi={fits}; {untried}")


def _srun_tried(library: MpiLibrary, plugins: list[str], fits: str | None, otherwise: Finding) -> Finding:
    offered = f"plugins {', '.join(plugins) or 'none'}"
    default = _try_srun()
    if _met(default) == 2:
        return Finding("srun", "ok", f"two ranks met; {offered}")
    wrong = "starts ranks that never meet" if _met(default) else f"failed: {default.last_line}"
    if fits and _met(_try_srun(f"--mpi={fits}")) == 2:
        text = f"without --mpi it {wrong}; two ranks met by --mpi={fits}"
        return Finding("srun", "note", text, f"srun --mpi={fits}, or export SLURM_MPI_TYPE={fits}")
    text = f"{wrong if fits is None else f'{wrong}, by --mpi={fits} too'}; {offered}, and {library.name}"
    return replace(otherwise, text=text)


def not_set_up(answer: Answer) -> str:
    """Return what helps where a command of Slurm's fails."""
    if "configuration source" in answer.err:
        return "export SLURM_CONF=/path/to/slurm.conf, on a host that belongs to the cluster"
    return "scontrol ping"


def _try_srun(*flags: str) -> Answer:
    # Beside what runs in the job already, and where the job has one task or one core.
    command = ["srun", "--overlap", "--overcommit", "--ntasks=2", *flags, sys.executable, "-c", _RANKS_PROGRAM]
    return ask(command, variables=outside())


def _plugins(listed: Answer) -> list[str]:
    """Read ``srun --mpi=list``, which has a word a line below a heading, and other lines after them."""
    words = [line.strip() for line in (listed.out + listed.err).splitlines()]
    return [word for word in words if word and " " not in word and word != "none"]


def _met(answer: Answer) -> int:
    """How many ranks met, by what the first of each world says; 0 where none said anything."""
    said = [line for line in answer.out.splitlines() if line.startswith("ranks: ")]
    if answer.code != 0 or not said:
        return 0
    return int(said[0].removeprefix("ranks: ")) if len(said) == 1 else 1
