"""What is special about a machine: its accounts and partitions, its nodes, how ranks are started there.

One ``site.toml`` serves every sweep; ``jobs/site.toml`` is one with comments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from hpcrnn.errors import SpecError
from hpcrnn.spec import Size, convert, read_toml

# What goes into a line of ``#SBATCH``: nothing that ends the line, or begins a word of its own.
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.,:%+@=\[\]{}/-]{1,200}$")]
Time = Annotated[str, Meta(pattern=r"^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d(:\d\d)?)?)$")]
"""Minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS: what sbatch takes."""
Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Line = Annotated[str, Meta(pattern=r"^[^\n\r\0]{1,1000}$")]

RANKS = "{ranks}"
_SETS_ITSELF = (
    "--nodes",
    "--ntasks",
    "--ntasks-per-node",
    "--cpus-per-task",
    "--array",
    "--signal",
    "--output",
    "-N",
    "-n",
)
"""Flags that a script has its own opinion of."""


class QueueSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[queue]``: what ``sbatch`` is told of every job; an empty key is not passed on."""

    account: Word | None = None
    partition: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    reservation: Word | None = None
    time: Time = "00:30:00"
    exclusive: bool = True
    warn_s: Annotated[int, Meta(ge=5, le=3600)] = 120
    flags: tuple[Word, ...] = ()


class NodeSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[node]``: what one node is given."""

    ranks: Size = 1
    cpus_per_rank: Size = 1
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    hint: Word | None = "nomultithread"


class LaunchSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[launch]``: how ranks are started inside a job."""

    command: Annotated[tuple[Line, ...], Meta(min_length=1)] = ("srun", "--mpi=pmi2", "--cpu-bind=cores", "-n", RANKS)
    setup: tuple[Line, ...] = ()
    variables: dict[Name, Line] = {}


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
        site = convert(raw, Site)
        _check(site)
    except SpecError as error:
        raise SpecError(f"{path}: {error.key}", error.value, error.allowed) from None
    return site


def _check(site: Site) -> None:
    if not any(RANKS in word for word in site.launch.command):
        raise SpecError(
            "launch.command", list(site.launch.command), f"a command with {RANKS} where the number of ranks goes"
        )
    for flag in site.queue.flags:
        name = re.split(r"[=]", flag, maxsplit=1)[0]
        if not flag.startswith("-"):
            raise SpecError("queue.flags", flag, "flags of sbatch, each one word: --mail-type=END")
        if name in _SETS_ITSELF:
            raise SpecError("queue.flags", flag, f"any flag but {', '.join(_SETS_ITSELF)}, which follow from the sweep")
