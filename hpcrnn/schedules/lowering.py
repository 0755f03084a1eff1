"""From ordered tasks to a program: the communication, derived.

A value whose producer and consumer lie on different ranks becomes a message.  Around a rank's units::

    PostRecv  what the *next* unit needs          early: the message travels while this unit computes
    Wait recv, task, PostSend                     each task waits for its own values only
    Wait send                                     late: when the buffer is wanted again, or the step ends

Sums are begun as soon as their operand is complete, and waited for at the end.  A sum may take several stages: when
another one begins, those under way go on to their next stage.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from hpcrnn.data_methods import SERVER
from hpcrnn.schedules.graph import Task, TaskGraph, Value
from hpcrnn.schedules.order import Unit, turns, units
from hpcrnn.schedules.placement import Placement
from hpcrnn.schedules.program import (
    Add,
    AllReduceScalar,
    Average,
    Carry,
    Instruction,
    PostRecv,
    PostSend,
    Update,
    Vector,
    Wait,
)

if TYPE_CHECKING:
    from hpcrnn.schedules.schedule import Schedule, Sum


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


def lowered(schedule: Schedule, rank: int) -> Iterator[Instruction]:
    """Lower one rank's part of a schedule; nothing of the others'."""
    lowering = _Lowering(schedule, rank)
    return lowering.serving() if schedule.is_server(rank) else lowering.instructions()


class _Lowering:
    """Lowers one rank's units."""

    def __init__(self, schedule: Schedule, rank: int) -> None:
        self._s = schedule
        self._place = schedule.placement.place(rank)
        self._units = units(schedule.graph, schedule.placement, self._place, schedule.order)
        self._under_way: deque[tuple[Sum, int]] = deque()
        """Sums, and the stage that each is in."""

    def instructions(self) -> Iterator[Instruction]:
        """Everything, in order."""
        receives = [self._receives(unit) for unit in self._units]
        complete = self._completed([task for unit in self._units for task in unit])
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
                for begun in self._begin(complete.pop(task, [])):
                    yield begun
                    if isinstance(begun, PostSend):
                        at_end.append(begun)
        late = [send for index in sorted(lagging) for send in lagging[index]]
        if self._s.workers:
            parameters = PostRecv(self._s.vector("parameters", self._place)[0], SERVER, self._n_bytes)
            yield parameters
            yield from self._end(complete)
            yield from map(Wait, late + at_end)
            yield Wait(parameters)
            return
        yield from map(Wait, late + at_end)
        yield from self._end(complete)

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

    def _completed(self, tasks: Sequence[Task]) -> dict[Task | None, list[Sum | PostSend]]:
        """What to begin, by the task that completes its operand; None: at the end."""
        s = self._s
        last = {(task.kind, task.block): index for index, task in enumerate(tasks)}
        found: dict[Task | None, list[Sum | PostSend]] = defaultdict(list)
        if s.loss_axes:
            head = last.get(("F", s.graph.n_blocks - 1))
            found[None if head is None else tasks[head]].append((AllReduceScalar("loss", s.loss_axes),))
        if s.graph.backward:
            for start, stop in self._buckets():
                complete = tasks[max(last["W", block] for block in range(start, stop))]
                if s.workers:
                    found[complete] += self._push(start, stop)
                elif stages := s.sum_of(start, stop, self._place):
                    found[complete].append(stages)
        return found

    def _push(self, start: int, stop: int) -> list[Sum | PostSend]:
        """A worker's gradient on its way to the server, where there is any."""
        n_bytes = self._gradient_bytes(start, stop)
        return [PostSend(Vector("gradient", start, stop), SERVER, n_bytes)] if n_bytes else []

    def _gradient_bytes(self, start: int, stop: int) -> int:
        return sum(self._s.sizes.gradient_bytes(block, self._place) for block in range(start, stop))

    @property
    def _n_bytes(self) -> int:
        return self._s.vector("parameters", self._place)[1]

    def _buckets(self) -> list[tuple[int, int]]:
        """Blocks whose gradients cross together: one, or neighbours that are replicated alike."""
        together = self._s.data_method in ("allreduce_flat", "parameter_server_async")
        buckets: list[tuple[int, int]] = []
        for block in self._s.placement.blocks_at(self._place):
            alike = buckets and self._s.replicated_over(buckets[-1][0]) == self._s.replicated_over(block)
            if together and alike and buckets[-1][1] == block:
                buckets[-1] = (buckets[-1][0], block + 1)
            else:
                buckets.append((block, block + 1))
        return buckets

    def _begin(self, found: Iterable[Sum | PostSend]) -> Iterator[Instruction]:
        """Begin sums and sends; with the first stage of a sum those under way go on to their next."""
        for begun in found:
            if isinstance(begun, PostSend):
                yield begun
                continue
            yield from filter(None, begun[:1])
            for place, (stages, k) in enumerate(self._under_way):
                if k + 1 < len(stages):
                    yield from _next_stage(stages, k)
                    self._under_way[place] = (stages, k + 1)
            self._under_way.append((begun, 0))

    def _end(self, complete: dict[Task | None, list[Sum | PostSend]]) -> Iterator[Instruction]:
        """What follows the last task: sums, in the order in which they were begun; carried states; the update."""
        yield from self._begin(complete.pop(None, []))
        while self._under_way:
            stages, k = self._under_way.popleft()
            yield from _next_stage(stages, k)
            if k + 1 < len(stages):
                self._under_way.append((stages, k + 1))
        if self._s.carry:
            yield from self._carry()
        if self._s.mode == "train" and not self._s.workers:
            if axes := self._s.axes("pipeline", "tensor"):
                norm = AllReduceScalar("norm", axes)
                yield norm
                yield Wait(norm)
            yield Update()
        if self._s.averages:
            average = self._s.average()
            yield from (average, Wait(average), Average())

    def serving(self) -> Iterator[Instruction]:
        """The program of a parameter server."""
        s = self._s
        if s.data_method == "parameter_server_async":
            yield s.serve()
            return
        receives = [
            PostRecv(Vector("gradient", block, block + 1), worker, n_bytes)
            for block in reversed(range(s.graph.n_blocks))
            if (n_bytes := self._gradient_bytes(block, block + 1))
            for worker in s.workers
        ]
        loss = AllReduceScalar("loss", s.loss_axes)
        yield from receives
        yield loss
        for receive in receives:
            yield Wait(receive)
            yield Add(receive.value, receive.peer)  # type: ignore[arg-type]  # a vector
        yield Wait(loss)
        yield Update()
        whole, n_bytes = s.vector("parameters", self._place)
        sends = [PostSend(whole, worker, n_bytes) for worker in s.workers]
        yield from sends
        yield from map(Wait, sends)

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


def _next_stage(stages: Sum, k: int) -> Iterator[Instruction]:
    """End a stage and begin the next, where this rank has part in them."""
    if (stage := stages[k]) is not None:
        yield Wait(stage)
    yield from filter(None, stages[k + 1 : k + 2])


def carried_values(graph: TaskGraph, blocks: Iterable[int]) -> Iterator[Value]:
    """Final states of some blocks: what the last segment of time hands to the first for the next step."""
    for block in blocks:
        for m in range(graph.n_microbatches if graph.recurrent[block] else 0):
            yield Value("halo", block, m, graph.n_chunks - 1)
