"""From ordered tasks to a program: the communication, derived.

A value whose producer and consumer lie on different ranks becomes a message.  Around a rank's units::

    PostRecv  what the *next* unit needs          early: the message travels while this unit computes
    Wait recv, task, PostSend                     each task waits for its own values only
    Wait send                                     late: when the buffer is wanted again, or the step ends

Sums are begun as soon as their operand is complete, and waited for at the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from hpcrnn.schedules.graph import Task, TaskGraph, Value
from hpcrnn.schedules.order import Unit, turns, units
from hpcrnn.schedules.placement import Place, Placement
from hpcrnn.schedules.program import (
    AllReduce,
    AllReduceScalar,
    Axes,
    Carry,
    Collective,
    Instruction,
    PostRecv,
    PostSend,
    Program,
    Update,
    Wait,
)
from hpcrnn.spec import Axis, DataMethodName, OrderName, StepMode


def receive_ahead(graph: TaskGraph, placement: Placement) -> int:
    """Units a receive is posted before the unit that needs it.

    One hides the message behind a unit.  Virtual stages make messages run in a ring, and a ring of sends that
    block must find its receives posted.  An item comes back to the first rank after P items, but its turn is only
    when all items of its group have had theirs: in a group of P + x items it waits for x forward units, between
    which as many backward units lie; and the row may begin with either kind.
    """
    if placement.n_virtual == 1:
        return 1
    positions = placement.grid.pipeline
    largest = turns(graph.n_microbatches * len(placement.segments[0]), positions)[0]
    return 2 * max(0, int(largest.stop - largest.start) - positions) + 2


_SEND_BEHIND = 2
"""Units a send of a buffer that nothing else keeps may be under way before its wait."""


class Sizes(Protocol):
    """Bytes of what crosses ranks."""

    def value_bytes(self, value: Value, place: Place) -> int:
        """Size of a value in the replica and tensor group of a place."""

    def gradient_bytes(self, block: int, place: Place) -> int:
        """Size of a block's gradient on a place that owns it."""


@dataclass(frozen=True)
class Schedule:
    """Everything a program is made from.

    Attributes
    ----------
    graph : TaskGraph
    placement : Placement
    order : {"fill_drain", "1f1b", "seq_1f1b", "zb_h1", "interleaved"}
    mode : {"train", "gradient", "forward"}
    data_method : {"allreduce_bucketed", "allreduce_flat"}
        Sum a block's gradients as soon as they are complete, or all of them at the end.
    carry : bool
        Whether a step starts from the final states of the step before.
    blocks : tuple of str
        Names.
    sizes : Sizes
    """

    graph: TaskGraph
    placement: Placement
    order: OrderName
    mode: StepMode
    data_method: DataMethodName
    carry: bool
    blocks: tuple[str, ...]
    sizes: Sizes

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.placement.n_ranks

    def axes(self, *wanted: Axis) -> Axes:
        """Of the wanted axes those longer than one."""
        return tuple(axis for axis in wanted if getattr(self.placement.grid, axis) > 1)

    def replicated_over(self, block: int) -> Axes:
        """Axes along which a block's parameters are copies of one another, so their gradients must be summed.

        Tensor ranks share recurrent blocks and the head out; the input block they all have, each with a part
        of its gradient.
        """
        whole = block == 0 and not self.graph.recurrent[block]
        return self.axes("data", "time", "tensor") if whole else self.axes("data", "time")

    def program(self, rank: int) -> Program:
        """Build the program of one rank; nothing about the others is built."""
        return Program(rank, self.placement.grid, self.blocks, tuple(_Lowering(self, rank).instructions()))

    def programs(self) -> tuple[Program, ...]:
        """Build the program of every rank."""
        return tuple(self.program(rank) for rank in range(self.n_ranks))


