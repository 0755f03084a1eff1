"""The task graph of one training step.

The work is cut over blocks ``l`` (input layer, recurrent layers, head), micro-batches ``m`` and chunks of
time ``c``::

    F(l,m,c)  forward          needs F(l-1,m,c)  and, in a recurrent block, F(l,m,c-1)
    B(l,m,c)  input gradient   needs B(l+1,m,c)  and, in a recurrent block, B(l,m,c+1), and F(l,m,c)
    W(l,m,c)  weight gradient  needs B(l,m,c); may run any time later

Every edge between different blocks or chunks carries a *value*, named after the task that makes it::

                     across blocks                 across chunks
    forward     y(l,m,c)   F(l,m,c) → F(l+1,m,c)   halo(l,m,c)   F(l,m,c) → F(l,m,c+1)
    backward    dy(l,m,c)  B(l+1,m,c) → B(l,m,c)   dhalo(l,m,c)  B(l,m,c+1) → B(l,m,c)

The two columns are transposes of one another: cut the graph between blocks and ``y``, ``dy`` cross (a layer
pipeline), cut it between chunks and the halo states cross (time segments).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

TaskKind = Literal["F", "B", "W"]
ValueKind = Literal["y", "dy", "halo", "dhalo"]


class Task(msgspec.Struct, frozen=True, gc=False):
    """One task; printed as ``F(l,m,c)``."""

    kind: TaskKind
    block: int
    microbatch: int
    chunk: int

    def __str__(self) -> str:
        return f"{self.kind}({self.block},{self.microbatch},{self.chunk})"


class Value(msgspec.Struct, frozen=True, gc=False):
    """What one task hands to another; printed as ``halo(l,m,c)``.

    ``y`` and ``halo`` are output and final state of ``F(l,m,c)``; ``dy`` and ``dhalo`` their gradients.
    """

    kind: ValueKind
    block: int
    microbatch: int
    chunk: int

    def __str__(self) -> str:
        return f"{self.kind}({self.block},{self.microbatch},{self.chunk})"

    @property
    def producer(self) -> Task:
        """The task that makes it."""
        b, m, c = self.block, self.microbatch, self.chunk
        if self.kind in ("y", "halo"):
            return Task("F", b, m, c)
        return Task("B", b + 1, m, c) if self.kind == "dy" else Task("B", b, m, c + 1)

    @property
    def consumer(self) -> Task:
        """The task that needs it."""
        b, m, c = self.block, self.microbatch, self.chunk
        if self.kind in ("dy", "dhalo"):
            return Task("B", b, m, c)
        return Task("F", b + 1, m, c) if self.kind == "y" else Task("F", b, m, c + 1)


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
    coupled : bool
        Whether the chunks of a recurrent block are solved together, by a method that exchanges halos inside its tasks:
        no task then waits for one of another chunk.
    """

    recurrent: tuple[bool, ...]
    n_microbatches: int
    n_chunks: int
    backward: bool = True
    coupled: bool = False

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

    def _hands_on(self, block: int) -> bool:
        """Whether tasks of a block hand their state to those of the next chunk."""
        return self.recurrent[block] and not self.coupled

    def values_into(self, task: Task) -> tuple[Value, ...]:
        """Values a task needs from other blocks and other chunks."""
        block, m, c = task.block, task.microbatch, task.chunk
        found: list[Value] = []
        if task.kind == "F":
            if block > 0:
                found.append(Value("y", block - 1, m, c))
            if self._hands_on(block) and c > 0:
                found.append(Value("halo", block, m, c - 1))
        elif task.kind == "B":
            if block + 1 < self.n_blocks:
                found.append(Value("dy", block, m, c))
            if self._hands_on(block) and c + 1 < self.n_chunks:
                found.append(Value("dhalo", block, m, c))
        return tuple(found)

    def values_out_of(self, task: Task) -> tuple[Value, ...]:
        """Values a task makes for other blocks and other chunks."""
        block, m, c = task.block, task.microbatch, task.chunk
        found: list[Value] = []
        if task.kind == "F":
            if block + 1 < self.n_blocks:
                found.append(Value("y", block, m, c))
            if self._hands_on(block) and c + 1 < self.n_chunks:
                found.append(Value("halo", block, m, c))
        elif task.kind == "B":
            if block > 0:
                found.append(Value("dy", block - 1, m, c))
            if self._hands_on(block) and c > 0:
                found.append(Value("dhalo", block, m, c - 1))
        return tuple(found)

    def needs(self, task: Task) -> tuple[Task, ...]:
        """Tasks that must be done before this one."""
        found = [value.producer for value in self.values_into(task)]
        if task.kind == "B":
            found.append(Task("F", task.block, task.microbatch, task.chunk))
        elif task.kind == "W":
            found.append(Task("B", task.block, task.microbatch, task.chunk))
        return tuple(found)
