"""Which rank does which tasks, and on which rows of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hpcrnn.schedules.graph import Task, TaskGraph


@dataclass(frozen=True)
class Placement:
    """The whole graph on every one of ``n_replicas`` ranks, each on its own rows of the batch.

    One replica is the serial run; several are data parallelism.
    """

    n_replicas: int = 1

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.n_replicas

    def tasks(self, graph: TaskGraph, rank: int) -> tuple[Task, ...]:
        """Tasks of one rank, in no particular order."""
        if not 0 <= rank < self.n_ranks:
            msg = f"rank {rank} of {self.n_ranks}"
            raise ValueError(msg)
        return tuple(graph.tasks())

    def rows(self, batch: int, rank: int) -> slice:
        """Rows of the global batch that a rank works on."""
        return split(batch, self.n_replicas)[rank]


def split(length: int, parts: int) -> tuple[slice, ...]:
    """Cut ``range(length)`` into contiguous parts whose sizes differ by at most one, larger ones first.

    ``split(7, 3)`` is ``(slice(0, 3), slice(3, 5), slice(5, 7))``.
    """
    base, extra = divmod(length, parts)
    bounds = [part * base + min(part, extra) for part in range(parts + 1)]
    return tuple(slice(a, b) for a, b in pairwise(bounds))
