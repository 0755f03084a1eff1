"""Walk the programs of all ranks together, with a clock.

The walk knows what MPI promises and no more: a receive ends when its message was sent, a sum when all its
ranks have begun it.  With ``synchronous`` sends a send also waits until its receive was posted, the least any
MPI library may buffer: programs that end under this rule end under every library.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcrnn.schedules.graph import Task, Value
from hpcrnn.schedules.program import AllReduce, AllReduceScalar, Axes, Collective, Instruction, PostRecv, PostSend, Program, Wait

Cost = Callable[[int, Instruction], float]
"""Seconds, or any unit, that an instruction keeps a rank busy."""

_Event = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Walk:
    """What became of the programs.

    Attributes
    ----------
    start, end : list of float64 array (n_instructions,)
        One a rank; NaN where the walk did not come.
    stuck : dict of int to int
        Ranks that could not go on, and the step at which they are; empty where all came to the end.
    """

    start: list[npt.NDArray[np.float64]]
    end: list[npt.NDArray[np.float64]]
    stuck: dict[int, int]

    @property
    def makespan(self) -> float:
        """When the last rank is done."""
        return max(float(end[-1]) if len(end) else 0.0 for end in self.end)


def replay(
    programs: Sequence[Program],
    groups: Callable[[int, Axes], tuple[int, ...]],
    cost: Cost,
    *,
    synchronous: bool = False,
) -> Walk:
    """Run programs on an abstract machine whose messages take no time.

    Parameters
    ----------
    programs : sequence of Program
        One a rank.
    groups : callable
        From rank and axes to the ranks of a sum.
    cost : callable
        Of rank and instruction.
    synchronous : bool
        Let a send wait for its receive to be posted.

    Returns
    -------
    Walk
    """
    return _Replay(programs, groups, cost, synchronous=synchronous).run()


class _Replay:
    def __init__(
        self,
        programs: Sequence[Program],
        groups: Callable[[int, Axes], tuple[int, ...]],
        cost: Cost,
        *,
        synchronous: bool,
    ) -> None:
        self._programs, self._groups, self._cost, self._synchronous = programs, groups, cost, synchronous
        self._happened: dict[_Event, float] = {}
        self._waiting: dict[_Event, list[int]] = defaultdict(list)
        self._begun: dict[_Event, list[float]] = defaultdict(list)
        self._clock = [0.0] * len(programs)
        self._step = [0] * len(programs)
        self._start: list[list[float]] = [[] for _ in programs]
        self._end: list[list[float]] = [[] for _ in programs]
        self._members: dict[tuple[int, Axes], tuple[int, ...]] = {}

    def run(self) -> Walk:
        ready = deque(range(len(self._programs)))
        while ready:
            ready.extend(self._advance(ready.popleft()))
        stuck = {r: s for r, s in enumerate(self._step) if s < len(self._programs[r].instructions)}
        return Walk(
            [_padded(row, p) for row, p in zip(self._start, self._programs, strict=True)],
            [_padded(row, p) for row, p in zip(self._end, self._programs, strict=True)],
            stuck,
        )

    def _advance(self, rank: int) -> list[int]:
        """Run one rank until it must wait; return the ranks that may go on now."""
        woken: list[int] = []
        instructions = self._programs[rank].instructions
        starts, ends, happened = self._start[rank], self._end[rank], self._happened
        while self._step[rank] < len(instructions):
            instruction = instructions[self._step[rank]]
            clock = self._clock[rank]
            if isinstance(instruction, Task):
                end = clock + self._cost(rank, instruction)
            else:
                awaited = self._awaited(rank, instruction)
                if awaited is not None and awaited not in happened:
                    self._waiting[awaited].append(rank)
                    return woken
                begun = clock if awaited is None else max(clock, happened[awaited])
                end = begun + self._cost(rank, instruction)
                event = self._event(rank, instruction, end)
                if event is not None:
                    happened[event[0]] = event[1]
                    woken += self._waiting.pop(event[0], ())
            starts.append(clock)
            ends.append(end)
            self._clock[rank] = end
            self._step[rank] += 1
        return woken

    def _awaited(self, rank: int, instruction: Instruction) -> _Event | None:
        """What must have happened before an instruction can end."""
        if isinstance(instruction, PostSend) and self._synchronous:
            return ("posted", rank, instruction.peer, instruction.value)
        if not isinstance(instruction, Wait):
            return None
        post = instruction.post
        if isinstance(post, PostRecv):
            return ("sent", post.peer, rank, post.value)
        if isinstance(post, PostSend):
            return ("posted", rank, post.peer, post.value) if self._synchronous else None
        return self._sum(rank, post)

    def _event(self, rank: int, instruction: Instruction, end: float) -> tuple[_Event, float] | None:
        """What an instruction makes happen, and when."""
        if isinstance(instruction, PostSend):
            return ("sent", rank, instruction.peer, instruction.value), end
        if isinstance(instruction, PostRecv):
            return ("posted", instruction.peer, rank, instruction.value), end
        if isinstance(instruction, AllReduce | AllReduceScalar):
            key = self._sum(rank, instruction)
            arrived = self._begun[key]
            arrived.append(end)
            if len(arrived) == len(self._group(rank, instruction.axes)):
                return key, max(arrived)
        return None

    def _sum(self, rank: int, post: Collective) -> _Event:
        return ("sum", self._group(rank, post.axes), post.handle)

    def _group(self, rank: int, axes: Axes) -> tuple[int, ...]:
        if (rank, axes) not in self._members:
            members = self._groups(rank, axes)
            self._members.update(((member, axes), members) for member in members)
        return self._members[rank, axes]


def _padded(row: list[float], program: Program) -> npt.NDArray[np.float64]:
    full = np.full(len(program.instructions), np.nan)
    full[: len(row)] = row
    return full


def message_key(rank: int, message: PostSend | PostRecv) -> tuple[int, int, Value]:
    """Name a message by its two ends and its value: equal for the send and its receive."""
    if isinstance(message, PostSend):
        return rank, message.peer, message.value
    return message.peer, rank, message.value
