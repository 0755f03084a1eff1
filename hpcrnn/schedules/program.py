"""A program: what one rank does in one step, as an immutable list of small instructions.

A program reads and writes as text, one instruction a line::

    # hpcrnn program 1: rank 0 of 2, blocks input layer0 head
    F(0,0,0)
    ...
    W(2,0,0)
    AllReduce(2:3) 66560 B
    ...
    Wait AllReduce(2:3)
    Update
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Begin to sum the gradients of the blocks ``start:stop`` over all replicas.

    The sum may be waited for much later; until then nothing may touch those gradients.
    """

    start: int
    stop: int
    n_bytes: int

    def __str__(self) -> str:
        return f"AllReduce({self.start}:{self.stop}) {self.n_bytes} B"


@dataclass(frozen=True, slots=True)
class AllReduceLoss:
    """Begin to sum the loss over all replicas."""

    @property
    def n_bytes(self) -> int:
        """One float64."""
        return 8

    def __str__(self) -> str:
        return "AllReduce(loss) 8 B"


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until a begun sum is there."""

    post: AllReduce | AllReduceLoss

    def __str__(self) -> str:
        return f"Wait {str(self.post).rsplit(' ', 2)[0]}"


@dataclass(frozen=True, slots=True)
class Update:
    """Check, clip and apply the gradient."""

    def __str__(self) -> str:
        return "Update"


Post = AllReduce | AllReduceLoss
Instruction = Task | AllReduce | AllReduceLoss | Wait | Update


@dataclass(frozen=True)
class Program:
    """What one rank does in one step.

    Attributes
    ----------
    rank, n_ranks : int
    blocks : tuple of str
        Names of the network's blocks; instructions give their index.
    instructions : tuple of Instruction
    """

    rank: int
    n_ranks: int
    blocks: tuple[str, ...]
    instructions: tuple[Instruction, ...]

    def to_text(self) -> str:
        """Write the program, one instruction a line."""
        head = f"# hpcrnn program 1: rank {self.rank} of {self.n_ranks}, blocks {' '.join(self.blocks)}"
        return "\n".join([head, *map(str, self.instructions)]) + "\n"

    @property
    def bytes_sent(self) -> int:
        """Bytes this rank contributes to collectives in a step."""
        return sum(i.n_bytes for i in self.instructions if isinstance(i, AllReduce | AllReduceLoss))


_HEAD = re.compile(r"# hpcrnn program 1: rank ([0-9]+) of ([0-9]+), blocks (.+)")
_TASK = re.compile(r"([FBW])\(([0-9]+),([0-9]+),([0-9]+)\)")
_ALLREDUCE = re.compile(r"AllReduce\(([0-9]+):([0-9]+)\) ([0-9]+) B")


def parse_program(text: str) -> Program:
    """Read what :meth:`Program.to_text` wrote.

    Raises
    ------
    ScheduleError
        A line is not an instruction, or waits for something that was not begun; the message gives it.
    """
    head, *lines = text.splitlines() or [""]
    match = _HEAD.fullmatch(head)
    if not match:
        raise ScheduleError(f"line 1: not the head of a program: {head!r}")
    begun: dict[str, Post] = {}
    instructions: list[Instruction] = []
    for number, line in enumerate(lines, start=2):
        instruction = _parse_line(line, begun)
        if instruction is None:
            raise ScheduleError(f"line {number}: not an instruction: {line!r}")
        if isinstance(instruction, AllReduce | AllReduceLoss):
            begun[f"Wait {str(instruction).rsplit(' ', 2)[0]}"] = instruction
        instructions.append(instruction)
    rank, n_ranks, blocks = match.groups()
    return Program(int(rank), int(n_ranks), tuple(blocks.split()), tuple(instructions))


def _parse_line(line: str, begun: dict[str, Post]) -> Instruction | None:
    if match := _TASK.fullmatch(line):
        kind, *place = match.groups()
        return Task(kind, *map(int, place))  # type: ignore[arg-type]  # the pattern admits only F, B, W
    if match := _ALLREDUCE.fullmatch(line):
        return AllReduce(*map(int, match.groups()))
    if line == str(AllReduceLoss()):
        return AllReduceLoss()
    if line in begun:
        return Wait(begun[line])
    return Update() if line == str(Update()) else None
