"""What started the ranks: ``mpirun -n 2 hpcrnn run ...`` is more than the program sees of its own command line.

On Linux the launcher is looked for among the ancestors of a process. Where rank 0 runs on another node than the
launcher, or under a daemon as Slurm's, there is none; variables that launchers set then say which kind it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from hpcrnn.records.attempt import UNKNOWN, attempt, text_of
from hpcrnn.records.host import ROOT
from hpcrnn.records.variables import looks_secret, may_be_shown

KINDS = {
    "mpirun": "mpirun",
    "mpiexec": "mpirun",
    "mpiexec.hydra": "mpirun",
    "mpiexec.gforker": "mpirun",
    "mpiexec.mpich": "mpirun",
    "mpirun.mpich": "mpirun",
    "mpiexec.openmpi": "mpirun",
    "mpirun.openmpi": "mpirun",
    "mpirun_rsh": "mpirun",
    "orterun": "mpirun",
    "prterun": "mpirun",
    "prun": "mpirun",
    "srun": "srun",
    "jsrun": "jsrun",
    "aprun": "aprun",
}
"""Names of launching programs, and what they are called in a record."""

MARKS = {
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "MPI_LOCALNRANKS": "mpirun",
    "JSM_NAMESPACE_SIZE": "jsrun",
    "ALPS_APP_ID": "aprun",
    "SLURM_STEP_ID": "srun",
}
"""Variables by which a rank knows its launcher; an ``mpirun`` that was started by Slurm comes before Slurm itself."""

MASK = "***"

MAX_ANCESTORS = 64
_INTERPRETER = re.compile(r"(python|perl|(ba|da|k|z)?sh)[0-9.]*$")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPLIT = ("-env", "--env", "-genv", "--genv")
"""Options of which name and value may be two words."""
_LISTS = ("-hosts", "--hosts")
_HYDRA = (
    "-n",
    "-np",
    "-ppn",
    "-iface",
    "-launcher",
    "-launcher-exec",
    "-bind-to",
    "-map-by",
    "-genv",
    "-genvall",
    "-rmk",
)
"""Options of MPICH's launcher: a list of hosts, and what may follow one."""
_ONE_WORD = ("-x", "-E", "-e", "-envlist", "-genvlist", "--export")
"""Options followed by a word that may hold assignments, several with commas between."""


@dataclass(frozen=True)
class Launcher:
    """A launching process.

    Attributes
    ----------
    kind : str
        A value of :data:`KINDS`.
    pid : int
    argv : tuple of str
        Its command line as it is, secrets and all.
    """

    kind: str
    pid: int
    argv: tuple[str, ...]


