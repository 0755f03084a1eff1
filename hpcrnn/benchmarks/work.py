"""What the steps that were counted worked on, told from the plan and the data: nothing is counted while a step runs."""

from __future__ import annotations

import numpy as np

from hpcrnn.backends.filling import slots_run
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.records.work import Work
from hpcrnn.workloads import SequenceWorkload, Workload


def work_of(plan: Plan, workload: Workload, steps: range) -> Work | None:
    """Count what every rank worked on in some steps; None where all rows are of one length, or no step is asked for.

    Parameters
    ----------
    plan : Plan
    workload : Workload
    steps : range
        Counted from the start of the run, each a repetition.
    """
    if not isinstance(workload, SequenceWorkload) or not steps:
        return None
    tokens, slots = (np.zeros((len(steps), plan.n_ranks), dtype=np.int64) for _ in range(2))
    rows = [plan.rows(rank) for rank in range(plan.n_ranks)]
    parts = [plan.cut.microbatches(plan.place(rank)) for rank in range(plan.n_ranks)]
    for repetition, step in enumerate(steps):
        lengths = workload.tokens(step)
        tokens[repetition] = [lengths[own].sum() for own in rows]
        slots[repetition] = [slots_run(lengths[own], cut) for own, cut in zip(rows, parts, strict=True)]
    return Work(tokens, slots, workload.histogram())
