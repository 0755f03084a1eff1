"""Refuse a program that would hang or compute something else, before it runs."""

from __future__ import annotations

from collections.abc import Sequence

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Instruction, Post, Program, Update, Wait

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
        _check_rank(programs, rank, program, graph, parameter_bytes, update=update)
    first = _posts(programs[0])
    for rank, program in enumerate(programs):
        for (step, post), (_, expected) in zip(_posts(program), first, strict=False):
            if post != expected:
                raise _error(programs, rank, step, f"rank 0 begins {expected} here: collectives must match")


def _check_rank(
    programs: Sequence[Program],
    rank: int,
    program: Program,
    graph: TaskGraph,
    parameter_bytes: Sequence[int],
    *,
    update: bool,
) -> None:
    done: set[Task] = set()
    in_flight: dict[Post, int] = {}
    reduced: set[int] = set()
    loss_reduced = updated = False
    tasks = set(graph.tasks())

    def fail(step: int, reason: str) -> ScheduleError:
        return _error(programs, rank, step, reason)

    for step, instruction in enumerate(program.instructions):
        if updated:
            raise fail(step, "nothing may follow the update")
        if isinstance(instruction, Task):
            if instruction not in tasks or instruction in done:
                raise fail(step, "done twice" if instruction in done else "not a task of this graph")
            for needed in graph.needs(instruction):
                if needed not in done:
                    raise fail(step, f"needs {needed} first")
            if instruction.kind == "W" and instruction.block in reduced:
                raise fail(step, "writes a gradient that is already being summed")
            done.add(instruction)
        elif isinstance(instruction, AllReduce):
            blocks = range(instruction.start, instruction.stop)
            if not blocks or instruction.stop > graph.n_blocks:
                raise fail(step, f"blocks are 0:{graph.n_blocks}")
            for block in blocks:
                if block in reduced:
                    raise fail(step, f"block {block} is summed twice")
                missing = [t for t in tasks if t.kind == "W" and t.block == block and t not in done]
                if missing or not graph.backward:
                    raise fail(step, f"the gradient of block {block} is not complete")
            if instruction.n_bytes != sum(parameter_bytes[b] for b in blocks):
                raise fail(step, f"the gradients have {sum(parameter_bytes[b] for b in blocks)} bytes")
            reduced.update(blocks)
            in_flight[instruction] = step
        elif isinstance(instruction, AllReduceLoss):
            if loss_reduced:
                raise fail(step, "the loss is summed twice")
            if any(t.kind == "F" and t.block == graph.n_blocks - 1 and t not in done for t in tasks):
                raise fail(step, "the loss is not complete")
            loss_reduced = True
            in_flight[instruction] = step
        elif isinstance(instruction, Wait):
            if instruction.post not in in_flight:
                raise fail(step, "waits for what was not begun")
            del in_flight[instruction.post]
        elif isinstance(instruction, Update):
            if in_flight:
                raise fail(step, f"{next(iter(in_flight))} is still under way")
            updated = True
    end = len(program.instructions)
    if in_flight:
        raise fail(next(iter(in_flight.values())), "is never waited for")
    if tasks - done:
        raise fail(end, f"{len(tasks - done)} tasks are missing, the first {min(map(str, tasks - done))}")
    if updated != update:
        raise fail(end, "the update is missing" if update else "this mode has no update")
    if program.n_ranks > 1:
        expected = {b for b, size in enumerate(parameter_bytes) if size} if graph.backward else set()
        if not loss_reduced or expected - reduced:
            what = "loss" if not loss_reduced else f"gradient of block {min(expected - reduced)}"
            raise fail(end, f"the {what} is never summed")


def _posts(program: Program) -> list[tuple[int, Post]]:
    return [
        (step, i) for step, i in enumerate(program.instructions) if isinstance(i, AllReduce | AllReduceLoss)
    ]


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
