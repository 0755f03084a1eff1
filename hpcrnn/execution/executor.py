"""The executor: one program, one engine, one transport; and a time stamp after every instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from time import perf_counter_ns, process_time_ns

import numpy as np

from hpcrnn.backends.base import Array, Engine, Summer
from hpcrnn.execution.handicap import Slowdown
from hpcrnn.execution.transport import Transport
from hpcrnn.model.optimizers import finite_norm
from hpcrnn.records.record import PHASES, FloatArray, IntArray
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import (
    AllReduce,
    AllReduceScalar,
    Axes,
    Carry,
    Instruction,
    PostRecv,
    PostSend,
    Program,
    Update,
    Wait,
)

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
    slowdown : Slowdown, optional
        What slows this rank down on purpose.

    Attributes
    ----------
    gradient_norm : float
        Of the last step; NaN where the program has no update.
    stamps_ns : int64 array (n_instructions + 1,)
        Start of the last step and end of each instruction, of ``time.perf_counter_ns``.
    cpu_s : float64 array (n_phases,)
        CPU seconds that this process, all its threads, had in each of :data:`PHASES` of the last step; the clock is
        read where one phase follows another, for a reading costs ten times one of the wall's.
    sent_bytes : int
        What the last step sent: messages, contributions to sums, and what tensor shards exchanged inside tasks.
    """

    def __init__(
        self, program: Program, engine: Engine, transport: Transport, slowdown: Slowdown | None = None
    ) -> None:
        self.program, self.engine = program, engine
        self._transport = transport
        engine.progress = transport.progress
        posts = [i for i in program.instructions if isinstance(i, PostRecv | PostSend)]
        self._messages = transport.bind_messages(posts, self._buffers)
        self._summers = self._make_summers()
        self._slowdown = slowdown
        self._calls = [self._at_its_pace(instruction) for instruction in program.instructions]
        phases = [PHASES.index(_phase(instruction)) for instruction in program.instructions]
        self._phase_of = np.array(phases, dtype=np.intp)
        # Where a run of instructions of one phase ends, and which phase that is.
        self._turns = [this != after for this, after in pairwise([*phases, -1])]
        self._phase_of_run = self._phase_of[self._turns]
        self.stamps_ns: IntArray = np.zeros(len(self._calls) + 1, dtype=np.int64)
        self._stamps: list[int] = [0] * (len(self._calls) + 1)
        self.cpu_s: FloatArray = np.zeros(len(PHASES))
        self.gradient_norm = float("nan")
        self.sent_bytes = 0
        self._norm_square: float | None = None

    def run(self) -> FloatArray:
        """Execute one step.

        Returns
        -------
        float64 array (n_phases,)
            Seconds of each of :data:`PHASES`.
        """
        stamps, clock, cpu_clock = self._stamps, perf_counter_ns, process_time_ns
        exchanged = self.engine.exchanged_bytes
        if self._slowdown is not None:
            self._slowdown.begin_step()
        start, cpu_start = clock(), cpu_clock()
        self.engine.begin_step()
        stamps[0] = clock()
        cpu_stamps = [cpu_clock()]
        for index, (call, turns) in enumerate(zip(self._calls, self._turns, strict=True), start=1):
            call()
            stamps[index] = clock()
            if turns:
                cpu_stamps.append(cpu_clock())
        end, cpu_end = clock(), cpu_clock()
        self.stamps_ns[:] = stamps
        self.sent_bytes = self.program.bytes_sent + self.engine.exchanged_bytes - exchanged
        self.cpu_s = _by_phase(self._phase_of_run, np.diff(cpu_stamps), cpu_end - cpu_start)
        return _by_phase(self._phase_of, np.diff(self.stamps_ns), end - start)

    def state(self) -> dict[str, Array]:
        """Copies of what the next step depends on."""
        return self.engine.state()

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from what :meth:`state` returned, in an executor that was made alike."""
        self.engine.restore(state)

    def _make_summers(self) -> dict[AllReduce, Summer]:
        """What sums gradients in place of MPI, one for each group of ranks; made in the same order on all of them."""
        made: dict[Axes, Summer | None] = {}
        for post in self.program.instructions:
            if isinstance(post, AllReduce) and post.axes not in made:
                made[post.axes] = self.engine.summer(self._transport.group(post))
        posts = (i for i in self.program.instructions if isinstance(i, AllReduce))
        return {post: summer for post in posts if (summer := made[post.axes]) is not None}

    def _buffers(self, post: PostRecv | PostSend) -> tuple[FloatArray, ...]:
        return self.engine.buffers(post.value, incoming=isinstance(post, PostRecv))

    def _at_its_pace(self, instruction: Instruction) -> Callable[[], None]:
        call = self._bind(instruction)
        if self._slowdown is None or not isinstance(instruction, Task | Update):
            return call
        return self._slowdown.slow(call)

    def _bind(self, instruction: Instruction) -> Callable[[], None]:
        engine, transport = self.engine, self._transport
        if isinstance(instruction, Task):
            place = (instruction.block, instruction.microbatch, instruction.chunk)
            run = {"F": engine.forward, "B": engine.backward, "W": engine.weight_gradient}[instruction.kind]

            def task() -> None:
                run(*place)
                transport.progress()

            return task
        if isinstance(instruction, PostRecv):
            return self._messages[instruction].start
        if isinstance(instruction, PostSend):
            return _in_turn(engine.mover(instruction.value, incoming=False), self._messages[instruction].start)
        if isinstance(instruction, AllReduce | AllReduceScalar):
            return self._bind_sum(instruction)
        if isinstance(instruction, Wait):
            return self._bind_wait(instruction)
        return engine.carry_states if isinstance(instruction, Carry) else self._update

    def _bind_sum(self, post: AllReduce | AllReduceScalar) -> Callable[[], None]:
        begin, engine = self._transport.bind_sum(post), self.engine
        if isinstance(post, AllReduce):
            if post in self._summers:
                begin = self._summers[post].begin
            return lambda: begin(engine.gradient_range(post.start, post.stop))
        if post.quantity == "loss":
            return lambda: begin(np.array([engine.loss]))
        return lambda: begin(np.array([engine.norm_square()]))

    def _bind_wait(self, wait: Wait) -> Callable[[], None]:
        post = wait.post
        if isinstance(post, PostRecv):
            return _in_turn(self._messages[post].wait, self.engine.mover(post.value, incoming=True))
        if isinstance(post, PostSend):
            return self._messages[post].wait
        if isinstance(post, AllReduce):
            return self._summers[post].wait if post in self._summers else partial(self._finish_sum, post)
        return partial(self._finish_scalar, post)

    def _finish_sum(self, post: AllReduce) -> None:
        self._transport.wait_sum(post)

    def _finish_scalar(self, post: AllReduceScalar) -> None:
        total = float(self._transport.wait_sum(post)[0])
        if post.quantity == "loss":
            self.engine.loss = total
        else:
            self._norm_square = total

    def _update(self) -> None:
        square = self.engine.norm_square() if self._norm_square is None else self._norm_square
        self.gradient_norm = finite_norm(square)
        self.engine.update(self.gradient_norm)


def _in_turn(first: Callable[[], None] | None, second: Callable[[], None] | None) -> Callable[[], None]:
    """One call that makes two; of one alone, that itself."""
    calls = [call for call in (first, second) if call is not None]
    if len(calls) == 1:
        return calls[0]

    def both() -> None:
        for call in calls:
            call()

    return both


def _by_phase(phase_of: IntArray, spent_ns: IntArray, step_ns: int) -> FloatArray:
    """Seconds of each of :data:`PHASES`: what each interval took summed by its phase, the step, and the rest of it."""
    spent = np.bincount(phase_of, weights=spent_ns, minlength=len(PHASES))
    spent[0] = step_ns
    spent[-1] = step_ns - spent[1:-1].sum()
    return np.asarray(spent * 1e-9, dtype=np.float64)


def _phase(instruction: Instruction) -> str:
    if isinstance(instruction, Task):
        return _TASK_PHASES[instruction.kind]
    begun = instruction.post if isinstance(instruction, Wait) else instruction
    if isinstance(begun, PostRecv | PostSend):
        if begun is instruction:
            return "post"
        return "wait_recv" if isinstance(begun, PostRecv) else "wait_send"
    if isinstance(begun, AllReduce | AllReduceScalar):
        return "allreduce"
    return "post" if isinstance(begun, Carry) else "update"
