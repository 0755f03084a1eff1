"""Run a schedule on a machine whose messages take no time.

What is left is what the order of the tasks alone decides: when the last rank is done, how long ranks idle, how
many activations they keep.  The same programs run here and under MPI, so thousands of ranks can be looked at on
one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.records.timeline import Timeline
from hpcrnn.schedules.drawing import refusal
from hpcrnn.schedules.graph import Task, TaskGraph, TaskKind
from hpcrnn.schedules.lifetimes import peak_live
from hpcrnn.schedules.placement import Place
from hpcrnn.schedules.program import Instruction, Over, Program
from hpcrnn.schedules.replay import Walk, replay
from hpcrnn.schedules.schedule import Schedule

Cost = Callable[[Place, Task], float]
"""How long a task keeps the rank at a place busy, in any unit."""


class Pieces(Protocol):
    """How the data of a step is cut."""

    @property
    def chunks(self) -> tuple[slice, ...]:
        """Time steps of every chunk."""

    def microbatches(self, place: Place) -> tuple[slice, ...]:
        """Rows of each micro-batch of a place."""


def unit_cost(graph: TaskGraph, *, F: float = 1.0, B: float = 1.0, W: float = 1.0) -> Cost:
    """Every task of a recurrent block costs the same, input layer and head nothing.

    Parameters
    ----------
    graph : TaskGraph
    F, B, W : float
        Time of one forward, input gradient and weight gradient task.
    """
    times = {"F": F, "B": B, "W": W}

    def cost(_: Place, task: Task) -> float:
        return times[task.kind] if graph.recurrent[task.block] else 0.0

    return cost


_EQUAL_SHARES: Mapping[TaskKind, float] = {"F": 1.0, "B": 1.0, "W": 1.0}


def operation_cost(
    operations: Sequence[float], pieces: Pieces, *, shares: Mapping[TaskKind, float] = _EQUAL_SHARES
) -> Cost:
    """Tasks cost in proportion to their operations.

    Parameters
    ----------
    operations : sequence of float
        Of each block, for all rows and steps and all kinds of task together, in any unit.
    pieces : Pieces
        A task has as large a part of its block's operations as it has of the rows and of the steps.
    shares : mapping of kind to float
        How a block's operations divide among the kinds of task the schedule has.
    """
    whole = sum(shares.values())
    rates = {(kind, block): share / whole * n for kind, share in shares.items() for block, n in enumerate(operations)}
    steps = [int(part.stop - part.start) for part in pieces.chunks]

    @cache
    def rows(place: Place) -> tuple[int, ...]:
        return tuple(part.stop - part.start for part in pieces.microbatches(place))

    def cost(place: Place, task: Task) -> float:
        return rates[task.kind, task.block] * rows(place)[task.microbatch] * steps[task.chunk]

    return cost


@dataclass(frozen=True, eq=False)
class Simulation:
    """One step on the ideal machine.

    Ranks that would do the same at the same time are simulated once.

    Attributes
    ----------
    schedule : Schedule
    programs : dict of int to Program
        Of the ranks simulated.
    alike : dict of int to int
        How many ranks each of them stands for.
    walk : Walk
        When each instruction started and ended.
    busy : dict of int to float
        Time each rank spent in tasks.
    """

    schedule: Schedule
    programs: dict[int, Program]
    alike: dict[int, int]
    walk: Walk
    busy: dict[int, float]

    @property
    def makespan(self) -> float:
        """When the last rank is done."""
        return self.walk.makespan

    @property
    def bubble(self) -> float:
        """Fraction of the step that ranks idle, over all ranks: 1 - sum(busy) / (n_ranks * makespan)."""
        busy = sum(self.busy[rank] * count for rank, count in self.alike.items())
        whole = self.schedule.n_ranks * self.makespan
        return 1.0 - busy / whole if whole else 0.0

    @cached_property
    def peak_units(self) -> dict[int, int]:
        """Largest number of units, chunks of micro-batches, whose activations a block of each rank keeps."""
        graph, placement = self.schedule.graph, self.schedule.placement
        return {r: peak_live(p, graph, placement.chunks_at(placement.place(r))) for r, p in self.programs.items()}

    @property
    def peak_microbatches(self) -> dict[int, float]:
        """The same in micro-batches of the rank's segment of time."""
        placement = self.schedule.placement
        return {r: n / len(placement.chunks_at(placement.place(r))) for r, n in self.peak_units.items()}

    def timeline(self) -> Timeline:
        """Return what every simulated rank did, in the form of a measured step; units of the cost stand for seconds."""
        lengths = {rank: len(program.instructions) for rank, program in self.programs.items()}
        return Timeline(
            np.repeat(np.array(list(lengths), np.int64), list(lengths.values())),
            tuple(str(i) for program in self.programs.values() for i in program.instructions),
            _joined([self.walk.start[rank] for rank in lengths]),
            _joined([self.walk.end[rank] for rank in lengths]),
        )


def _joined(columns: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    return np.concatenate(columns) if columns else np.empty(0)


def simulate(schedule: Schedule, cost: Cost) -> Simulation:
    """Run one step of all ranks, with messages and sums that take no time.

    Tensor ranks work in lockstep and replicas with the same costs do the same, so of each such group one is
    simulated.

    Parameters
    ----------
    schedule : Schedule
    cost : callable
        Of place and task; the same for all tensor ranks.

    Returns
    -------
    Simulation

    Raises
    ------
    ScheduleError
        The programs do not come to an end.
    """
    placement = schedule.placement
    replicas = _distinct_replicas(schedule, cost)
    alike = {
        placement.rank(Place(d, p, t)): count * placement.grid.tensor
        for d, count in replicas.items()
        for p in range(placement.grid.pipeline)
        for t in range(placement.grid.time)
    }
    programs = {rank: schedule.program(rank) for rank in sorted(alike)}
    places = {rank: placement.place(rank) for rank in programs}

    def members(rank: int, over: Over) -> tuple[int, ...]:
        return tuple(r for r in schedule.group(rank, over) if r in programs)

    def duration(rank: int, instruction: Instruction) -> float:
        return cost(places[rank], instruction) if isinstance(instruction, Task) else 0.0

    walk = replay(programs, members, duration)
    if walk.stuck:
        rank, step = next(iter(walk.stuck.items()))
        raise refusal(programs, rank, step, "deadlock: never ends")
    busy = {
        rank: sum(cost(places[rank], i) for i in program.instructions if isinstance(i, Task))
        for rank, program in programs.items()
    }
    return Simulation(schedule, programs, alike, walk, busy)


def _distinct_replicas(schedule: Schedule, cost: Cost) -> dict[int, int]:
    """First replica of each group with the same programs and costs, and the size of the group."""
    if not schedule.is_symmetric:
        return dict.fromkeys(range(schedule.placement.grid.data), 1)
    tasks = list(schedule.graph.tasks())
    first: dict[tuple[float, ...], int] = {}
    sizes: Counter[int] = Counter()
    for replica in range(schedule.placement.grid.data):
        costs = tuple(cost(schedule.placement.owner(task, Place(data=replica)), task) for task in tasks)
        sizes[first.setdefault(costs, replica)] += 1
    return dict(sizes)
