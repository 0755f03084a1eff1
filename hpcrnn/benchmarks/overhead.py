"""What the measuring itself costs: ``python -m hpcrnn.benchmarks.overhead``.

The executor runs a real program on an engine that does nothing, so all the time it takes is its own: calls,
clock readings, the sum over phases.  Set beside the median step of a real run, that is the share of a step that
is instrumentation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import numpy as np

from hpcrnn.backends.base import Array, Outcome
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.transport import Transport
from hpcrnn.execution.world import World
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.spec import build_spec
from hpcrnn.workloads import Batch, open_workload

_STEPS = 200


class IdleEngine:
    """An engine whose tasks take no time."""

    kernel = "none"

    def __init__(self) -> None:
        self.loss = 0.0

    def load_parameters(self, parameters: Mapping[str, Array]) -> None: ...

    def load_batch(self, batch: Batch) -> None: ...

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None: ...

    def begin_step(self) -> None: ...

    def forward(self, block: int, microbatch: int, chunk: int) -> None: ...

    def backward(self, block: int, microbatch: int, chunk: int) -> None: ...

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None: ...

    def gradient_range(self, start: int, stop: int) -> Array:  # noqa: ARG002
        return np.zeros(1)

    def update(self) -> float:
        return 0.0

    def outcome(self) -> Outcome:
        return Outcome(0.0, {})


def instrumentation_s(n_microbatches: int, n_chunks: int) -> tuple[int, Interval]:
    """Measure one step of the executor on an engine that does nothing.

    Returns
    -------
    n_instructions : int
    interval : Interval
        Seconds a step.
    """
    world = World.start()
    overrides = {"workload": "synthetic", "microbatches": n_microbatches, "chunks": n_chunks, "layers": 4}
    spec = build_spec({}, overrides)
    plan = make_plan(spec, open_workload(spec), 1)
    executor = Executor(plan.programs[0], IdleEngine(), Transport(world.alone))
    samples = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        executor.run()
        samples.append(time.perf_counter() - start)
    return len(plan.programs[0].instructions), median_interval(samples)


def main() -> int:
    """Print the cost of programs of several lengths."""
    for n_microbatches, n_chunks in ((1, 1), (4, 8)):
        n, step = instrumentation_s(n_microbatches, n_chunks)
        sys.stdout.write(
            f"{n:4d} instructions: {step.median * 1e6:7.1f} µs a step "
            f"[{step.low * 1e6:.1f}, {step.high * 1e6:.1f}], {step.median / n * 1e6:.2f} µs each\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
