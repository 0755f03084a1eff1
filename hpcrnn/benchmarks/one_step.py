"""One step of a plan between given states at the two ends of time, and all that it computed."""

from __future__ import annotations

import numpy as np

from hpcrnn.backends.base import Array, Outcome, Part, state_names
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.execution.executor import Executor
from hpcrnn.model.network import Network, initial_parameters
from hpcrnn.spec import RunSpec
from hpcrnn.workloads import Workload

Boundary = tuple[dict[str, Array], dict[str, Array]]
"""Initial states and gradients of the final states, of the whole batch."""


def random_boundary(network: Network, spec: RunSpec) -> Boundary:
    """Draw initial states and gradients of the final states, for the whole batch.

    Of rows of unequal length nothing wants a gradient of the last state, so it is zero; that they start from zeros
    whatever the initial states are shows.
    """
    rng = np.random.default_rng(np.random.SeedSequence((spec.problem.seed, 0xB0)))
    batch, dtype = spec.problem.batch, spec.model.dtype
    scale = 1.0 / (batch * spec.problem.seq) if spec.problem.sequences == "windows" else 0.0
    initial, cotangent = {}, {}
    for block in network.blocks:
        if block.cell is not None:
            for name in state_names(block.name, block.cell.state_names):
                initial[name] = 0.5 * rng.standard_normal((batch, block.outputs)).astype(dtype)
                cotangent[name] = scale * rng.standard_normal((batch, block.outputs)).astype(dtype)
    return initial, cotangent


def run_once(executor: Executor, plan: Plan, rank: int, workload: Workload, boundary: Boundary) -> Part:
    """Run the first step of a plan on one rank, between given boundary states; return what it computed."""
    rows = plan.rows(rank)
    initial, cotangent = boundary
    engine = executor.engine
    engine.set_boundary({k: v[rows] for k, v in initial.items()}, {k: v[rows] for k, v in cotangent.items()})
    if plan.spec.recurrence.method == "tbptt_stale":  # what it starts from is what a step on other data left
        engine.load_batch(workload.batch(1, rows))
        executor.run()
        engine.load_parameters(initial_parameters(plan.network, plan.spec.problem.seed))
    engine.load_batch(workload.batch(0, rows))
    executor.run()
    return engine.part()


def run_alone(executor: Executor, plan: Plan, workload: Workload, boundary: Boundary) -> Outcome:
    """As :func:`run_once` on a plan of one rank, which knows the whole outcome."""
    part = run_once(executor, plan, 0, workload, boundary)
    return Outcome(part.loss, {name: piece.value for name, piece in part.pieces.items()})
