"""Which rank does which tasks, and on which rows of the batch.

Ranks form a Cartesian grid ``data × pipeline × time × tensor`` (last axis fastest).  A rank's place says
what it owns: its share of the batch, its stages of the network, its segment of the time axis, its share of
every layer's hidden units.  A task belongs to the place that owns its block *and* its chunk, so placing by
layer and placing by time are the same rule on different axes.

Shares are even, or in proportion to the speeds of ranks: :mod:`hpcrnn.schedules.shares`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, pairwise, product

import msgspec

from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.shares import ALIKE, Speeds, share_out
from hpcrnn.spec import AXES, Axis, Grid


class Place(msgspec.Struct, frozen=True, gc=False):
    """Coordinates of a rank in the grid."""

    data: int = 0
    pipeline: int = 0
    time: int = 0
    tensor: int = 0


@dataclass(frozen=True)
class Layout:
    """What only the machine tells of its ranks; never part of a specification, so that cases stay comparable.

    Attributes
    ----------
    weights : tuple of float
        Speed of each rank in any unit; empty where shares are even.
    nodes : tuple of int
        Node of each rank, that is, whose memory it shares; empty where all are on one.
    """

    weights: tuple[float, ...] = ()
    nodes: tuple[int, ...] = ()


UNKNOWN = Layout()
"""Nothing is told: all ranks are alike."""


@dataclass(frozen=True)
class Placement:
    """Who owns what.

    Attributes
    ----------
    grid : Grid
        Ranks per axis.
    stages : tuple of range
        Blocks of every virtual stage; stage ``k`` lies on pipeline position ``k % grid.pipeline``, so more
        stages than positions interleave.
    segments : tuple of range
        Chunks of every time position.
    speeds : Speeds, optional
        Of the positions along each axis; all alike if not given.
    least_rows : int
        Rows of the batch that every data position has at the least: one a micro-batch.
    n_servers : int
        Data positions without rows, the first ones.
    """

    grid: Grid
    stages: tuple[range, ...]
    segments: tuple[range, ...]
    speeds: Speeds = ALIKE
    least_rows: int = 1
    n_servers: int = 0

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.grid.n_ranks

    @property
    def n_virtual(self) -> int:
        """Virtual stages on each pipeline position."""
        return len(self.stages) // self.grid.pipeline

    def place(self, rank: int) -> Place:
        """Coordinates of a rank."""
        if not 0 <= rank < self.n_ranks:
            msg = f"rank {rank} of {self.n_ranks}"
            raise ValueError(msg)
        coordinates = []
        for axis in reversed(AXES):
            rank, coordinate = divmod(rank, getattr(self.grid, axis))
            coordinates.append(coordinate)
        return Place(*reversed(coordinates))

    def rank(self, place: Place) -> int:
        """Number of the rank at a place."""
        number = 0
        for axis in AXES:
            number = number * getattr(self.grid, axis) + getattr(place, axis)
        return number

    @cached_property
    def _stage_of(self) -> dict[int, int]:
        return {block: stage for stage, blocks in enumerate(self.stages) for block in blocks}

    @cached_property
    def _segment_of(self) -> dict[int, int]:
        return {chunk: segment for segment, chunks in enumerate(self.segments) for chunk in chunks}

    def stage(self, block: int) -> int:
        """Virtual stage of a block."""
        return self._stage_of[block]

    def owner(self, task: Task, like: Place) -> Place:
        """The place that does a task, in the same replica and tensor group as ``like``."""
        pipeline = self._stage_of[task.block] % self.grid.pipeline
        return Place(like.data, pipeline, self._segment_of[task.chunk], like.tensor)

    def stages_at(self, place: Place) -> tuple[range, ...]:
        """Blocks of each virtual stage of a place, in the order of the network."""
        return self.stages[place.pipeline :: self.grid.pipeline]

    def blocks_at(self, place: Place) -> tuple[int, ...]:
        """Blocks of a place, in the order of the network."""
        return tuple(block for stage in self.stages_at(place) for block in stage)

    def chunks_at(self, place: Place) -> range:
        """Chunks of a place."""
        return self.segments[place.time]

    def rows(self, batch: int, place: Place) -> slice:
        """Rows of the global batch that a place works on."""
        if place.data < self.n_servers:
            return slice(0, 0)
        speeds = self.speeds.along("data", self.grid)[self.n_servers :]
        return share_out(batch, speeds, self.least_rows)[place.data - self.n_servers]

    def group(self, place: Place, axes: Sequence[Axis]) -> tuple[int, ...]:
        """Ranks that differ from a place along the given axes only, in ascending order; itself included."""
        ranges = [range(getattr(self.grid, axis)) if axis in axes else [getattr(place, axis)] for axis in AXES]
        return tuple(self.rank(Place(*coordinates)) for coordinates in product(*ranges))


def make_placement(
    graph: TaskGraph,
    grid: Grid,
    costs: Sequence[float],
    *,
    n_virtual: int = 1,
    speeds: Speeds = ALIKE,
    n_servers: int = 0,
) -> Placement:
    """Lay a graph out over a grid.

    Blocks go to ``pipeline * n_virtual`` contiguous stages that take as nearly equally long as can be, each with at
    least one recurrent block; chunks to ``time`` contiguous segments, whose steps need not be as many.

    Parameters
    ----------
    graph : TaskGraph
    grid : Grid
    costs : sequence of float
        Of all tasks of each block, in any unit.
    n_virtual : int
    speeds : Speeds
        Of the positions along each axis.
    n_servers : int
        Data positions without rows.

    Raises
    ------
    ValueError
        There are more stages than recurrent blocks, or more segments than chunks; a specification is
        checked for that before.
    """
    n_stages = grid.pipeline * n_virtual
    if n_stages > sum(graph.recurrent) or grid.time > graph.n_chunks:
        msg = f"{n_stages} stages of {sum(graph.recurrent)} layers, {grid.time} segments of {graph.n_chunks} chunks"
        raise ValueError(msg)
    chunks = tuple(range(part.start, part.stop) for part in split(graph.n_chunks, grid.time))
    stages = balanced(costs, graph.recurrent, n_stages, speeds.along("pipeline", grid))
    return Placement(grid, stages, chunks, speeds, graph.n_microbatches, n_servers)


def balanced(
    costs: Sequence[float], heavy: Sequence[bool], parts: int, speeds: Sequence[float] = (1.0,)
) -> tuple[range, ...]:
    """Cut blocks into contiguous parts, each with a heavy one, so that the part that takes longest takes least.

    Bisection on the time of that part; whether a time will do, a greedy cut tells.  With unequal speeds that is the
    best cut where heavy blocks behind the first are alike and light ones lie at the ends, as in every network here.

    ``balanced([1, 5, 5, 1], [False, True, True, False], 2)`` is ``(range(0, 2), range(2, 4))``.

    Parameters
    ----------
    costs : sequence of float
    heavy : sequence of bool
    parts : int
    speeds : sequence of float
        Of the first parts; those of the others follow in turn, as virtual stages do.
    """
    low, high = max(costs) / max(speeds), sum(costs) / min(speeds)
    best = _cut(costs, heavy, parts, speeds, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        cut = _cut(costs, heavy, parts, speeds, middle)
        if cut is None:
            low = middle
        else:
            best, high = cut, middle
    if best is None:
        raise ValueError(parts)
    return best


_BISECTIONS = 40
"""Enough to tell costs apart that differ by a millionth of a millionth."""


def _cut(
    costs: Sequence[float], heavy: Sequence[bool], parts: int, speeds: Sequence[float], limit_s: float
) -> tuple[range, ...] | None:
    """Fill part after part up to a time, leaving a heavy block for each part to come; None where it does not fit."""
    found: list[range] = []
    block, heavy_left = 0, sum(heavy)
    for later, speed in zip(reversed(range(parts)), cycle(speeds), strict=False):
        start, total, has_heavy = block, 0.0, False
        while block < len(costs):
            full = has_heavy and later > 0 and (total + costs[block]) / speed > limit_s
            if full or (heavy[block] and has_heavy and heavy_left <= later):
                break
            total += costs[block]
            has_heavy |= heavy[block]
            heavy_left -= heavy[block]
            block += 1
        if total / speed > limit_s or not has_heavy:
            return None
        found.append(range(start, block))
    return tuple(found) if block == len(costs) else None


def split(length: int, parts: int) -> tuple[slice, ...]:
    """Cut ``range(length)`` into contiguous parts whose sizes differ by at most one, larger ones first.

    ``split(7, 3)`` is ``(slice(0, 3), slice(3, 5), slice(5, 7))``.
    """
    base, extra = divmod(length, parts)
    bounds = [part * base + min(part, extra) for part in range(parts + 1)]
    return tuple(slice(a, b) for a, b in pairwise(bounds))


def imbalance(shares: Sequence[float]) -> float:
    """What fraction of the time the ranks of an axis idle because the largest share decides: 1 - mean / max."""
    return 1.0 - sum(shares) / (len(shares) * max(shares))
