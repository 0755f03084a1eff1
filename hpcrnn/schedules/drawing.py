"""Programs drawn as a table, and the error that shows one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.program import Instruction, Program

_CONTEXT = 3
_SHOWN_RANKS = 8


def refusal(programs: Mapping[int, Program] | Sequence[Program], rank: int, step: int, reason: str) -> ScheduleError:
    """Make the error for one instruction: rank, step and reason, then the table around it."""
    here: Instruction | str = "the end"
    if step < len(programs[rank].instructions):
        here = programs[rank].instructions[step]
    return ScheduleError(f"rank {rank}, step {step}, {here}: {reason}\n{grid(programs, rank, step)}")


def grid(programs: Mapping[int, Program] | Sequence[Program], rank: int, step: int) -> str:
    """Draw the neighbourhood of one instruction: a row a step, a column a rank, the place marked.

    Returns
    -------
    str
        Lines of text; the marked cell is wrapped in ``>`` and ``<``.
    """
    known = sorted(programs) if isinstance(programs, Mapping) else list(range(len(programs)))
    at = known.index(rank)
    first = max(0, min(at - _SHOWN_RANKS // 2, len(known) - _SHOWN_RANKS))
    ranks = known[first : first + _SHOWN_RANKS]
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
