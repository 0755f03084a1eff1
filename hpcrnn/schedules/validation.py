"""Refuse programs that would hang or compute something else, before they run.

Five questions, cheapest first: does each rank do its own tasks, each after what it needs
(:mod:`~hpcrnn.schedules.rank_check`); does every message that is sent have its receive, with the same bytes
(:func:`check_matching`); do the ranks of every sum begin the same sums in the same order (:func:`check_collectives`);
do ranks that exchange parts inside forward and backward tasks take these in the same order (:func:`check_lockstep`);
and do all ranks come to the end when a send may block until its receive is posted (:func:`check_progress`).

The first looks at one rank alone and the second at two, so a rank of a large run can check its own part:
:func:`validate_rank`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from hpcrnn.schedules.drawing import refusal
from hpcrnn.schedules.graph import Task, Value
from hpcrnn.schedules.program import (
    Collective,
    Instruction,
    Message,
    PostSend,
    Program,
    Serve,
    SumStage,
    Vector,
)
from hpcrnn.schedules.replay import replay
from hpcrnn.schedules.replica_check import check_rank
from hpcrnn.schedules.schedule import Schedule
from hpcrnn.spec import Axis

_NAMED = 8
"""Ranks that a deadlock names."""


def validate(programs: Sequence[Program], schedule: Schedule) -> None:
    """Check the programs of all ranks.

    Parameters
    ----------
    programs : sequence of Program
        One a rank.
    schedule : Schedule
        What they were made from.

    Raises
    ------
    ScheduleError
        The first rule broken, with the place marked in the rank × step grid.
    """
    by_rank = dict(enumerate(programs))
    for rank in by_rank:
        check_rank(by_rank, rank, schedule)
    check_matching(by_rank, by_rank)
    check_collectives(programs, schedule)
    check_lockstep(programs, schedule)
    check_progress(programs, schedule)


def validate_rank(schedule: Schedule, rank: int) -> Program:
    """Build one rank's program and check it against those of the ranks it exchanges messages with.

    Returns
    -------
    Program

    Raises
    ------
    ScheduleError
        As :func:`validate`; but whether *all* ranks come to the end is not known from these.
    """
    own = schedule.program(rank)
    peers = {peer for i in own.instructions for _, peer, _, _ in _ends(i)} - {rank}
    programs = {rank: own} | {peer: schedule.program(peer) for peer in sorted(peers)}
    check_rank(programs, rank, schedule)
    check_matching(programs, [rank])
    return own


def check_matching(programs: Mapping[int, Program], ranks: Sequence[int] | Mapping[int, Program]) -> None:
    """Check that every message of some ranks has its other end, with the same bytes.

    Raises
    ------
    ScheduleError
    """
    ends: dict[bool, dict[tuple[int, int, Value | Vector], tuple[int, int, int, int]]] = {True: {}, False: {}}
    for rank, program in programs.items():
        for step, i in enumerate(program.instructions):
            for sends, peer, value, n_bytes in _ends(i):
                key = (rank, peer, value) if sends else (peer, rank, value)
                ends[sends][key] = (rank, peer, step, n_bytes)
    checked = set(ranks)
    for sends, missing in ((True, "received"), (False, "sent")):
        for key, (rank, peer, step, n_bytes) in ends[sends].items():
            if rank not in checked:
                continue
            if key not in ends[not sends]:
                raise refusal(programs, rank, step, f"{key[2]} is never {missing} by rank {peer}")
            there = ends[not sends][key][3]
            if there != n_bytes:
                raise refusal(programs, rank, step, f"rank {peer} has {there} bytes for it")


def _ends(instruction: Instruction) -> Iterator[tuple[bool, int, Value | Vector, int]]:
    """Ends of messages that an instruction is: whether it sends, its peer, what, and bytes."""
    if isinstance(instruction, Message):
        yield isinstance(instruction, PostSend), instruction.peer, instruction.value, instruction.n_bytes
    elif isinstance(instruction, Serve):
        for peer in instruction.peers:
            yield False, peer, instruction.value, instruction.n_bytes
            yield True, peer, instruction.parameters, instruction.n_bytes


def check_collectives(programs: Sequence[Program], schedule: Schedule) -> None:
    """Check that all ranks of a sum begin the same sums in the same order.

    Raises
    ------
    ScheduleError
    """
    first: dict[tuple[int, ...], tuple[int, list[Collective]]] = {}
    for rank, program in enumerate(programs):
        mine: dict[tuple[int, ...], list[tuple[int, Collective]]] = {}
        for step, i in enumerate(program.instructions):
            if isinstance(i, Collective):
                mine.setdefault(schedule.group(rank, i.axes), []).append((step, _shared(i)))
        for group, posts in mine.items():
            leader, expected = first.setdefault(group, (rank, [post for _, post in posts]))
            for at, (step, post) in enumerate(posts):
                if at >= len(expected) or post != expected[at]:
                    wanted = expected[at] if at < len(expected) else "nothing more"
                    raise refusal(programs, rank, step, f"rank {leader} begins {wanted} here: collectives must match")
            if len(posts) < len(expected):
                step = len(program.instructions)
                raise refusal(programs, rank, step, f"rank {leader} also begins {expected[len(posts)]}")
    for group, (leader, expected) in first.items():
        for rank in group:
            begun = [_shared(i) for i in programs[rank].instructions if isinstance(i, Collective)]
            absent = next((post for post in expected if post not in begun), None)
            if absent is not None:
                raise refusal(programs, rank, len(programs[rank].instructions), f"rank {leader} also begins {absent}")


def _shared(post: Collective) -> Collective:
    """What of a collective all its ranks have in common: they may contribute parts of different sizes."""
    return msgspec.structs.replace(post, n_bytes=0) if isinstance(post, SumStage) else post


def check_lockstep(programs: Sequence[Program], schedule: Schedule) -> None:
    """Check that ranks which exchange parts inside forward and backward tasks take these in the same order.

    Those of a tensor group do, and those along time where chunks are solved together.

    Raises
    ------
    ScheduleError
    """
    for axis in ("time", "tensor") if schedule.graph.coupled else ("tensor",):
        if getattr(schedule.placement.grid, axis) > 1:
            _check_lockstep_along(axis, programs, schedule)


def _check_lockstep_along(axis: Axis, programs: Sequence[Program], schedule: Schedule) -> None:
    for rank, program in enumerate(programs):
        leader = schedule.placement.group(schedule.placement.place(rank), (axis,))[0]
        mine, expected = (_exchanging(p) for p in (program, programs[leader]))
        for (step, task), (_, there) in zip(mine, expected, strict=True):
            if not _is_counterpart(task, there, along_time=axis == "time"):
                raise refusal(programs, rank, step, f"rank {leader} does {there} here: {axis} ranks work in lockstep")


def _is_counterpart(task: Task, there: Task, *, along_time: bool) -> bool:
    """Whether two tasks are one on two ranks; along time, each has it of its own chunk."""
    same = (task.kind, task.block, task.microbatch) == (there.kind, there.block, there.microbatch)
    return same and (along_time or task.chunk == there.chunk)


def _exchanging(program: Program) -> list[tuple[int, Task]]:
    """Tasks in which tensor ranks may exchange parts, with their steps."""
    return [(s, i) for s, i in enumerate(program.instructions) if isinstance(i, Task) and i.kind != "W"]


def check_progress(programs: Sequence[Program], schedule: Schedule) -> None:
    """Check that all ranks come to the end even where a send blocks until its receive is posted.

    Raises
    ------
    ScheduleError
        Naming the ranks that wait for one another.
    """
    stuck = replay(dict(enumerate(programs)), schedule.group, lambda *_: 1.0, synchronous=True).stuck
    if stuck:
        rank, step = next(iter(stuck.items()))
        others = ", ".join(f"rank {r} at step {s}" for r, s in list(stuck.items())[1:_NAMED])
        raise refusal(programs, rank, step, f"deadlock: never ends; nor does {others or 'any other'}")
