"""The timeline of one step: what every rank did, and when.

A measured and a simulated step look the same: one row an instruction, named by its text.  How such a text
reads is part of the file format, so it is read here and nowhere else below the schedules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Kind = Literal["forward", "backward", "weight gradient", "update", "communication", "waiting"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What an instruction is, as figures and traces sort it: work first, then posts, then waits."""

BUSY_KINDS: tuple[Kind, ...] = ("forward", "backward", "weight gradient", "update")
"""The kinds that are work; whatever a rank does besides is its bubble."""

_TEXTS_KEPT = 2**16
_TASKS: dict[str, Kind] = {"F": "forward", "B": "backward", "W": "weight gradient"}
_TASK = re.compile(r"([FBW])\(.*\)")
_MESSAGE = re.compile(r"Post(Send|Recv) (\S+) (?:to|from) ([0-9]{1,9}), ([0-9]{1,18}) B")
_VECTORS = ("gradient(", "parameters(")
"""How values begin that one rank exchanges with several."""
_STAGE = re.compile(r"((?:ReduceScatter|AllReduce|AllGather)\(\S+\)) (within node|across nodes), ([0-9]{1,18}) B")
_SUM = re.compile(r"((?:AllReduce|AllToAll|AllGather)\(\S+\)(?: of \w+)?) over ([a-z,]+), ([0-9]{1,18}) B")


@dataclass(frozen=True, eq=False)
class Timeline:
    """Every instruction of every rank in one step.

    Attributes
    ----------
    rank : int64 array (n,)
        Which rank ran it.
    instruction : tuple of str (n,)
        Its text, e.g. ``F(1,0,0)`` or ``Wait recv y(1,0,0)``; each rank's in the order it ran them.
    start_s, end_s : float64 array (n,)
        Seconds from the common start of the step.
    repetition : int
        Which counted step it shows, from 0: the one nearest to the median.
    """

    rank: npt.NDArray[np.int64]
    instruction: tuple[str, ...]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    repetition: int = 0

    def __len__(self) -> int:
        """Instructions of all ranks."""
        return len(self.instruction)

    @property
    def end_of_step_s(self) -> float:
        """When the last instruction ended, seconds; 0 for an empty timeline."""
        return float(self.end_s.max()) if len(self) else 0.0

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kind of each instruction, shape (n,)."""
        return tuple(kind_of(text) for text in self.instruction)

    def rows_of(self, rank: int) -> npt.NDArray[np.int64]:
        """Indices of a rank's instructions, in the order it ran them."""
        return np.flatnonzero(self.rank == rank).astype(np.int64)

    def fault(self, n_ranks: int) -> str:
        """Say what no timeline of so many ranks can hold; empty where all is right."""
        columns = (self.rank, self.start_s, self.end_s)
        if any(column.shape != (len(self.instruction),) for column in columns):
            return "its columns are of several lengths"
        times = np.concatenate([self.start_s, self.end_s])
        ordered = all((np.diff(self.start_s[self.rows_of(rank)]) >= 0).all() for rank in np.unique(self.rank))
        faults = {
            f"its repetition is {self.repetition}": self.repetition < 0,
            f"it names ranks beyond the {n_ranks} there are": ((self.rank < 0) | (self.rank >= n_ranks)).any(),
            "it holds times that are not finite": not np.isfinite(times).all(),
            "an instruction ends before it starts": (self.end_s < self.start_s).any(),
            "a rank's instructions are not in order": not ordered,
        }
        return next((fault for fault, found in faults.items() if found), "")


@dataclass(frozen=True, slots=True)
class Message:
    """One end of a message, as the text of its post names it.

    Attributes
    ----------
    sends : bool
        True for ``PostSend``, False for ``PostRecv``.
    value : str
        What is sent, e.g. ``y(1,0,0)``.
    peer : int
        Rank of the other end.
    n_bytes : int
    """

    sends: bool
    value: str
    peer: int
    n_bytes: int

    @property
    def handle(self) -> str:
        """What a wait calls it."""
        verb, way = ("send", "to") if self.sends else ("recv", "from")
        end = f" {way} {self.peer}" if self.value.startswith(_VECTORS) else ""
        return f"{verb} {self.value}{end}"


@dataclass(frozen=True, slots=True)
class Sum:
    """A rank's part in a sum, or in a stage of a compressed one, as the text of its post names it.

    Attributes
    ----------
    handle : str
        What a wait calls it, e.g. ``AllReduce(2:3)``, ``AllToAll(2:3) of int8``.
    axes : tuple of str
        Axes of the grid it runs over.
    n_bytes : int
    """

    handle: str
    axes: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A rank's part in one stage of a sum, as the text of its post names it.

    Attributes
    ----------
    handle : str
        What a wait calls it, e.g. ``ReduceScatter(2:3)``.
    span : str
        ``within node`` or ``across nodes``: which ranks these are, the text does not say.
    n_bytes : int
    """

    handle: str
    span: str
    n_bytes: int


@lru_cache(maxsize=_TEXTS_KEPT)
def kind_of(instruction: str) -> Kind:
    """Sort an instruction by its text.

    What has no kind of its own, such as ``Carry``, is work of the update. ``Serve`` waits for others most of its time.
    """
    if instruction.startswith(("Wait ", "Serve ")):
        return "waiting"
    if task := _TASK.fullmatch(instruction):
        return _TASKS[task[1]]
    return "communication" if read_post(instruction) else "update"


@lru_cache(maxsize=_TEXTS_KEPT)
def read_post(instruction: str) -> Message | Sum | Stage | None:
    """Read the text of a post; None for any other instruction."""
    if found := _MESSAGE.fullmatch(instruction):
        return Message(found[1] == "Send", found[2], int(found[3]), int(found[4]))
    if found := _STAGE.fullmatch(instruction):
        return Stage(found[1], found[2], int(found[3]))
    if found := _SUM.fullmatch(instruction):
        return Sum(found[1], tuple(found[2].split(",")), int(found[3]))
    return None


def awaited(instruction: str) -> str:
    """Return the handle that a wait waits for; empty for any other instruction."""
    return instruction.removeprefix("Wait ") if instruction.startswith("Wait ") else ""
