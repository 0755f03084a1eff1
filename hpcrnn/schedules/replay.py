"""Walk the programs of all ranks together, with a clock.

The walk knows what MPI promises and no more: a receive ends when its message was sent, a sum when all its
ranks have begun it.  With ``synchronous`` sends a send also waits until its receive was posted, the least any
MPI library may buffer: programs that end under this rule end under every library.  Tensor ranks exchange parts
inside a forward or backward task, so it begins when all of them have come to it.  A server that takes gradients in any
order is done when each worker has sent one, and hands parameters back without waiting for anybody.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import (
    Collective,
    Instruction,
    Over,
    PostRecv,
    PostSend,
    Program,
    Serve,
    Wait,
)

Cost = Callable[[int, Instruction], float]
"""Seconds, or any unit, that an instruction keeps a rank busy."""

_Event = tuple[object, ...]
"""``sent`` or ``posted`` with both ranks and the value; ``summed`` or ``met`` with the group and what it does."""


@dataclass(frozen=True, eq=False)
class Walk:
    """What became of the programs.

    Attributes
    ----------
    start, end : dict of int to float64 array (n_instructions,)
        One a rank; NaN where the walk did not come.
    stuck : dict of int to int
        Ranks that could not go on, and the step at which they are; empty where all came to the end.
    """

    start: dict[int, npt.NDArray[np.float64]]
    end: dict[int, npt.NDArray[np.float64]]
    stuck: dict[int, int]

    @property
    def makespan(self) -> float:
        """When the last rank is done."""
        return max(float(end[-1]) if len(end) else 0.0 for end in self.end.values())


def replay(
    programs: Mapping[int, Program],
    groups: Callable[[int, Over], tuple[int, ...]],
    cost: Cost,
    *,
    synchronous: bool = False,
) -> Walk:
    """Run programs on an abstract machine whose messages take no time.

    Parameters
    ----------
    programs : mapping of int to Program
        By rank.
    groups : callable
        From rank and axes to the ranks, among those of the programs, that differ along the axes only.
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
        programs: Mapping[int, Program],
        groups: Callable[[int, Over], tuple[int, ...]],
        cost: Cost,
        *,
        synchronous: bool,
    ) -> None:
        self._programs, self._groups, self._cost, self._synchronous = programs, groups, cost, synchronous
        self._happened: dict[_Event, float] = {}
        self._waiting: dict[_Event, list[int]] = defaultdict(list)
        self._came: dict[_Event, dict[int, float]] = defaultdict(dict)
        self._start: dict[int, list[float]] = {rank: [] for rank in programs}
        self._end: dict[int, list[float]] = {rank: [] for rank in programs}
        self._members: dict[tuple[int, Over], tuple[int, ...]] = {}
        self._woken: list[int] = []

    def run(self) -> Walk:
        ready = deque(self._programs)
        while ready:
            self._advance(ready.popleft())
            ready.extend(self._woken)
            self._woken.clear()
        done = {rank: len(ends) for rank, ends in self._end.items()}
        return Walk(
            {rank: _padded(row, self._programs[rank]) for rank, row in self._start.items()},
            {rank: _padded(row, self._programs[rank]) for rank, row in self._end.items()},
            {rank: step for rank, step in done.items() if step < len(self._programs[rank].instructions)},
        )

    def _advance(self, rank: int) -> None:
        """Run one rank until it must wait."""
        starts, ends, cost, happened = self._start[rank], self._end[rank], self._cost, self._happened
        clock = ends[-1] if ends else 0.0
        lockstep = len(self._group(rank, ("tensor",))) > 1
        for instruction in self._programs[rank].instructions[len(ends) :]:
            begun, kind = clock, type(instruction)
            if kind is not Task or lockstep:
                awaited = self._awaited(rank, instruction, clock)
                if awaited is not None:
                    if awaited not in happened:
                        self._waiting[awaited].append(rank)
                        return
                    begun = max(clock, happened[awaited])
            end = begun + cost(rank, instruction)
            starts.append(clock)
            ends.append(end)
            clock = end
            if kind is PostSend:
                self._happens(("sent", rank, instruction.peer, instruction.value), end)  # type: ignore[union-attr]
            elif kind is PostRecv:
                self._happens(("posted", instruction.peer, rank, instruction.value), end)  # type: ignore[union-attr]
            elif isinstance(instruction, Collective):
                self._comes(rank, self._sum(rank, instruction), instruction.axes, end)
            elif isinstance(instruction, Serve):
                for peer in instruction.peers:
                    self._happens(("sent", rank, peer, instruction.parameters), end)

    def _awaited(self, rank: int, instruction: Instruction, clock: float) -> _Event | None:
        """What must have happened before an instruction can begin; for a wait, before it can end."""
        if isinstance(instruction, Wait):
            post = instruction.post
            if isinstance(post, PostRecv):
                return ("sent", post.peer, rank, post.value)
            return None if isinstance(post, PostSend) else self._sum(rank, post)
        if isinstance(instruction, PostSend) and self._synchronous:
            return ("posted", rank, instruction.peer, instruction.value)
        if isinstance(instruction, Task) and instruction.kind != "W":
            met = ("met", self._group(rank, ("tensor",)), instruction)
            self._comes(rank, met, ("tensor",), clock)
            return met
        return self._last_push(rank, instruction, clock) if isinstance(instruction, Serve) else None

    def _last_push(self, rank: int, serve: Serve, clock: float) -> _Event:
        """The gradient that a server still waits for, or the last that came."""
        pushes: list[_Event] = [("sent", peer, rank, serve.value) for peer in serve.peers]
        for peer in serve.peers:
            self._happens(("posted", peer, rank, serve.value), clock)
        absent = next((push for push in pushes if push not in self._happened), None)
        return absent or max(pushes, key=self._happened.__getitem__)

    def _comes(self, rank: int, event: _Event, axes: Over, time: float) -> None:
        """One of a group has come to what happens when all have."""
        came = self._came[event]
        came[rank] = time
        if len(came) == len(self._group(rank, axes)):
            self._happens(event, max(came.values()))

    def _happens(self, event: _Event, time: float) -> None:
        self._happened[event] = time
        self._woken += self._waiting.pop(event, ())

    def _sum(self, rank: int, post: Collective) -> _Event:
        return ("summed", self._group(rank, post.axes), post.handle)

    def _group(self, rank: int, axes: Over) -> tuple[int, ...]:
        if (rank, axes) not in self._members:
            members = self._groups(rank, axes)
            self._members.update(((member, axes), members) for member in members)
        return self._members[rank, axes]


def _padded(row: list[float], program: Program) -> npt.NDArray[np.float64]:
    full = np.full(len(program.instructions), np.nan)
    full[: len(row)] = row
    return full
