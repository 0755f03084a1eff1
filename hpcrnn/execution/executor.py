"""The executor: the programs of a cycle of steps, one engine, one transport; a time stamp after every instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter_ns, process_time_ns

import numpy as np

from hpcrnn.backends.base import Array, Engine, ModelEngine, Summer, with_prefix, without_prefix
from hpcrnn.compression.stages import CompressedSum
from hpcrnn.errors import NumericsError
from hpcrnn.execution.bound_step import BoundStep, by_phase
from hpcrnn.execution.handicap import Slowdown
from hpcrnn.execution.late_server import LateServer
from hpcrnn.execution.models import ModelAverage, Outer
from hpcrnn.execution.stages import Stage
from hpcrnn.execution.transport import Messages, Transport
from hpcrnn.model.optimizers import finite_norm
from hpcrnn.records.record import PHASES, FloatArray, IntArray
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import (
    Add,
    AllReduce,
    AllReduceParameters,
    AllReduceScalar,
    Average,
    Axes,
    Carry,
    Collective,
    Instruction,
    PostRecv,
    PostSend,
    Program,
    Serve,
    SumStage,
    Update,
    Vector,
    Wait,
)


@dataclass(frozen=True)
class Replica:
    """What a rank is among the replicas of the network.

    Attributes
    ----------
    share : float
        Its share of the batch.
    outer : Outer or None
        What is done with averages of models, if not just taken.
    compress : callable or None
        Makes this rank's part in the compressed sum of the gradient of some blocks, by their range and the flat array
        that it lies in; None where gradients are summed as they are.
    """

    share: float = 1.0
    outer: Outer | None = None
    compress: Callable[[int, int, Array], CompressedSum] | None = None


WHOLE = Replica()
"""The only one."""


class Executor:
    """Runs the programs of a cycle of steps, in turn, again and again.

    Binding happens once: every instruction becomes a call without arguments, so that a step is a loop over
    a list with a clock reading between.

    Parameters
    ----------
    programs : Program, or sequence of Program
        Of one step, or of each step of a cycle: steps that are alike share a program.
    engine : Engine
        With its initial parameters.
    transport : Transport
    slowdown : Slowdown, optional
        What slows this rank down on purpose.
    replica : Replica, optional
    goes_on : bool, optional
        Whether numbers that are not finite end no step but are noted in ``diverged``: other ranks may not know of them,
        and would wait.

    Attributes
    ----------
    diverged : bool
        Whether numbers were not finite in a step since the beginning.
    n_steps : int
        Steps run so far; which program is next follows from it.
    gradient_norm : float
        Of the last step; NaN where the program has no update.
    cpu_s : float64 array (n_phases,)
        CPU seconds that this process, all its threads, had in each of :data:`PHASES` of the last step; the clock is
        read where one phase follows another, for a reading costs ten times one of the wall's.
    sent_bytes : int
        What the last step sent: messages, contributions to sums, and what tensor shards exchanged inside tasks.
    """

    def __init__(
        self,
        programs: Program | Sequence[Program],
        engine: Engine,
        transport: Transport,
        slowdown: Slowdown | None = None,
        replica: Replica = WHOLE,
        *,
        goes_on: bool = False,
    ) -> None:
        cycle = (programs,) if isinstance(programs, Program) else tuple(programs)
        self._n_blocks = len(cycle[0].blocks)
        self.engine, self.n_steps = engine, 0
        self._transport, self._slowdown, self._replica = transport, slowdown, replica
        self._goes_on, self.diverged = goes_on, False
        engine.progress = transport.progress
        self._landings: dict[tuple[Vector, int], Array] = {}
        self._messages: dict[PostRecv | PostSend, Messages] = {}
        self._stages: dict[SumStage, Stage] = {}
        self._compressed: dict[tuple[int, int], CompressedSum] = {}
        self._summers: dict[AllReduce, Summer] = {}
        self._scalars = {"loss": np.zeros(1), "norm": np.zeros(1)}
        self._average: ModelAverage | None = None
        self._server: LateServer | None = None
        steps = {program: self._bind_program(program) for program in dict.fromkeys(cycle)}
        self._cycle = [steps[program] for program in cycle]
        self._last = self._cycle[0]
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
        step = self._last = self._cycle[self.n_steps % len(self._cycle)]
        self.n_steps += 1
        stamps, clock, cpu_clock = step.stamps, perf_counter_ns, process_time_ns
        exchanged = self.engine.exchanged_bytes
        if self._slowdown is not None:
            self._slowdown.begin_step()
        start, cpu_start = clock(), cpu_clock()
        self.engine.begin_step()
        stamps[0] = clock()
        cpu_stamps = [cpu_clock()]
        for index, (call, turns) in enumerate(zip(step.calls, step.turns, strict=True), start=1):
            call()
            stamps[index] = clock()
            if turns:
                cpu_stamps.append(cpu_clock())
        end, cpu_end = clock(), cpu_clock()
        step.stamps_ns[:] = stamps
        self.sent_bytes = step.program.bytes_sent + self.engine.exchanged_bytes - exchanged
        self.cpu_s = by_phase(step.phase_of_run, np.diff(cpu_stamps), cpu_end - cpu_start)
        return by_phase(step.phase_of, np.diff(step.stamps_ns), end - start)

    @property
    def program(self) -> Program:
        """Program of the last step; before the first, of that."""
        return self._last.program

    @property
    def stamps_ns(self) -> IntArray:
        """Start of the last step and end of each instruction, (n_instructions + 1,), of ``time.perf_counter_ns``."""
        return self._last.stamps_ns

    @property
    def staleness(self) -> IntArray | None:
        """How many gradients of each staleness this rank has applied; None but on a server that takes them late."""
        return None if self._server is None else self._server.staleness

    @property
    def memory_bytes(self) -> int:
        """What the engine and the exchange between replicas have allocated."""
        landed = sum(array.nbytes for array in self._landings.values())
        others = (self._average, self._server, *self._compressed.values())
        return self.engine.memory_bytes + landed + sum(other.memory_bytes for other in others if other is not None)

    def not_finite(self, error: NumericsError) -> None:
        """Raise an error, or note it where a step is not to be ended."""
        if not self._goes_on:
            raise error
        self.diverged = True

    def begin_again(self) -> None:
        """Count steps from zero, after the engine's parameters were set from outside."""
        self.n_steps, self.diverged = 0, False
        if self._average is not None:
            self._average.reset()
        for compressed in self._compressed.values():
            compressed.reset()

    def gradient(self) -> Array:
        """The gradient as the last step left it, flat: summed over ranks, and clipped where that was asked for."""
        return self.engine.gradient_range(0, self._n_blocks)

    def held_back(self) -> Array:
        """Copy what this rank's codec has held back so far, laid out as the gradient; zero without one."""
        ranges = sorted(self._compressed)
        if not ranges:
            return np.zeros_like(self.gradient())
        return np.concatenate([self._compressed[blocks].held_back() for blocks in ranges])

    def state(self) -> dict[str, Array]:
        """Copies of what the next step depends on; between two legs."""
        average = {} if self._average is None else self._average.state()
        steps = {"n_steps": np.array(self.n_steps)}
        codecs = {name: array.copy() for name, array in self._codec_state().items()}
        return with_prefix("engine", self.engine.state()) | with_prefix("average", average) | steps | codecs

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from what :meth:`state` returned, in an executor that was made alike."""
        self.engine.restore(without_prefix("engine", state))
        self.n_steps = int(state["n_steps"])
        if self._average is not None:
            self._average.restore(without_prefix("average", state))
        for name, array in self._codec_state().items():
            array[...] = state[name]

    def _codec_state(self) -> dict[str, Array]:
        """What codecs leave to the next step, where it lies."""
        found: dict[str, Array] = {}
        for (start, stop), compressed in self._compressed.items():
            found |= with_prefix(f"codec.{start}:{stop}", compressed.state)
        return found

    def _bind_program(self, program: Program) -> BoundStep:
        posts = [i for i in program.instructions if isinstance(i, PostRecv | PostSend)]
        self._messages |= self._transport.bind_messages(posts, self._buffers)
        self._summers |= self._make_summers(program)
        self._stages |= self._make_stages(program)
        return BoundStep(program, [self._at_its_pace(instruction) for instruction in program.instructions])

    def _make_summers(self, program: Program) -> dict[AllReduce, Summer]:
        """What sums gradients in place of MPI, one for each group of ranks; made in the same order on all of them."""
        made: dict[Axes, Summer | None] = {}
        posts = [i for i in program.instructions if isinstance(i, AllReduce)]
        for post in posts:
            if post.axes not in made:
                made[post.axes] = self.engine.summer(self._transport.group(post))
        return {post: summer for post in posts if (summer := made[post.axes]) is not None}

    def _make_stages(self, program: Program) -> dict[SumStage, Stage]:
        """Stages of every sum that has several, on the gradient's memory."""
        sums: dict[tuple[int, int], list[SumStage]] = {}
        for post in program.instructions:
            if isinstance(post, SumStage):
                sums.setdefault((post.start, post.stop), []).append(post)
        made: dict[SumStage, Stage] = {}
        for (start, stop), posts in sums.items():
            gradient = self.engine.gradient_range(start, stop)
            if self._replica.compress is not None:
                self._compressed[start, stop] = self._replica.compress(start, stop, gradient)
            coded = self._compressed[start, stop].stages if (start, stop) in self._compressed else ()
            noted = [replace(s, begin=self._noting(s.begin), end=self._noting(s.end)) for s in coded]
            made |= self._transport.bind_stages(posts, gradient, noted)
        return made

    def _buffers(self, post: PostRecv | PostSend) -> tuple[FloatArray, ...]:
        value, incoming = post.value, isinstance(post, PostRecv)
        if not isinstance(value, Vector):
            return self.engine.buffers(value, incoming=incoming)
        if value.kind == "parameters":
            return (self._model.parameter_range(value.start, value.stop),)
        gradient = self.engine.gradient_range(value.start, value.stop)
        if not incoming:
            return (gradient,)
        return (self._landings.setdefault((value, post.peer), np.empty_like(gradient)),)

    @property
    def _model(self) -> ModelEngine:
        """The engine, as one whose parameters others may set."""
        if not isinstance(self.engine, ModelEngine):
            raise TypeError(f"parameters of {type(self.engine).__name__} cannot be exchanged")
        return self.engine

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
        if isinstance(instruction, PostRecv | PostSend):
            before = self._mover(instruction) if isinstance(instruction, PostSend) else None
            return _in_turn(before, self._messages[instruction].start)
        if isinstance(instruction, Collective):
            return self._bind_sum(instruction)
        if isinstance(instruction, Wait):
            return self._bind_wait(instruction)
        if isinstance(instruction, Add | Average | Serve):
            return self._bind_model(instruction)
        return engine.carry_states if isinstance(instruction, Carry) else self._update

    def _mover(self, post: PostRecv | PostSend) -> Callable[[], None] | None:
        """What is to be done before a value is sent, or once it has been received."""
        incoming = isinstance(post, PostRecv)
        if not isinstance(post.value, Vector):
            return self.engine.mover(post.value, incoming=incoming)
        return self._model.parameters_changed if incoming and post.value.kind == "parameters" else None

    def _bind_model(self, instruction: Add | Average | Serve) -> Callable[[], None]:
        """What is done with gradients and models of others."""
        if isinstance(instruction, Average):
            average = self._averager()
            return _in_turn(average.take, self._model.parameters_changed)
        value = instruction.value
        gradient = self.engine.gradient_range(value.start, value.stop)
        if isinstance(instruction, Add):
            landing = self._landings[value, instruction.peer]
            # A server has no gradient of its own: the first worker's takes the place of that of the step before.
            first = instruction.peer == min(peer for other, peer in self._landings if other == value)
            return partial(np.copyto, gradient, landing) if first else partial(np.add, gradient, landing, out=gradient)
        parameters = self._model.parameter_range(value.start, value.stop)
        self._server = LateServer(instruction, self._transport.cart, gradient, parameters, self._update)
        return self._server.serve

    def _averager(self) -> ModelAverage:
        if self._average is None:
            whole = self._model.parameter_range(0, self._n_blocks)
            self._average = ModelAverage(whole, self._replica.share, self._replica.outer)
        return self._average

    def _bind_sum(self, post: Collective) -> Callable[[], None]:
        if isinstance(post, SumStage):
            return partial(self._transport.begin_stage, post, self._stages[post])
        begin, engine = self._transport.bind_sum(post), self.engine
        if isinstance(post, AllReduceParameters):
            average = self._averager()
            return lambda: begin(average.weighted())
        if isinstance(post, AllReduce):
            if post in self._summers:
                begin = self._summers[post].begin
            return lambda: begin(engine.gradient_range(post.start, post.stop))
        total = self._scalars[post.quantity]
        if post.quantity == "loss":
            return lambda: begin(_set(total, engine.loss))
        return lambda: begin(_set(total, engine.norm_square()))

    def _bind_wait(self, wait: Wait) -> Callable[[], None]:
        post = wait.post
        if isinstance(post, PostRecv):
            return _in_turn(self._messages[post].wait, self._mover(post))
        if isinstance(post, PostSend):
            return self._messages[post].wait
        if isinstance(post, AllReduceScalar):
            return partial(self._finish_scalar, post)
        if isinstance(post, AllReduce) and post in self._summers:
            return self._summers[post].wait
        finish = partial(self._transport.wait_sum, post)
        return _in_turn(finish, self._stages[post].end) if isinstance(post, SumStage) else finish

    def _noting(self, call: Callable[[], None]) -> Callable[[], None]:
        """Make a call that hands what it says of numbers that are not finite to :meth:`not_finite`."""

        def noting() -> None:
            try:
                call()
            except NumericsError as error:
                self.not_finite(error)

        return noting if self._goes_on else call

    def _finish_scalar(self, post: AllReduceScalar) -> None:
        self._transport.wait_sum(post)
        total = float(self._scalars[post.quantity][0])
        if post.quantity == "loss":
            self.engine.loss = total
        else:
            self._norm_square = total

    def _update(self) -> None:
        square = self.engine.norm_square() if self._norm_square is None else self._norm_square
        try:
            self.gradient_norm = finite_norm(square)
        except NumericsError as error:
            self.not_finite(error)
            return
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


def _set(total: FloatArray, value: float) -> FloatArray:
    total[0] = value
    return total
