"""The executor: one program, one engine, one transport; and a time stamp after every instruction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns

import numpy as np

from hpcrnn.backends.base import Engine
from hpcrnn.execution.transport import Transport
from hpcrnn.records.record import OTHER, STEP, FloatArray, IntArray
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Instruction, Program, Update, Wait

PHASES = (STEP, "forward", "backward", "weight_gradient", "allreduce", "update", OTHER)
"""What a step's time is divided into; ``allreduce`` holds both the posts and the waits."""

_TASK_PHASES = {"F": "forward", "B": "backward", "W": "weight_gradient"}


class Executor:
    """Runs a program again and again.

    Binding happens once: every instruction becomes a call without arguments, so that a step is a loop over
    a list with a clock reading between.

    Parameters
    ----------
    program : Program
    engine : Engine
    transport : Transport

    Attributes
    ----------
    gradient_norm : float
        Of the last step; NaN where the program has no update.
    stamps_ns : int64 array (n_instructions + 1,)
        Start of the last step and end of each instruction, of ``time.perf_counter_ns``.
    """

    def __init__(self, program: Program, engine: Engine, transport: Transport) -> None:
        self.program, self.engine = program, engine
        self._transport = transport
        self._calls = [self._bind(instruction) for instruction in program.instructions]
        phases = [PHASES.index(_phase(instruction)) for instruction in program.instructions]
        self._phase_of = np.array(phases, dtype=np.intp)
        self.stamps_ns: IntArray = np.zeros(len(self._calls) + 1, dtype=np.int64)
        self._stamps: list[int] = [0] * (len(self._calls) + 1)
        self.gradient_norm = float("nan")

    def run(self) -> FloatArray:
        """Execute one step.

        Returns
        -------
        float64 array (n_phases,)
            Seconds of each of :data:`PHASES`.
        """
        stamps, clock = self._stamps, perf_counter_ns
        start = clock()
        self.engine.begin_step()
        stamps[0] = clock()
        for index, call in enumerate(self._calls, start=1):
            call()
            stamps[index] = clock()
        end = clock()
        self.stamps_ns[:] = stamps
        spent = np.bincount(self._phase_of, weights=np.diff(self.stamps_ns), minlength=len(PHASES))
        spent[0] = end - start
        spent[-1] = spent[0] - spent[1:-1].sum()
        return np.asarray(spent * 1e-9, dtype=np.float64)

    def _bind(self, instruction: Instruction) -> Callable[[], None]:
        engine, transport = self.engine, self._transport
        if isinstance(instruction, Task):
            place = (instruction.block, instruction.microbatch, instruction.chunk)
            run = {"F": engine.forward, "B": engine.backward, "W": engine.weight_gradient}[instruction.kind]

            def task() -> None:
                run(*place)
                transport.progress()

            return task
        if isinstance(instruction, AllReduce):
            post = instruction
            return lambda: transport.post_sum(post, engine.gradient_range(post.start, post.stop))
        if isinstance(instruction, AllReduceLoss):
            return lambda: transport.post_sum(instruction, np.array([engine.loss]))
        if isinstance(instruction, Wait):
            if isinstance(instruction.post, AllReduceLoss):
                return self._finish_loss
            return partial(self._finish_sum, instruction.post)
        return self._update

    def _finish_sum(self, post: AllReduce) -> None:
        self._transport.wait(post)

    def _finish_loss(self) -> None:
        self.engine.loss = float(self._transport.wait(AllReduceLoss())[0])

    def _update(self) -> None:
        self.gradient_norm = self.engine.update()


def _phase(instruction: Instruction) -> str:
    if isinstance(instruction, Task):
        return _TASK_PHASES[instruction.kind]
    return "update" if isinstance(instruction, Update) else "allreduce"
