"""From a plan to what is measured: this rank's part of a way, and the batches it takes."""

from __future__ import annotations

import numpy as np

from hpcrnn.benchmarks.planning import Plan
from hpcrnn.benchmarks.ways import Way
from hpcrnn.execution.compression_watch import CompressionWatch
from hpcrnn.execution.measurement import Variant
from hpcrnn.execution.world import World
from hpcrnn.workloads import Workload


def make_variant(way: Way, plan: Plan, workload: Workload, world: World) -> Variant:
    """Build this rank's part of a way, with an executor where the rank takes part.

    Parameters
    ----------
    way : Way
    plan : Plan
        Of the way.
    workload : Workload
    world : World
    """
    rank = world.rank if way.n_ranks > 1 else 0
    executor, compression = None, None
    if way.n_ranks > 1 or world.is_root:
        communicators = world.communicators(way.grid, plan.nodes)
        executor = plan.executor(rank, way.backend_of(rank), communicators)
        if way.compresses and plan.spec.training.mode != "target":
            compression = CompressionWatch(executor, communicators.cart)
    rows = plan.rows(rank)
    return Variant(
        way.name,
        way.n_ranks,
        executor,
        lambda step: workload.batch(step, rows),
        solves=way.method != "chain",
        leg_steps=plan.leg_steps,
        loss_shares=None if plan.is_exact else np.array([plan.share(r) for r in range(way.n_ranks)]),
        compression=compression,
    )
