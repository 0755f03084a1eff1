"""Refuse a program that would hang or compute something else, before it runs."""

from __future__ import annotations

from collections.abc import Sequence

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Instruction, Post, Program, Wait

_CONTEXT = 3
_SHOWN_RANKS = 8


def validate(programs: Sequence[Program], graph: TaskGraph, parameter_bytes: Sequence[int], *, update: bool) -> None:
    """Check the programs of all ranks.

    Parameters
    ----------
    programs : sequence of Program
        One a rank; every rank runs the whole graph.
    graph : TaskGraph
    parameter_bytes : sequence of int
        Size of each block's gradient.
    update : bool
        Whether the step ends with the optimizer.

    Raises
    ------
    ScheduleError
        The first rule broken, with the place marked in the rank × step grid.
    """
    for rank, program in enumerate(programs):
        if (program.rank, program.n_ranks) != (rank, len(programs)):
            reason = f"the program is of rank {program.rank} of {program.n_ranks}, not {rank} of {len(programs)}"
            raise _error(programs, rank, 0, reason)
        _RankCheck(programs, rank, graph, parameter_bytes).run(update=update)
    first = _posts(programs[0])
    for rank, program in enumerate(programs):
        for (step, post), (_, expected) in zip(_posts(program), first, strict=False):
            if post != expected:
                raise _error(programs, rank, step, f"rank 0 begins {expected} here: collectives must match")


class _RankCheck:
    """Walks one rank's program and keeps what has been done and begun so far."""

    def __init__(
        self, programs: Sequence[Program], rank: int, graph: TaskGraph, parameter_bytes: Sequence[int]
    ) -> None:
        self._programs, self._rank, self._graph, self._bytes = programs, rank, graph, parameter_bytes
        self._step = 0
        self._missing = set(graph.tasks())
        self._all_tasks = frozenset(self._missing)
        self._in_flight: dict[Post, int] = {}
        self._reduced: set[int] = set()
        self._loss_reduced = self._updated = False

    def run(self, *, update: bool) -> None:
        """Raise at the first rule broken."""
        for step, instruction in enumerate(self._programs[self._rank].instructions):
            self._step = step
            self._require(not self._updated, "nothing may follow the update")
            if isinstance(instruction, Task):
                self._task(instruction)
            elif isinstance(instruction, AllReduce):
                self._allreduce(instruction)
            elif isinstance(instruction, AllReduceLoss):
                self._allreduce_loss(instruction)
            elif isinstance(instruction, Wait):
                self._require(instruction.post in self._in_flight, "waits for what was not begun")
                del self._in_flight[instruction.post]
            else:
                self._require(not self._in_flight, f"{next(iter(self._in_flight), '')} is still under way")
                self._updated = True
        self._end(update=update)

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            raise _error(self._programs, self._rank, self._step, reason)

    def _task(self, task: Task) -> None:
        self._require(task in self._all_tasks, "not a task of this graph")
        self._require(task in self._missing, "done twice")
        for needed in self._graph.needs(task):
            self._require(needed not in self._missing, f"needs {needed} first")
        self._missing.remove(task)

    def _allreduce(self, post: AllReduce) -> None:
        blocks = range(post.start, post.stop)
        self._require(bool(blocks) and post.stop <= self._graph.n_blocks, f"blocks are 0:{self._graph.n_blocks}")
        for block in blocks:
            self._require(block not in self._reduced, f"block {block} is summed twice")
            incomplete = not self._graph.backward or any(t.kind == "W" and t.block == block for t in self._missing)
            self._require(not incomplete, f"the gradient of block {block} is not complete")
        n_bytes = sum(self._bytes[block] for block in blocks)
        self._require(post.n_bytes == n_bytes, f"the gradients have {n_bytes} bytes")
        self._reduced.update(blocks)
        self._in_flight[post] = self._step

    def _allreduce_loss(self, post: AllReduceLoss) -> None:
        head = self._graph.n_blocks - 1
        self._require(not self._loss_reduced, "the loss is summed twice")
        self._require(not any(t.kind == "F" and t.block == head for t in self._missing), "the loss is not complete")
        self._loss_reduced = True
        self._in_flight[post] = self._step

    def _end(self, *, update: bool) -> None:
        if self._in_flight:
            self._step = next(iter(self._in_flight.values()))
            self._require(False, "is never waited for")
        self._step = len(self._programs[self._rank].instructions)
        first = min(map(str, self._missing), default="")
        self._require(not self._missing, f"{len(self._missing)} tasks are missing, the first {first}")
        self._require(self._updated == update, "the update is missing" if update else "this mode has no update")
        if len(self._programs) > 1:
            self._require(self._loss_reduced, "the loss is never summed")
            trained = {block for block, size in enumerate(self._bytes) if size and self._graph.backward}
            forgotten = min(trained - self._reduced, default=None)
            self._require(forgotten is None, f"the gradient of block {forgotten} is never summed")


def _posts(program: Program) -> list[tuple[int, Post]]:
    return [(step, i) for step, i in enumerate(program.instructions) if isinstance(i, AllReduce | AllReduceLoss)]


def _error(programs: Sequence[Program], rank: int, step: int, reason: str) -> ScheduleError:
    here: Instruction | str = "the end"
    if step < len(programs[rank].instructions):
        here = programs[rank].instructions[step]
    return ScheduleError(f"rank {rank}, step {step}, {here}: {reason}\n{grid(programs, rank, step)}")


def grid(programs: Sequence[Program], rank: int, step: int) -> str:
    """Draw the neighbourhood of one instruction: a row a step, a column a rank, the place marked.

    Returns
    -------
    str
        Lines of text; the marked cell is wrapped in ``>`` and ``<``.
    """
    first = max(0, min(rank - _SHOWN_RANKS // 2, len(programs) - _SHOWN_RANKS))
    ranks = range(first, min(len(programs), first + _SHOWN_RANKS))
    steps = range(max(0, step - _CONTEXT), step + _CONTEXT + 1)
    table = [["step", *(f"rank {r}" for r in ranks)]]
    for s in steps:
        row = [str(s)]
        for r in ranks:
            instructions = programs[r].instructions
            text = str(instructions[s]) if s < len(instructions) else "-"
            row.append(f">{text}<" if (r, s) == (rank, step) else text)
        table.append(row)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table)
