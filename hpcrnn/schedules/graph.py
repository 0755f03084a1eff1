"""The task graph of one training step.

The work is cut over blocks ``l`` (input layer, recurrent layers, head), micro-batches ``m`` and chunks of
time ``c``::

    F(l,m,c)  forward          needs F(l-1,m,c)  and, in a recurrent block, F(l,m,c-1)
    B(l,m,c)  input gradient   needs B(l+1,m,c)  and, in a recurrent block, B(l,m,c+1), and F(l,m,c)
    W(l,m,c)  weight gradient  needs B(l,m,c); may run any time later
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

TaskKind = Literal["F", "B", "W"]


@dataclass(frozen=True, slots=True)
class Task:
    """One task; printed as ``F(l,m,c)``."""

    kind: TaskKind
    block: int
    microbatch: int
    chunk: int

    def __str__(self) -> str:
        return f"{self.kind}({self.block},{self.microbatch},{self.chunk})"


@dataclass(frozen=True)
class TaskGraph:
    """All tasks of a step and what each needs.

    Attributes
    ----------
    recurrent : tuple of bool
        One entry a block: whether its chunks depend on one another.
    n_microbatches, n_chunks : int
    backward : bool
        Whether gradients are computed.
    """

    recurrent: tuple[bool, ...]
    n_microbatches: int
    n_chunks: int
    backward: bool = True

    @property
    def n_blocks(self) -> int:
        """Blocks of the network."""
        return len(self.recurrent)

    @property
    def kinds(self) -> tuple[TaskKind, ...]:
        """Kinds of task in this graph."""
        return ("F", "B", "W") if self.backward else ("F",)

    def tasks(self) -> Iterator[Task]:
        """Every task, once."""
        for kind in self.kinds:
            for block in range(self.n_blocks):
                for microbatch in range(self.n_microbatches):
                    for chunk in range(self.n_chunks):
                        yield Task(kind, block, microbatch, chunk)

    def needs(self, task: Task) -> tuple[Task, ...]:
        """Tasks that must be done before this one."""
        kind, block, m, c = task.kind, task.block, task.microbatch, task.chunk
        if kind == "W":
            return (Task("B", block, m, c),)
        step = 1 if kind == "F" else -1  # which neighbour a pass comes from
        found = []
        if 0 <= block - step < self.n_blocks:
            found.append(Task(kind, block - step, m, c))
        if self.recurrent[block] and 0 <= c - step < self.n_chunks:
            found.append(Task(kind, block, m, c - step))
        if kind == "B":
            found.append(Task("F", block, m, c))
        return tuple(found)
