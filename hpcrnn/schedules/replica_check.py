"""What is special about the programs of ranks that exchange models, or have a parameter server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from hpcrnn.data_methods import SERVER
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import (
    Add,
    AllReduceParameters,
    Average,
    Instruction,
    Post,
    PostRecv,
    PostSend,
    Program,
    Serve,
    Update,
    Vector,
    Wait,
)
from hpcrnn.schedules.rank_check import RankCheck
from hpcrnn.schedules.schedule import Schedule


def check_rank(programs: Mapping[int, Program], rank: int, schedule: Schedule) -> None:
    """Check one rank's program by itself.

    Raises
    ------
    ScheduleError
        At the first rule broken.
    """
    kind: type[RankCheck] = RankCheck
    if schedule.averages:
        kind = _AveragingCheck
    elif schedule.workers:
        served_late = schedule.data_method == "parameter_server_async"
        kind = (_LateServerCheck if served_late else _ServerCheck) if schedule.is_server(rank) else _WorkerCheck
    kind(programs, rank, schedule).run()


class _AveragingCheck(RankCheck):
    """After the update come the sum of all models, its wait, and the average."""

    def __init__(self, programs: Mapping[int, Program], rank: int, schedule: Schedule) -> None:
        super().__init__(programs, rank, schedule)
        self._summed = self._averaged = False

    def _check(self, instruction: Instruction) -> None:
        average = self._s.average()
        if instruction == average:
            self._require(self._updated, "needs the update first")
            self._require(not self._summed and average not in self._in_flight, "is begun twice")
            self._in_flight[average] = self._step
        elif isinstance(instruction, AllReduceParameters):
            self._refuse(f"what sums the models is {average}")
        elif instruction == Wait(average):
            self._wait(average)
            self._summed = True
        elif isinstance(instruction, Average):
            self._require(self._summed, "needs the sum of the models first")
            self._require(not self._averaged, "averaged twice")
            self._averaged = True
        else:
            super()._check(instruction)

    def _end(self) -> None:
        super()._end()
        self._require(self._averaged, "the average is missing")


class _VectorCheck(RankCheck, ABC):
    """Gradients and parameters cross as they are."""

    def __init__(self, programs: Mapping[int, Program], rank: int, schedule: Schedule) -> None:
        super().__init__(programs, rank, schedule)
        self._posted: set[Post] = set()

    def _check(self, instruction: Instruction) -> None:
        if isinstance(instruction, PostRecv | PostSend) and isinstance(instruction.value, Vector):
            self._require(instruction not in self._posted, f"{instruction.handle} is begun twice")
            self._vector(instruction, instruction.value)
            self._posted.add(instruction)
            self._in_flight[instruction] = self._step
        else:
            super()._check(instruction)

    @abstractmethod
    def _vector(self, post: PostRecv | PostSend, vector: Vector) -> None:
        """Check that what begins to cross may cross now."""

    def _expect(self, post: PostRecv | PostSend, expected: PostRecv | PostSend) -> None:
        self._require(post == expected, f"what crosses here is {expected}")

    def _blocks_of(self, vector: Vector) -> range:
        blocks, own = range(vector.start, vector.stop), ", ".join(map(str, sorted(self._blocks)))
        self._require(bool(blocks) and self._blocks.issuperset(blocks), f"blocks of this rank are {own}")
        return blocks

    def _n_bytes(self, blocks: range) -> int:
        return sum(self._s.sizes.gradient_bytes(block, self._place) for block in blocks)

    def _all_summed(self) -> None:
        """Sums are the server's."""


