"""Whether one rank's program does that rank's tasks, each after what it needs, and its part in what crosses ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.drawing import refusal
from hpcrnn.schedules.graph import Task, Value
from hpcrnn.schedules.lowering import carried_values
from hpcrnn.schedules.placement import Place
from hpcrnn.schedules.program import (
    AllReduce,
    AllReduceScalar,
    Axes,
    Carry,
    Instruction,
    Message,
    Post,
    PostRecv,
    PostSend,
    Program,
    SumStage,
    Update,
    Vector,
    Wait,
)
from hpcrnn.schedules.schedule import Schedule


class RankCheck:
    """Walks one rank's program and keeps what has been done and begun so far.

    That no task overwrites what is being sent needs no check: a buffer lives until the wait, a task writes each
    buffer once and before it is sent, and a backward task leaves ``y`` as it is for the weight gradient of the
    block after.

    Parameters
    ----------
    programs : mapping of int to Program
        Of this rank, and of those that an error is to show beside it.
    rank : int
    schedule : Schedule
    """

    def __init__(self, programs: Mapping[int, Program], rank: int, schedule: Schedule) -> None:
        self._programs, self._rank, self._s = programs, rank, schedule
        self._graph, self._place = schedule.graph, schedule.placement.place(rank)
        self._step = 0
        self._own = frozenset(self._tasks())
        self._blocks = frozenset(schedule.placement.blocks_at(self._place))
        self._missing = set(self._own)
        self._left: dict[tuple[str, int], int] = {}
        for task in self._own:
            self._left[task.kind, task.block] = self._left.get((task.kind, task.block), 0) + 1
        self._in_flight: dict[Post, int] = {}
        self._summing = 0
        self._stage: dict[tuple[int, int], int] = {}
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
            self._check(instruction)
        self._end()

    def _tasks(self) -> Iterator[Task]:
        """Tasks of this rank."""
        for block in self._s.placement.blocks_at(self._place):
            for kind in self._graph.kinds:
                for m in range(self._graph.n_microbatches):
                    for c in self._s.placement.chunks_at(self._place):
                        yield Task(kind, block, m, c)

    def _check(self, instruction: Instruction) -> None:
        """Check one instruction, and take note of it."""
        self._require(not self._updated, "nothing may follow the update")
        if isinstance(instruction, Task):
            self._task(instruction)
        elif isinstance(instruction, PostRecv | PostSend):
            self._message(instruction)
        elif isinstance(instruction, AllReduce | SumStage):
            self._sum(instruction)
        elif isinstance(instruction, AllReduceScalar):
            self._scalar(instruction)
        elif isinstance(instruction, Wait):
            self._wait(instruction.post)
        elif isinstance(instruction, Carry):
            self._carry()
        elif isinstance(instruction, Update):
            self._update()
        else:
            self._refuse(f"has no place in a step of {self._s.data_method}")

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        raise self._refusal(reason)

    def _refusal(self, reason: str) -> ScheduleError:
        return refusal(self._programs, self._rank, self._step, reason)

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
        if isinstance(value, Vector):
            raise self._refusal("not a value that crosses ranks here")
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

    def _sum(self, post: AllReduce | SumStage) -> None:
        """A sum of gradients begins, or goes on to its next stage."""
        blocks = range(post.start, post.stop)
        own = ", ".join(map(str, self._blocks))
        self._require(bool(blocks) and self._blocks.issuperset(blocks), f"blocks of this rank are {own}")
        for block in blocks:
            axes = self._s.replicated_over(block)
            alike = axes == (post.axes if isinstance(post, AllReduce) else self._s.replicated_over(post.start))
            self._require(alike, f"block {block} is replicated over {','.join(axes) or 'nothing'}")
        stages = self._s.sum_of(post.start, post.stop, self._place)
        at = self._stage.get((post.start, post.stop), -1)
        following = next((k for k in range(at + 1, len(stages)) if stages[k] is not None), None)
        if at < 0 or following is None:
            self._begins(blocks)
        else:
            self._require(not self._is_summing(post), "the stage before is still under way")
        expected = "nothing" if following is None else str(stages[following])
        self._require(expected == str(post), f"what sums these gradients here is {expected}")
        self._stage[post.start, post.stop] = -1 if following is None else following
        self._reduced.update(blocks)
        self._summing += 1
        self._in_flight[post] = self._step

    def _begins(self, blocks: range) -> None:
        """The gradients of some blocks are complete, and no other sum has them."""
        for block in blocks:
            self._require(block not in self._reduced, f"block {block} is summed twice")
            incomplete = not self._graph.backward or self._left.get(("W", block), 0) > 0
            self._require(not incomplete, f"the gradient of block {block} is not complete")

    def _is_summing(self, post: AllReduce | SumStage) -> bool:
        sums = (p for p in self._in_flight if isinstance(p, AllReduce | SumStage))
        return any((p.start, p.stop) == (post.start, post.stop) for p in sums)

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
            return self._s.loss_axes
        return self._s.axes("pipeline", "tensor")

    def _wait(self, post: Post) -> None:
        self._require(post in self._in_flight, "waits for what was not begun")
        del self._in_flight[post]
        if isinstance(post, PostRecv) and isinstance(post.value, Value):
            self._arrived.add(post.value)
        elif isinstance(post, AllReduce | SumStage):
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
            wanted = self._graph.backward and self._s.sum_of(block, block + 1, self._place)
            if wanted:
                self._require(block in self._reduced, f"the gradient of block {block} is never summed")
        for (start, stop), at in self._stage.items():
            stages = self._s.sum_of(start, stop, self._place)
            left = next(filter(None, stages[at + 1 :]), None)
            self._require(left is None, f"{left} never begins")

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
