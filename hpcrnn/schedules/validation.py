"""Refuse programs that would hang or compute something else, before they run.

Five questions, cheapest first: does each rank do its own tasks, each after what it needs (:class:`_RankCheck`);
does every message that is sent have its receive, with the same bytes (:func:`check_matching`); do the ranks of
every sum begin the same sums in the same order (:func:`check_collectives`); do ranks that exchange parts inside
forward and backward tasks take these in the same order (:func:`check_lockstep`); and do all ranks come to
the end when a send may block until its receive is posted (:func:`check_progress`).

The first looks at one rank alone and the second at two, so a rank of a large run can check its own part:
:func:`validate_rank`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpcrnn.schedules.drawing import refusal
from hpcrnn.schedules.graph import Task, Value
from hpcrnn.schedules.lowering import Schedule, carried_values
from hpcrnn.schedules.placement import Place
from hpcrnn.schedules.program import (
    AllReduce,
    AllReduceScalar,
    Axes,
    Carry,
    Collective,
    Message,
    Post,
    PostRecv,
    PostSend,
    Program,
    Wait,
)
from hpcrnn.schedules.replay import message_key, replay
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
        _RankCheck(by_rank, rank, schedule).run()
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
    peers = {i.peer for i in own.instructions if isinstance(i, Message)} - {rank}
    programs = {rank: own} | {peer: schedule.program(peer) for peer in sorted(peers)}
    _RankCheck(programs, rank, schedule).run()
    check_matching(programs, [rank])
    return own


class _RankCheck:
    """Walks one rank's program and keeps what has been done and begun so far.

    That no task overwrites what is being sent needs no check: a buffer lives until the wait, a task writes each
    buffer once and before it is sent, and a backward task leaves ``y`` as it is for the weight gradient of the
    block after.
    """

    def __init__(self, programs: Mapping[int, Program], rank: int, schedule: Schedule) -> None:
        self._programs, self._rank, self._s = programs, rank, schedule
        self._graph, self._place = schedule.graph, schedule.placement.place(rank)
        self._step = 0
        self._own = frozenset(_tasks_of(schedule, self._place))
        self._blocks = frozenset(schedule.placement.blocks_at(self._place))
        self._missing = set(self._own)
        self._left: dict[tuple[str, int], int] = {}
        for task in self._own:
            self._left[task.kind, task.block] = self._left.get((task.kind, task.block), 0) + 1
        self._in_flight: dict[Post, int] = {}
        self._summing = 0
        self._sent: set[Value] = set()
        self._received: set[Value] = set()
        self._arrived: set[Value] = set()
        self._reduced: set[int] = set()
        self._scalars: set[str] = set()
        self._carried = self._updated = False

    def run(self) -> None:
        """Raise at the first rule broken."""
        program = self._programs[self._rank]
        if (program.rank, program.grid) != (self._rank, self._s.placement.grid):
            self._refuse(f"the program is of rank {program.rank} of {program.grid}")
        for step, instruction in enumerate(program.instructions):
            self._step = step
            self._require(not self._updated, "nothing may follow the update")
            if isinstance(instruction, Task):
                self._task(instruction)
            elif isinstance(instruction, PostRecv | PostSend):
                self._message(instruction)
            elif isinstance(instruction, AllReduce):
                self._allreduce(instruction)
            elif isinstance(instruction, AllReduceScalar):
                self._scalar(instruction)
            elif isinstance(instruction, Wait):
                self._wait(instruction.post)
            elif isinstance(instruction, Carry):
                self._carry()
            else:
                self._update()
        self._end()

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        raise refusal(self._programs, self._rank, self._step, reason)

    def _task(self, task: Task) -> None:
        self._require(task in self._own, "not a task of this rank")
        self._require(task in self._missing, "done twice")
        for value in self._graph.values_into(task):
            if value not in self._arrived and value.producer not in self._own:
                self._refuse(f"needs {value} received first")
        for needed in self._graph.needs(task):
            if needed in self._missing:
                self._refuse(f"needs {needed} first")
        self._missing.remove(task)
        self._left[task.kind, task.block] -= 1

    def _message(self, post: Message) -> None:
        value, sends = post.value, isinstance(post, PostSend)
        seen = self._sent if sends else self._received
        if value in seen:
            self._refuse(f"{post.handle} is begun twice")
        carried = self._is_carried(value, sends=sends)
        self._require(carried or self._crosses(value, sends=sends), "not a value that crosses ranks here")
        if sends:
            if value.producer in self._missing:
                self._refuse(f"needs {value.producer} first")
        elif carried:
            first = Task("F", value.block, value.microbatch, self._s.placement.segments[0][0])
            self._require(first not in self._missing, f"would overwrite what {first} starts from")
        peer, n_bytes = self._peer(value, sends=sends), self._s.sizes.value_bytes(value, self._place)
        if (post.peer, post.n_bytes) != (peer, n_bytes):
            self._refuse(f"the value goes {'to' if sends else 'from'} rank {peer} and has {n_bytes} bytes")
        seen.add(value)
        self._in_flight[post] = self._step

    def _crosses(self, value: Value, *, sends: bool) -> bool:
        """Whether a value leaves, or reaches, this rank."""
        here, there = (value.producer, value.consumer) if sends else (value.consumer, value.producer)
        known = value in (self._graph.values_out_of(here) if sends else self._graph.values_into(here))
        return here in self._own and known and there not in self._own

    def _is_carried(self, value: Value, *, sends: bool) -> bool:
        last = value.kind == "halo" and value.chunk == self._graph.n_chunks - 1
        return last and self._carries(sends=sends) and value.block in self._blocks and self._recurrent(value)

    def _carries(self, *, sends: bool) -> bool:
        """Whether this rank sends, or receives, states for the next step."""
        time = self._s.placement.grid.time
        return self._s.carry and time > 1 and self._place.time == (time - 1 if sends else 0)

    def _recurrent(self, value: Value) -> bool:
        return self._graph.recurrent[value.block] and value.microbatch < self._graph.n_microbatches

    def _peer(self, value: Value, *, sends: bool) -> int:
        """Rank of the other end of a message."""
        last = self._s.placement.grid.time - 1
        place = self._place
        if self._is_carried(value, sends=sends):
            there = Place(place.data, place.pipeline, 0 if sends else last, place.tensor)
        else:
            there = self._s.placement.owner(value.consumer if sends else value.producer, place)
        return self._s.placement.rank(there)

    def _allreduce(self, post: AllReduce) -> None:
        blocks = range(post.start, post.stop)
        own = ", ".join(map(str, self._blocks))
        self._require(bool(blocks) and self._blocks.issuperset(blocks), f"blocks of this rank are {own}")
        for block in blocks:
            axes = self._s.replicated_over(block)
            self._require(post.axes == axes, f"block {block} is replicated over {','.join(axes) or 'nothing'}")
            self._require(block not in self._reduced, f"block {block} is summed twice")
            incomplete = not self._graph.backward or self._left.get(("W", block), 0) > 0
            self._require(not incomplete, f"the gradient of block {block} is not complete")
        n_bytes = sum(self._s.sizes.gradient_bytes(block, self._place) for block in blocks)
        self._require(post.n_bytes == n_bytes, f"the gradients have {n_bytes} bytes")
        self._reduced.update(blocks)
        self._summing += 1
        self._in_flight[post] = self._step

    def _scalar(self, post: AllReduceScalar) -> None:
        self._require(post.quantity not in self._scalars, f"the {post.quantity} is summed twice")
        expected = self._scalar_axes(post.quantity)
        self._require(post.axes == expected, f"is summed over {','.join(expected) or 'nothing'}")
        if post.quantity == "loss":
            incomplete = self._left.get(("F", self._graph.n_blocks - 1), 0) > 0
            self._require(not incomplete, "the loss is not complete")
        else:
            self._require(self._s.mode == "train", "this mode has no update")
            self._require(not any(self._left.values()), "the gradient is not complete")
            self._require(not self._summing, "a gradient is still being summed")
            self._all_summed()
        self._scalars.add(post.quantity)
        self._in_flight[post] = self._step

    def _scalar_axes(self, quantity: str) -> Axes:
        if quantity == "loss":
            return self._s.axes("data", "pipeline", "time", "tensor")
        return self._s.axes("pipeline", "tensor")

    def _wait(self, post: Post) -> None:
        self._require(post in self._in_flight, "waits for what was not begun")
        del self._in_flight[post]
        if isinstance(post, PostRecv):
            self._arrived.add(post.value)
        elif isinstance(post, AllReduce):
            self._summing -= 1

    def _carry(self) -> None:
        self._require(self._s.carry and self._s.placement.grid.time == 1, "nothing is carried on this rank")
        self._require(not self._carried, "carried twice")
        missing = next((t for t in self._missing if t.kind == "F" and self._graph.recurrent[t.block]), None)
        self._require(missing is None, f"needs {missing} first")
        self._carried = True

    def _update(self) -> None:
        self._require(self._s.mode == "train", "this mode has no update")
        self._require(not self._in_flight, f"{next((p.handle for p in self._in_flight), '')} is still under way")
        self._updated = True

    def _all_summed(self) -> None:
        for block in sorted(self._blocks):
            wanted = self._graph.backward and self._s.replicated_over(block)
            if wanted and self._s.sizes.gradient_bytes(block, self._place):
                self._require(block in self._reduced, f"the gradient of block {block} is never summed")

    def _end(self) -> None:
        if self._in_flight:
            self._step = next(iter(self._in_flight.values()))
            self._refuse("is never waited for")
        self._step = len(self._programs[self._rank].instructions)
        first = min(map(str, self._missing), default="")
        self._require(not self._missing, f"{len(self._missing)} tasks are missing, the first {first}")
        self._require(self._updated == (self._s.mode == "train"), "the update is missing")
        self._all_summed()
        for quantity in ("loss", "norm") if self._s.mode == "train" else ("loss",):
            wanted = bool(self._scalar_axes(quantity))
            self._require(wanted == (quantity in self._scalars), f"the {quantity} is never summed")
        self._all_carried()

    def _all_carried(self) -> None:
        if self._s.carry and self._s.placement.grid.time == 1:
            self._require(self._carried, "the final states are not carried")
        for sends, seen, done in ((True, self._sent, "sent"), (False, self._received, "received")):
            for value in carried_values(self._graph, self._blocks) if self._carries(sends=sends) else ():
                self._require(value in seen, f"{value} is never {done}")


def _tasks_of(schedule: Schedule, place: Place) -> Iterator[Task]:
    for block in schedule.placement.blocks_at(place):
        for kind in schedule.graph.kinds:
            for m in range(schedule.graph.n_microbatches):
                for c in schedule.placement.chunks_at(place):
                    yield Task(kind, block, m, c)


def check_matching(programs: Mapping[int, Program], ranks: Sequence[int] | Mapping[int, Program]) -> None:
    """Check that every message of some ranks has its other end, with the same bytes.

    Raises
    ------
    ScheduleError
    """
    ends: dict[type, dict[tuple[int, int, Value], tuple[int, int, Message]]] = {PostSend: {}, PostRecv: {}}
    for rank, program in programs.items():
        for step, i in enumerate(program.instructions):
            if isinstance(i, Message):
                ends[type(i)][message_key(rank, i)] = (rank, step, i)
    checked = set(ranks)
    for mine, other, missing in ((PostSend, PostRecv, "received"), (PostRecv, PostSend, "sent")):
        for key, (rank, step, message) in ends[mine].items():
            if rank not in checked:
                continue
            if key not in ends[other]:
                raise refusal(programs, rank, step, f"{message.value} is never {missing} by rank {message.peer}")
            there = ends[other][key][2].n_bytes
            if there != message.n_bytes:
                raise refusal(programs, rank, step, f"rank {message.peer} has {there} bytes for it")


def check_collectives(programs: Sequence[Program], schedule: Schedule) -> None:
    """Check that all ranks of a sum begin the same sums in the same order.

    Raises
    ------
    ScheduleError
    """
    first: dict[tuple[int, ...], tuple[int, list[Collective]]] = {}
    for rank, program in enumerate(programs):
        mine: dict[tuple[int, ...], list[tuple[int, Collective]]] = {}
        place = schedule.placement.place(rank)
        for step, i in enumerate(program.instructions):
            if isinstance(i, AllReduce | AllReduceScalar):
                mine.setdefault(schedule.placement.group(place, i.axes), []).append((step, i))
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
            begun = [i for i in programs[rank].instructions if isinstance(i, AllReduce | AllReduceScalar)]
            absent = next((post for post in expected if post not in begun), None)
            if absent is not None:
                raise refusal(programs, rank, len(programs[rank].instructions), f"rank {leader} also begins {absent}")


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

    def group(rank: int, axes: Axes) -> tuple[int, ...]:
        return schedule.placement.group(schedule.placement.place(rank), axes)

    stuck = replay(dict(enumerate(programs)), group, lambda *_: 1.0, synchronous=True).stuck
    if stuck:
        rank, step = next(iter(stuck.items()))
        others = ", ".join(f"rank {r} at step {s}" for r, s in list(stuck.items())[1:_NAMED])
        raise refusal(programs, rank, step, f"deadlock: never ends; nor does {others or 'any other'}")