class _WorkerCheck(_VectorCheck):
    """Every gradient goes to the server once it is complete; parameters come back when the tasks are done."""

    def _check(self, instruction: Instruction) -> None:
        self._require(not isinstance(instruction, Update), "the server updates")
        super()._check(instruction)
        if isinstance(instruction, Wait) and isinstance(instruction.post, PostRecv):
            self._updated = True

    def _vector(self, post: PostRecv | PostSend, vector: Vector) -> None:
        self._require(not self._updated, "nothing may follow the update")
        if isinstance(post, PostRecv):
            whole, n_bytes = self._s.vector("parameters", self._place)
            self._expect(post, PostRecv(whole, SERVER, n_bytes))
            missing = next(iter(self._missing), None)
            self._require(missing is None, f"would overwrite what {missing} computes with")
            return
        blocks = self._blocks_of(vector)
        self._begins(blocks)
        self._expect(post, PostSend(Vector("gradient", blocks.start, blocks.stop), SERVER, self._n_bytes(blocks)))
        self._reduced.update(blocks)

    def _end(self) -> None:
        super()._end()
        for block in sorted(self._blocks - self._reduced):
            self._require(not self._n_bytes(range(block, block + 1)), f"the gradient of block {block} is never sent")


class _ServerCheck(_VectorCheck):
    """Gradients of all workers are received and added in the order of the workers; then all get the parameters."""

    def __init__(self, programs: Mapping[int, Program], rank: int, schedule: Schedule) -> None:
        super().__init__(programs, rank, schedule)
        self._there: set[Add] = set()
        self._added: dict[int, list[int]] = {block: [] for block in self._blocks}

    def _tasks(self) -> Iterator[Task]:
        return iter(())

    def _check(self, instruction: Instruction) -> None:
        waits_for = instruction.post if isinstance(instruction, Wait) else None
        if isinstance(instruction, Add):
            self._add(instruction)
        elif isinstance(waits_for, PostSend):
            self._wait(waits_for)
        else:
            if isinstance(instruction, Update):
                self._require(self._is_complete, "a worker's gradient is not yet added")
            super()._check(instruction)
        if isinstance(waits_for, PostRecv) and isinstance(waits_for.value, Vector):
            self._there.add(Add(waits_for.value, waits_for.peer))

    def _vector(self, post: PostRecv | PostSend, vector: Vector) -> None:
        self._require(post.peer in self._s.workers, f"workers are {', '.join(map(str, self._s.workers))}")
        if isinstance(post, PostSend):
            whole, n_bytes = self._s.vector("parameters", self._place)
            self._expect(post, PostSend(whole, post.peer, n_bytes))
            self._require(self._updated, "needs the update first")
            return
        self._require(not self._updated, "nothing may follow the update")
        blocks = self._blocks_of(vector)
        self._expect(post, PostRecv(Vector("gradient", blocks.start, blocks.stop), post.peer, self._n_bytes(blocks)))

    def _add(self, add: Add) -> None:
        self._require(not self._updated, "nothing may follow the update")
        self._require(add in self._there, "was not received")
        for block in range(add.value.start, add.value.stop):
            done, workers = self._added[block], self._s.workers
            turn = workers[len(done)] if len(done) < len(workers) else None
            self._require(add.peer not in done, "added twice")
            self._require(add.peer == turn, f"it is the turn of rank {turn}: sums have one order")
            done.append(add.peer)

    @property
    def _is_complete(self) -> bool:
        with_parameters = (block for block in self._blocks if self._n_bytes(range(block, block + 1)))
        return all(len(self._added[block]) == len(self._s.workers) for block in with_parameters)

    def _all_carried(self) -> None:
        """No states are here."""

    def _end(self) -> None:
        super()._end()
        sent = {post.peer for post in self._posted if isinstance(post, PostSend)}
        left = next((worker for worker in self._s.workers if worker not in sent), None)
        self._require(left is None, f"rank {left} never gets its parameters")


class _LateServerCheck(RankCheck):
    """There is one instruction, and it serves everybody."""

    def _tasks(self) -> Iterator[Task]:
        return iter(())

    def _check(self, instruction: Instruction) -> None:
        self._require(not self._updated, "nothing may follow")
        expected = self._s.serve()
        self._require(isinstance(instruction, Serve) and instruction == expected, f"a server does {expected}")
        self._updated = True

    def _all_summed(self) -> None:
        """Nothing is summed."""

    def _all_carried(self) -> None:
        """No states are here."""
