"""What is special about a machine: its accounts and partitions, its nodes, how ranks are started there.

One ``site.toml`` serves every sweep; ``jobs/site.toml`` is one with comments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hpcrnn.errors import SpecError
from hpcrnn.spec import Size, convert, read_toml

# What goes into a line of ``#SBATCH``: nothing that ends the line, begins a word of its own, or quotes. Ends are
# written \Z, for $ also matches before the end of a line.
_PLAIN = r"A-Za-z0-9_.,:%+@=/"
_FEATURES = _PLAIN + r"&|*()\[\]"
Word = Annotated[
    str,
    Meta(
        pattern=rf"^[{_PLAIN}-]{{1,200}}\Z",
        description="a text without blanks and quotes, of letters, digits and _.,:%+@=/-",
    ),
]
Constraint = Annotated[
    str,
    Meta(
        pattern=rf"^[{_FEATURES}-]{{1,200}}\Z",
        description="features, joined as Slurm has it: genoa&ib, [rack1|rack2], (a|b)*2",
    ),
]
Time = Annotated[
    str,
    Meta(
        pattern=r"^([0-9]+(:[0-9]{2}){0,2}|[0-9]+-[0-9]+(:[0-9]{2}){0,2})\Z",
        description='a text: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, as "00:30:00"',
    ),
]
Flag = Annotated[
    str,
    Meta(
        pattern=rf"^--[a-z][a-z-]*(=[{_FEATURES}-]{{1,200}})?\Z",
        description="flags of sbatch in their long form, each one word, as --mail-type=END",
    ),
]
Line = Annotated[str, Meta(pattern=r"^[^\n\r\0]{1,1000}\Z", description="texts, each on one line")]

RANKS = "{ranks}"
_HAS_A_KEY = {
    "--account": "queue.account",
    "--partition": "queue.partition",
    "--qos": "queue.qos",
    "--constraint": "queue.constraint",
    "--reservation": "queue.reservation",
    "--time": "queue.time",
    "--exclusive": "queue.exclusive",
    "--signal": "queue.warn_s",
    "--ntasks-per-node": "node.ranks",
    "--cpus-per-task": "node.cpus_per_rank",
    "--gpus-per-node": "node.gpus",
    "--hint": "node.hint",
}
_FOLLOWS_FROM_THE_SWEEP = ("--job-name", "--nodes", "--ntasks", "--array", "--output")
_OF_A_SUBMISSION = ("--hold", "--parsable", "--requeue", "--no-requeue", "--test-only", "--wait", "--wrap")
_ELSEWHERE = ("--cluster", "--clusters")


class QueueSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[queue]``: what ``sbatch`` is told of every job; an empty key is not passed on."""

    account: Word | None = None
    partition: Word | None = None
    qos: Word | None = None
    constraint: Constraint | None = None
    reservation: Word | None = None
    time: Time = "00:30:00"
    exclusive: bool = True
    warn_s: Annotated[int, Meta(ge=5, le=3600)] = 120
    flags: tuple[Flag, ...] = ()


class NodeSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[node]``: what one node is given."""

    ranks: Size = 1
    cpus_per_rank: Size = 1
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    hint: Word | None = "nomultithread"


class LaunchSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[launch]``: how ranks are started inside a job."""

    command: tuple[Line, ...] = ("srun", "--mpi=pmi2", "--cpu-bind=cores", "-n", RANKS)
    setup: tuple[Line, ...] = ()
    variables: dict[str, str] = {}


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A machine, as a submission needs to know it.

    Attributes
    ----------
    queue : QueueSection
    node : NodeSection
    launch : LaunchSection
    """

    queue: QueueSection = QueueSection()
    node: NodeSection = NodeSection()
    launch: LaunchSection = LaunchSection()


def load_site(path: Path) -> Site:
    """Read a site file.

    Raises
    ------
    HpcrnnError
        The file cannot be read, or a key of it is not right; the message names file, key, value and what is allowed.
    """
    raw = read_toml(path)
    try:
        _check_variables(raw)
        site = convert(raw, Site)
        _check(site)
    except SpecError as error:
        raise SpecError(f"{path}: {error.key}", error.value, error.allowed) from None
    return site


def _check_variables(raw: dict[str, Any]) -> None:
    """Name the variable that is not right; of a table with names of its own, validation names the table only."""
    launch = raw.get("launch")
    variables = launch.get("variables") if isinstance(launch, dict) else None
    if isinstance(variables, dict):
        for name, value in variables.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise SpecError("launch.variables", name, "names of letters, digits and _")
            if not isinstance(value, str) or set(value) & set("\n\r\0"):
                raise SpecError(f"launch.variables.{name}", value, 'text on one line: A = "1"')


def _check(site: Site) -> None:
    if not any(RANKS in word for word in site.launch.command):
        raise SpecError(
            "launch.command", list(site.launch.command), f"a command with {RANKS} where the number of ranks goes"
        )
    limit_s = seconds(site.queue.time)
    if limit_s and site.queue.warn_s >= limit_s:
        raise SpecError("queue.warn_s", site.queue.warn_s, f"less than queue.time = {site.queue.time}, {limit_s} s")
    for flag in site.queue.flags:
        if reason := _why_not(flag.partition("=")[0]):
            raise SpecError("queue.flags", flag, f"any other flag of sbatch: {reason}")


def _why_not(name: str) -> str:
    """Say why a flag is not for ``queue.flags``; empty where it is. Slurm takes beginnings of names too."""
    if key := next((key for flag, key in _HAS_A_KEY.items() if flag.startswith(name)), ""):
        return f"what it says is {key} here"
    if any(flag.startswith(name) for flag in _FOLLOWS_FROM_THE_SWEEP):
        return "this one follows from the sweep"
    if any(flag.startswith(name) for flag in _OF_A_SUBMISSION):
        return "how jobs are handed over is the same everywhere"
    if any(flag.startswith(name) for flag in _ELSEWHERE):
        return "jobs are submitted on the cluster they are for, where they can be asked after"
    return ""


def seconds(time: str) -> int:
    """Read a time as sbatch does; 0 means no limit."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # What the first number counts: hours after days, minutes where it stands alone or before seconds.
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return 86400 * int(days or 0) + sum(unit * part for unit, part in zip(units, parts, strict=False))