def launcher_facts(
    n_ranks: int, root: Path = ROOT, pid: int | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Say what started the ranks; to be asked on rank 0.

    Parameters
    ----------
    n_ranks : int
    root : Path
        Of the file system, so that a test can hand over another machine's ``/proc``.
    pid : int, optional
        The process whose ancestors are looked at; by default this one.
    variables : mapping, optional
        By default those of this process.

    Returns
    -------
    dict
        ``kind`` is ``mpirun``, ``srun``, ``jsrun``, ``aprun``, ``none`` or ``unknown``; ``command`` the words of the
        launcher's command line, secrets masked, or ``unknown``, or None where there is no launcher; ``found`` by what
        it was told: ``process``, ``variables`` or ``nothing``; ``n_ranks``; ``slurm``, the ids of job and step, where
        there are.
    """
    variables = os.environ if variables is None else variables
    launcher = find_launcher(root, pid)
    facts: dict[str, Any]
    if launcher is not None:
        facts = {"kind": launcher.kind, "command": masked(launcher.argv), "found": "process"}
    elif kind := next((kind for name, kind in MARKS.items() if name in variables), ""):
        facts = {"kind": kind, "command": UNKNOWN, "found": "variables"}
    elif n_ranks > 1 or "PMI_RANK" in variables or "PMIX_RANK" in variables:
        facts = {"kind": UNKNOWN, "command": UNKNOWN, "found": "nothing"}
    else:
        facts = {"kind": "none", "command": None, "found": "nothing"}
    ids = {"job_id": variables.get("SLURM_JOB_ID"), "step_id": variables.get("SLURM_STEP_ID")}
    slurm = {name: text for name, text in ids.items() if text}
    return facts | {"n_ranks": n_ranks} | ({"slurm": slurm} if slurm else {})


def find_launcher(root: Path = ROOT, pid: int | None = None) -> Launcher | None:
    """Return the nearest ancestor of a process that is a launcher; None where none is seen."""
    for ancestor in ancestors(root, os.getpid() if pid is None else pid):
        argv = attempt(partial(_argv, root, ancestor))
        if argv == UNKNOWN:
            continue
        # A launcher that is a script is the second word of its interpreter's command line.
        words = argv[1:] if _INTERPRETER.match(PurePath(argv[0]).name) else argv
        if words and (kind := KINDS.get(PurePath(words[0]).name)):
            return Launcher(kind, ancestor, words)
    return None


def masked(argv: Sequence[str]) -> list[str]:
    """Replace the values of environment variables in a launcher's command line, but for those that a record may show.

    Masked are ``-env NAME VALUE``, ``-x NAME=VALUE``, ``--export=NAME=VALUE,...`` and their like, ``NAME=VALUE`` as a
    word of its own, as of ``env``, and words that look as if they held a secret.
    """
    words: list[str] = []
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        option, equals, rest = word.partition("=")
        if word in _SPLIT and queue and "=" not in queue[0] and _NAME.fullmatch(queue[0]):
            name = queue.pop(0)
            words += [word, name, *([_masked_value(name, queue.pop(0))] if queue else [])]
        elif word in (*_SPLIT, *_ONE_WORD) and queue and not queue[0].startswith("-"):
            words += [word, _masked_assignments(queue.pop(0))]
        elif option in (*_SPLIT, *_ONE_WORD):
            words.append(f"{option}{equals}{_masked_assignments(rest)}")
        elif equals and _NAME.fullmatch(option) and option == option.upper():
            words.append(_masked_assignments(word))
        else:
            words.append(MASK if looks_secret(word) else word)
    return words


def _masked_assignments(text: str) -> str:
    """Mask ``A=1,B=2``; what follows a comma and assigns nothing is a part of the value before it, or a name."""
    parts: list[str] = []
    in_secret = False
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals and _NAME.fullmatch(name):
            shown = _masked_value(name, value)
            in_secret = shown == MASK
            parts.append(f"{name}={shown}")
        elif in_secret:
            continue
        else:
            parts.append(MASK if looks_secret(part) else part)
    return ",".join(parts)


def _masked_value(name: str, value: str) -> str:
    return value if may_be_shown(name, value) else MASK


def ancestors(root: Path, pid: int) -> Iterator[int]:
    """Yield the processes above one, the parent first, as far as the system tells."""
    for _ in range(MAX_ANCESTORS):
        found = attempt(partial(_parent, root, pid))
        if found == UNKNOWN or found < 1:
            return
        pid = found
        yield pid


def _parent(root: Path, pid: int) -> int:
    # The name before it is in parentheses, and may hold anything, parentheses too.
    return int(text_of(root / "proc" / str(pid) / "stat").rpartition(")")[2].split()[1])


def _argv(root: Path, pid: int) -> tuple[str, ...]:
    content = (root / "proc" / str(pid) / "cmdline").read_bytes()
    return tuple(_rejoined(os.fsdecode(word) for word in content.removesuffix(b"\0").split(b"\0")))


def _rejoined(words: Iterable[str]) -> Iterator[str]:
    """Put lists together again: MPICH's launcher cuts ``-hosts a,b`` at the comma, in its own command line.

    Only where another option of its own follows: what else follows may be the program.
    """
    words = list(words)
    while words:
        word = words.pop(0)
        yield word
        n_items = next((k for k, other in enumerate(words) if other.startswith("-")), 0) if word in _LISTS else 0
        if n_items > 1 and words[n_items] in _HYDRA:
            yield ",".join(words[:n_items])
            del words[:n_items]