class _Lowering:
    """Lowers one rank's units."""

    def __init__(self, schedule: Schedule, rank: int) -> None:
        self._s = schedule
        self._place = schedule.placement.place(rank)
        self._units = units(schedule.graph, schedule.placement, self._place, schedule.order)
        self._begun: list[Collective] = []

    def instructions(self) -> Iterator[Instruction]:
        """Everything, in order."""
        receives = [self._receives(unit) for unit in self._units]
        sums = self._sums([task for unit in self._units for task in unit])
        held: dict[Task, list[PostSend]] = defaultdict(list)
        lagging: dict[int, list[PostSend]] = defaultdict(list)
        at_end: list[PostSend] = []
        ahead = receive_ahead(self._s.graph, self._s.placement)
        for early in receives[:ahead]:
            yield from early.values()
        for index, unit in enumerate(self._units):
            if index + ahead < len(receives):
                yield from receives[index + ahead].values()
            for send in lagging.pop(index, ()):
                yield Wait(send)
            for task in unit:
                yield from (Wait(receives[index][v]) for v in self._s.graph.values_into(task) if v in receives[index])
                yield from map(Wait, held.pop(task, ()))
                yield task
                for send in self._sends(task):
                    yield send
                    if send.value.kind in ("halo", "dhalo"):
                        at_end.append(send)  # states have buffers of their own
                    elif send.value.kind == "y" and self._s.graph.backward:
                        held[Task("B", task.block, task.microbatch, task.chunk)].append(send)
                    else:
                        lagging[index + _SEND_BEHIND].append(send)
                yield from self._begin(sums.pop(task, []))
        late = [send for index in sorted(lagging) for send in lagging[index]]
        yield from map(Wait, late + at_end)
        yield from self._end(sums)

    def _receives(self, unit: Unit) -> dict[Value, PostRecv]:
        found = {}
        for task in unit:
            for value in self._s.graph.values_into(task):
                owner = self._s.placement.owner(value.producer, self._place)
                if owner != self._place:
                    found[value] = PostRecv(value, self._s.placement.rank(owner), self._bytes(value))
        return found

    def _sends(self, task: Task) -> Iterator[PostSend]:
        for value in self._s.graph.values_out_of(task):
            owner = self._s.placement.owner(value.consumer, self._place)
            if owner != self._place:
                yield PostSend(value, self._s.placement.rank(owner), self._bytes(value))

    def _bytes(self, value: Value) -> int:
        return self._s.sizes.value_bytes(value, self._place)

    def _sums(self, tasks: Sequence[Task]) -> dict[Task | None, list[Collective]]:
        """Sums to begin, by the task that completes their operand; None: at the end."""
        s = self._s
        last = {(task.kind, task.block): index for index, task in enumerate(tasks)}
        sums: dict[Task | None, list[Collective]] = defaultdict(list)
        if axes := s.axes("data", "pipeline", "time", "tensor"):
            head = last.get(("F", s.graph.n_blocks - 1))
            sums[None if head is None else tasks[head]].append(AllReduceScalar("loss", axes))
        if s.graph.backward:
            for start, stop in self._buckets():
                axes = s.replicated_over(start)
                n_bytes = sum(s.sizes.gradient_bytes(block, self._place) for block in range(start, stop))
                if axes and n_bytes:
                    complete = max(last["W", block] for block in range(start, stop))
                    sums[tasks[complete]].append(AllReduce(start, stop, axes, n_bytes))
        return sums

    def _buckets(self) -> list[tuple[int, int]]:
        """Blocks whose gradients are summed together: one, or neighbours that are replicated alike."""
        buckets: list[tuple[int, int]] = []
        for block in self._s.placement.blocks_at(self._place):
            alike = buckets and self._s.replicated_over(buckets[-1][0]) == self._s.replicated_over(block)
            if self._s.data_method == "allreduce_flat" and alike and buckets[-1][1] == block:
                buckets[-1] = (buckets[-1][0], block + 1)
            else:
                buckets.append((block, block + 1))
        return buckets

    def _begin(self, posts: list[Collective]) -> list[Collective]:
        self._begun += posts
        return posts

    def _end(self, sums: dict[Task | None, list[Collective]]) -> Iterator[Instruction]:
        """What follows the last task: sums, in the order in which they were begun; carried states; the update."""
        yield from self._begin(sums.pop(None, []))
        yield from map(Wait, self._begun)
        if self._s.carry:
            yield from self._carry()
        if self._s.mode == "train":
            if axes := self._s.axes("pipeline", "tensor"):
                norm = AllReduceScalar("norm", axes)
                yield norm
                yield Wait(norm)
            yield Update()

    def _carry(self) -> Iterator[Instruction]:
        """Final states to where the next step's initial states lie."""
        s, place = self._s, self._place
        if s.placement.grid.time == 1:
            yield Carry()
            return
        last = s.placement.grid.time - 1
        first_rank, last_rank = (s.placement.rank(msgspec.structs.replace(place, time=t)) for t in (0, last))
        posts: list[PostSend | PostRecv] = []
        for value in carried_values(s.graph, s.placement.blocks_at(place)):
            if place.time == last:
                posts.append(PostSend(value, first_rank, self._bytes(value)))
            elif place.time == 0:
                posts.append(PostRecv(value, last_rank, self._bytes(value)))
        yield from posts
        yield from map(Wait, posts)


def carried_values(graph: TaskGraph, blocks: Iterable[int]) -> Iterator[Value]:
    """Final states of some blocks: what the last segment of time hands to the first for the next step."""
    for block in blocks:
        for m in range(graph.n_microbatches if graph.recurrent[block] else 0):
            yield Value("halo", block, m, graph.n_chunks - 1)
