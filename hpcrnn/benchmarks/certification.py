"""From what every rank saw of its solves, step by step, to the certificate of a case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcrnn.backends.base import LayerSolve
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.execution.measurement import Samples
from hpcrnn.records.certificate import DIRECTIONS, QUANTILES, SETTLED, UNMET, Certificate

Seen = list[tuple[int, LayerSolve]]
"""One layer's solves in one direction, with the rank that saw each."""


def certify(plan: Plan, samples: Samples, choice: dict[str, Any]) -> Certificate | None:
    """Put the solves of all ranks together.

    Parameters
    ----------
    plan : Plan
    samples : Samples
        With the solves of at least one step.
    choice : dict
        How the method was chosen.

    Returns
    -------
    Certificate or None
        None where no step was run.
    """
    if not samples.solves:
        return None
    layers = tuple(block.name for block in plan.network.blocks if block.is_recurrent)
    directions = DIRECTIONS if plan.spec.training.mode != "forward" else DIRECTIONS[:1]
    n_segments = plan.grid.time * plan.spec.recurrence.fold
    shape = (len(samples.solves), len(layers), len(directions))
    counts = {name: np.zeros(shape, dtype=np.int64) for name in ("rounds", "critical_steps", "row_steps", "n_unmet")}
    residual, quantiles = np.zeros(shape), np.full((*shape, len(QUANTILES)), np.nan)
    converged, truncated = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    meeting = np.zeros((*shape[1:], n_segments, plan.spec.problem.batch), dtype=np.int64)
    for step, ranks in enumerate(samples.solves):
        for (layer, direction), seen in _by_layer(ranks).items():
            at = (step, layers.index(layer), directions.index(direction))
            solves = [found.solve for _, found in seen]
            lengths = _meeting(plan, seen, meeting.shape[2:])
            met = lengths[lengths > SETTLED]
            counts["rounds"][at] = max(len(solve.steps) for solve in solves)
            counts["critical_steps"][at] = _critical_steps(plan, seen)
            counts["row_steps"][at] = sum(solve.row_steps for solve in solves)
            counts["n_unmet"][at] = int((lengths == UNMET).sum())
            residual[at] = max(solve.residual for solve in solves)
            converged[at] = all(solve.converged for solve in solves)
            truncated[at] = any(solve.truncated for solve in solves)
            if met.size:
                quantiles[at] = np.quantile(met, QUANTILES)
            meeting[at[1:]] = lengths
    return Certificate(
        layers=layers,
        directions=directions,
        n_segments=n_segments,
        residual=residual,
        converged=converged,
        truncated=truncated,
        meeting_quantiles=quantiles,
        meeting=meeting,
        lyapunov=np.array([_exponents(layers, ranks) for ranks in (*samples.exponents, [], [])[:2]]),
        choice=choice,
        **counts,
    )


def _by_layer(ranks: Sequence[Sequence[LayerSolve]]) -> dict[tuple[str, str], Seen]:
    found: dict[tuple[str, str], Seen] = defaultdict(list)
    for rank, solves in enumerate(ranks):
        for solve in solves:
            found[solve.layer, solve.direction].append((rank, solve))
    return found


def _meeting(plan: Plan, seen: Seen, shape: tuple[int, ...]) -> np.ndarray:
    """Meeting lengths of all segments and rows of the global batch."""
    lengths = np.zeros(shape, dtype=np.int64)
    for rank, found in seen:
        place, own = plan.place(rank), found.solve.meeting
        first, row = place.time * len(own), plan.rows(rank).start + found.rows.start
        lengths[first : first + len(own), row : row + own.shape[1]] = own
    return lengths


def _critical_steps(plan: Plan, seen: Seen) -> int:
    """Steps one after another: of each round the most of any rank; micro-batches in turn, replicas side by side."""
    groups: dict[int, dict[int, list[tuple[int, ...]]]] = defaultdict(lambda: defaultdict(list))
    for rank, found in seen:
        groups[plan.place(rank).data][found.rows.start].append(found.solve.steps)
    return max(
        sum(sum(max(steps) for steps in zip(*ranks, strict=True)) for ranks in microbatches.values())
        for microbatches in groups.values()
    )


def _exponents(layers: Sequence[str], ranks: Sequence[dict[str, float]]) -> list[float]:
    """Mean over the ranks that have each layer."""
    return [float(np.mean([found[layer] for found in ranks if layer in found] or [np.nan])) for layer in layers]
