"""What the suite's own machinery costs: ``[mpirun -n 2] python -m hpcrnn.benchmarks.overhead``.

Two costs that a user pays beside the arithmetic:

- An *instruction*.  The executor runs a real program on an engine that does nothing, so all the time it takes is its
  own: calls, clock readings, the sum over phases.  On two ranks or more the program has its messages too, of a few
  bytes each, so that their waits are those of MPI and of the other rank's instructions.
- A *program*.  What one rank of :data:`LARGE` pays before its first step: building its program and validating it
  against those of its neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpcrnn.backends.base import Array, HostEngine, LayerSolve, Part, Piece, nothing
from hpcrnn.benchmarks.planning import Plan, make_plan
from hpcrnn.benchmarks.script import ScriptParser, on_ranks, say
from hpcrnn.errors import EXIT_VALID
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.transport import Transport
from hpcrnn.execution.world import World
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.schedules.graph import Value
from hpcrnn.schedules.validation import validate_rank
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import Batch, open_workload

INSTRUCTION_GOAL_S = 20e-6
PROGRAM_GOAL_S = 1.0

LARGE = 1024
"""Ranks of the run whose programs are built."""

_WARM_UP, _STEPS = 20, 200


class IdleEngine(HostEngine):
    """An engine whose tasks take no time and whose values are one number each."""

    kernel = "none"
    memory_bytes = 0

    def __init__(self) -> None:
        self.loss = 0.0
        self.progress = nothing
        self.exchanged_bytes = 0
        self._gradient = np.zeros(1)
        self._buffers: dict[tuple[Value, bool], tuple[Array, ...]] = {}

    def load_parameters(self, parameters: Mapping[str, Array]) -> None: ...

    def load_batch(self, batch: Batch) -> None: ...

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None: ...

    def begin_step(self) -> None: ...

    def forward(self, block: int, microbatch: int, chunk: int) -> None: ...

    def backward(self, block: int, microbatch: int, chunk: int) -> None: ...

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None: ...

    def buffers(self, value: Value, *, incoming: bool) -> tuple[Array, ...]:
        return self._buffers.setdefault((value, incoming), (np.zeros(1),))

    def mover(self, value: Value, *, incoming: bool) -> None: ...

    def carry_states(self) -> None: ...

    def gradient_range(self, start: int, stop: int) -> Array:  # noqa: ARG002
        return self._gradient

    def norm_square(self) -> float:
        return 0.0

    def update(self, norm: float) -> None: ...

    def part(self) -> Part:
        return Part(self.loss)

    def parameter_pieces(self) -> dict[str, Piece]:
        return {}

    def predictions(self) -> Array:
        return np.empty(0)

    def state(self) -> dict[str, Array]:
        return {}

    def restore(self, state: Mapping[str, Array]) -> None: ...

    def solves(self) -> tuple[LayerSolve, ...]:
        return ()

    def exponents(self) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class StepCost:
    """What the machinery takes of one step.

    Attributes
    ----------
    n_instructions : int
        Of the longest program.
    step : Interval
        Seconds, of the slowest rank; on rank 0.
    """

    n_instructions: int
    step: Interval

    @property
    def instruction_s(self) -> float:
        """Seconds an instruction takes."""
        return self.step.median / self.n_instructions


def measure_step(world: World, flags: Mapping[str, object], grid: Grid) -> StepCost:
    """Measure a step of a program on engines that do nothing.

    Parameters
    ----------
    world : World
    flags : mapping
        Cut and order.
    grid : Grid
        Of all ranks, or of one: then each rank works alone.
    """
    plan = _plan(flags, grid)
    rank = world.rank if grid.n_ranks > 1 else 0
    communicators = world.communicators(grid)
    executor = Executor(plan.program(rank), IdleEngine(), Transport(communicators))
    samples = []
    for step in range(_WARM_UP + _STEPS):
        communicators.cart.Barrier()
        start = time.perf_counter()
        executor.run()
        if step >= _WARM_UP:
            samples.append(time.perf_counter() - start)
    slowest = np.max(communicators.cart.allgather(samples), axis=0)
    longest = max(communicators.cart.allgather(len(executor.program.instructions)))
    return StepCost(longest, median_interval(slowest))


def measure_program(flags: Mapping[str, object], grid: Grid, rank: int) -> tuple[int, float]:
    """Measure building and validating one rank's program.

    Returns
    -------
    n_instructions : int
    spent_s : float
    """
    plan = _plan(flags, grid)
    start = time.perf_counter()
    program = validate_rank(plan.schedule, rank)
    return len(program.instructions), time.perf_counter() - start


def _plan(flags: Mapping[str, object], grid: Grid) -> Plan:
    fixed = {"workload": "synthetic", "input": "direct", "hidden": 8}
    spec = build_spec({}, {"layers": 4} | fixed | dict(flags))
    return make_plan(spec, open_workload(spec), grid)


def _step_cases(n_ranks: int) -> list[tuple[str, dict[str, object], Grid]]:
    cases: list[tuple[str, dict[str, object], Grid]] = [
        ("serial, in one piece", {}, Grid()),
        ("serial, M=4 C=8", {"microbatches": 4, "chunks": 8}, Grid()),
    ]
    if n_ranks == 1:
        return cases
    sizes: dict[str, object] = {"batch": 2 * n_ranks, "seq": 32 * n_ranks, "layers": max(4, n_ranks)}
    return [
        *cases,
        ("fill_drain C=16", sizes | {"order": "fill_drain", "chunks": 16}, Grid(pipeline=n_ranks)),
        ("seq_1f1b C=16", sizes | {"order": "seq_1f1b", "chunks": 16}, Grid(pipeline=n_ranks)),
        ("zb_h1 C=16", sizes | {"order": "zb_h1", "chunks": 16}, Grid(pipeline=n_ranks)),
        ("seq_1f1b M=2", sizes | {"order": "seq_1f1b", "microbatches": 2}, Grid(time=n_ranks)),
        ("bucketed M=2", sizes | {"microbatches": 2}, Grid(data=n_ranks)),
    ]


def _program_cases() -> list[tuple[str, dict[str, object], Grid]]:
    side = round(LARGE**0.5)
    deep: dict[str, object] = {"layers": LARGE, "order": "seq_1f1b"}
    wide: dict[str, object] = {"batch": LARGE}
    return [
        ("seq_1f1b C=16", deep | {"chunks": 16, "seq": 64}, Grid(pipeline=LARGE)),
        ("seq_1f1b M=8 C=16", deep | {"chunks": 16, "microbatches": 8}, Grid(pipeline=LARGE)),
        ("zb_h1 M=8 C=16", deep | {"order": "zb_h1", "chunks": 16, "microbatches": 8}, Grid(pipeline=LARGE)),
        ("seq_1f1b M=8", {"order": "seq_1f1b", "microbatches": 8, "seq": 8 * LARGE}, Grid(time=LARGE)),
        (
            "seq_1f1b M=8",
            {"layers": side, "order": "seq_1f1b", "microbatches": 8, "seq": 256},
            Grid(pipeline=side, time=side),
        ),
        ("bucketed", wide, Grid(data=LARGE)),
    ]


def main(world: World) -> int:
    """Print what instructions and programs cost."""
    ScriptParser(world, "overhead", __doc__).parse_args()
    say(world, f"executor, {world.size} rank(s); goal: under {INSTRUCTION_GOAL_S * 1e6:.0f} µs an instruction")
    for name, flags, grid in _step_cases(world.size):
        cost = measure_step(world, flags, grid)
        low, high = cost.step.low * 1e6, cost.step.high * 1e6
        say(
            world,
            f"  {grid!s:>22}  {name:<20}  {cost.n_instructions:4d} instructions, "
            f"{cost.step.median * 1e6:7.1f} µs a step [{low:.1f}, {high:.1f}], {cost.instruction_s * 1e6:5.2f} µs each",
        )
    say(world, f"program of the middle one of {LARGE} ranks, built and validated; goal: under {PROGRAM_GOAL_S:.0f} s")
    for name, flags, grid in _program_cases() if world.is_root else ():
        n_instructions, spent_s = measure_program(flags, grid, LARGE // 2)
        say(world, f"  {grid!s:>22}  {name:<20}  {n_instructions:4d} instructions, {spent_s * 1e3:7.1f} ms")
    world.quiet_barrier()
    return EXIT_VALID


if __name__ == "__main__":
    raise SystemExit(on_ranks(main))
