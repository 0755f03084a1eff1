"""A program whose instructions are calls, and how the time of a step divides among its phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from hpcrnn.records.record import PHASES, FloatArray, IntArray
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import Carry, Collective, Instruction, PostRecv, PostSend, Program, Serve, Wait

_TASK_PHASES = {"F": "forward", "B": "backward", "W": "weight_gradient"}


class BoundStep:
    """A program, each instruction a call; and what its last run left.

    Attributes
    ----------
    stamps_ns : int64 array (n_instructions + 1,)
    """

    def __init__(self, program: Program, calls: Sequence[Callable[[], None]]) -> None:
        self.program, self.calls = program, calls
        phases = [PHASES.index(phase_name(instruction)) for instruction in program.instructions]
        self.phase_of = np.array(phases, dtype=np.intp)
        # Where a run of instructions of one phase ends, and which phase that is.
        self.turns = [this != after for this, after in pairwise([*phases, -1])]
        self.phase_of_run = self.phase_of[self.turns]
        self.stamps_ns: IntArray = np.zeros(len(calls) + 1, dtype=np.int64)
        self.stamps: list[int] = [0] * (len(calls) + 1)


def by_phase(phase_of: IntArray, spent_ns: IntArray, step_ns: int) -> FloatArray:
    """Seconds of each of :data:`PHASES`: what each interval took summed by its phase, the step, and the rest of it."""
    spent = np.bincount(phase_of, weights=spent_ns, minlength=len(PHASES))
    spent[0] = step_ns
    spent[-1] = step_ns - spent[1:-1].sum()
    return np.asarray(spent * 1e-9, dtype=np.float64)


def phase_name(instruction: Instruction) -> str:
    """Name the phase to which an instruction's time is counted."""
    if isinstance(instruction, Task):
        return _TASK_PHASES[instruction.kind]
    begun = instruction.post if isinstance(instruction, Wait) else instruction
    if isinstance(begun, PostRecv | PostSend):
        if begun is instruction:
            return "post"
        return "wait_recv" if isinstance(begun, PostRecv) else "wait_send"
    if isinstance(begun, Collective):
        return "allreduce"
    if isinstance(begun, Serve):
        return "wait_recv"  # the updates in it are a small part
    return "post" if isinstance(begun, Carry) else "update"
