"""How long buffers live, and which may lie in the same memory.

Two families of buffers depend on the schedule.  An *activation* ``A(l,m,c)`` is what F(l,m,c) leaves for later:
the tape and the output of a block, or the output received of a block on another rank.  A *gradient*
``G(l,m,c)`` is the gradient of that output.  Each lives from the first instruction of a program that touches it
to the last; buffers of the same block whose lives do not overlap share a *slot*.  So a schedule that keeps
fewer micro-batches in flight really allocates less.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.program import Instruction, PostRecv, PostSend, Program, Wait

Family = Literal["activation", "gradient"]


class Buffer(msgspec.Struct, frozen=True, gc=False):
    """One buffer of one unit of work; printed as ``A(l,m,c)`` or ``G(l,m,c)``."""

    family: Family
    block: int
    microbatch: int
    chunk: int

    def __str__(self) -> str:
        return f"{'A' if self.family == 'activation' else 'G'}({self.block},{self.microbatch},{self.chunk})"


@dataclass(frozen=True)
class Slots:
    """Where every buffer of a program lies.

    Attributes
    ----------
    of : dict of Buffer to int
        Slot of each buffer, among those of its family and block.
    counts : dict of (family, block) to int
        Slots of each family and block: its largest number of live buffers.
    """

    of: dict[Buffer, int]
    counts: dict[tuple[Family, int], int]


def touched(instruction: Instruction, graph: TaskGraph) -> Iterator[Buffer]:
    """Buffers an instruction reads or writes.

    Parameters
    ----------
    instruction : Instruction
    graph : TaskGraph
    """
    if isinstance(instruction, Task):
        yield from _touched_by_task(instruction, graph)
        return
    message = instruction.post if isinstance(instruction, Wait) else instruction
    if isinstance(message, PostSend | PostRecv) and message.value.kind in ("y", "dy"):
        value = message.value
        family: Family = "activation" if value.kind == "y" else "gradient"
        yield Buffer(family, value.block, value.microbatch, value.chunk)


def _touched_by_task(task: Task, graph: TaskGraph) -> Iterator[Buffer]:
    block, m, c = task.block, task.microbatch, task.chunk
    last = block == graph.n_blocks - 1
    yield Buffer("activation", block, m, c)
    if task.kind in ("F", "W") and block > 0:
        yield Buffer("activation", block - 1, m, c)
    if task.kind == "F" and graph.recurrent[block] and c > 0:
        yield Buffer("activation", block, m, c - 1)
    if task.kind == "B" and block > 0:
        yield Buffer("gradient", block - 1, m, c)
    # A recurrent block keeps what its W needs of the gradient on its tape.
    if not last and (task.kind == "B" or (task.kind == "W" and not graph.recurrent[block])):
        yield Buffer("gradient", block, m, c)


def lives(program: Program, graph: TaskGraph, chunks: Sequence[int]) -> dict[Buffer, tuple[int, int]]:
    """First and last step at which each buffer is touched.

    Parameters
    ----------
    program : Program
    graph : TaskGraph
    chunks : sequence of int
        Chunks of this rank: the state before its first one comes as a halo, not from a tape.
    """
    first = min(chunks)
    found: dict[Buffer, tuple[int, int]] = {}
    for step, instruction in enumerate(program.instructions):
        for buffer in touched(instruction, graph):
            if buffer.chunk >= first:
                found[buffer] = (found[buffer][0] if buffer in found else step, step)
    return found


def assign_slots(program: Program, graph: TaskGraph, chunks: Sequence[int]) -> Slots:
    """Give each buffer the lowest slot that is free from its first step to its last.

    Buffers of one block are intervals on a line: taking them by their first step needs no more slots than the
    largest number that are alive at once.
    """
    of: dict[Buffer, int] = {}
    counts: dict[tuple[Family, int], int] = {}
    free: dict[tuple[Family, int], list[int]] = {}
    ends: dict[tuple[Family, int], list[tuple[int, int]]] = {}
    for buffer, (start, stop) in sorted(lives(program, graph, chunks).items(), key=lambda item: item[1][0]):
        pool = (buffer.family, buffer.block)
        open_slots, running = free.setdefault(pool, []), ends.setdefault(pool, [])
        while running and running[0][0] < start:
            heapq.heappush(open_slots, heapq.heappop(running)[1])
        if open_slots:
            slot = heapq.heappop(open_slots)
        else:
            slot = counts.get(pool, 0)
            counts[pool] = slot + 1
        of[buffer] = slot
        heapq.heappush(running, (stop, slot))
    return Slots(of, counts)


def peak_live(program: Program, graph: TaskGraph, chunks: Sequence[int]) -> int:
    """Largest number of units whose activations a block of this rank keeps; a unit is a chunk of a micro-batch."""
    owned = {i.block for i in program.instructions if isinstance(i, Task)}
    counts = assign_slots(program, graph, chunks).counts
    own = (count for (family, block), count in counts.items() if family == "activation" and block in owned)
    return max(own, default=0)
