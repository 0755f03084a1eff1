"""``--method auto``: a short probe on one rank, a prediction for every method, and the reason for the one chosen.

The probe measures what a step costs of the batch's rows and of the folded ones, and, on a few segments, how soon
trajectories meet. With S steps a segment, m the meeting length and r the rounds of gate-product correction::

    chain      T steps of B rows
    picard     S + m steps of V*B rows, where the probe's segments met; never, where they did not
    gateprod   r S steps of V*B rows
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np

from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.world import World
from hpcrnn.records.certificate import UNMET
from hpcrnn.recurrence import LINEAR_CELLS, SEGMENTED
from hpcrnn.spec import Grid, MethodName, ParallelSpec, RecurrenceSpec, RunSpec
from hpcrnn.workloads import open_workload

_CHAIN_STEPS = 128
_FOLDED_STEPS = 24
_SEGMENT_STEPS = 256
_SEGMENTS = 8
_SAMPLES = 4
_REPETITIONS = 3
_WORTH = 0.9
"""A method must promise less than this share of the chain's time, or the chain it is."""


@dataclass(frozen=True)
class Probe:
    """What was measured, and what follows.

    Attributes
    ----------
    chain_step_s, folded_step_s : float
        Seconds of a time step of the whole network: of the batch's rows, of the folded ones.
    meeting : int
        Longest meeting length of the probe's segments; -1 where one did not meet.
    rounds : int
        Of gate-product correction; 0 where it was not tried.
    segment_steps : int
        S of the problem.
    predicted_s : dict of str to float
        Seconds of a step of the problem by method; infinite where it is not to be had.
    method : str
    reason : str
    """

    chain_step_s: float
    folded_step_s: float
    meeting: int
    rounds: int
    segment_steps: int
    predicted_s: dict[str, float]
    method: MethodName
    reason: str


def choose_method(spec: RunSpec, world: World) -> tuple[RunSpec, dict[str, Any]]:
    """Replace the method ``auto`` by one.

    Every rank calls this; rank 0 measures.

    Parameters
    ----------
    spec : RunSpec
        With its grid resolved.
    world : World

    Returns
    -------
    spec : RunSpec
    choice : dict
        The probe, as plain values; empty where the method was given.
    """
    if spec.recurrence.method != "auto":
        return spec, {}
    grid = spec.parallel.grid or Grid()
    segments = grid.time * spec.recurrence.fold
    if segments == 1:
        probe = Probe(
            math.nan, math.nan, 0, 0, spec.problem.seq, {}, "chain", "there is one segment (fold = 1, time = 1)"
        )
    else:
        probe = world.on_root(lambda: _probe(spec, segments, world))
    chosen = RecurrenceSpec()
    if probe.method != "chain":
        chosen = msgspec.structs.replace(spec.recurrence, method=probe.method)
    plain = asdict(probe)
    plain["predicted_s"] = {name: s if math.isfinite(s) else None for name, s in probe.predicted_s.items()}
    return msgspec.structs.replace(spec, recurrence=chosen), plain


def _probe(spec: RunSpec, segments: int, world: World) -> Probe:
    fold, batch = spec.recurrence.fold, spec.problem.batch
    S = -(-spec.problem.seq // segments)
    linear = spec.model.cell in LINEAR_CELLS
    first: MethodName = "scan" if linear else "picard"
    chain_steps = min(spec.problem.seq, _CHAIN_STEPS)
    chain_s = _step_s(_short(spec, chain_steps, batch, RecurrenceSpec()), world) / chain_steps
    folded_steps = min(S, _FOLDED_STEPS)
    one_round = RecurrenceSpec(method="tbptt_zero", fold=fold)
    folded_s = _step_s(_short(spec, folded_steps * fold, batch, one_round), world) / folded_steps

    steps, few = min(S, _SEGMENT_STEPS), min(segments, _SEGMENTS)
    samples = min(batch, _SAMPLES)

    def solve(method: MethodName) -> tuple[int, int]:
        recurrence = RecurrenceSpec(method=method, fold=few, tolerance=spec.recurrence.tolerance)
        executor = _run(_short(spec, steps * few, samples, recurrence), world)
        lengths = np.concatenate([found.solve.meeting.ravel() for found in executor.engine.solves()])
        rounds = max(len(found.solve.steps) for found in executor.engine.solves())
        return (UNMET if (lengths == UNMET).any() else int(lengths.max())), rounds

    meeting, _ = solve(first)
    predicted = {"chain": spec.problem.seq * chain_s, first: math.inf}
    rounds = 0
    if meeting != UNMET:
        predicted[first] = (S + meeting) * folded_s
    elif not linear:
        _, rounds = solve("gateprod")
        # More rounds than half the segments is the chain again, and a longer line of segments would need more still.
        predicted["gateprod"] = rounds * S * folded_s if rounds <= few // 2 + 1 else math.inf
    best = min(predicted, key=lambda name: predicted[name])
    if best != "chain" and predicted[best] > _WORTH * predicted["chain"]:
        best = "chain"
    return Probe(chain_s, folded_s, meeting, rounds, S, predicted, best, _reason(best, meeting, predicted))  # type: ignore[arg-type]


def _reason(best: str, meeting: int, predicted: dict[str, float]) -> str:
    met = "trajectories did not meet within the probe's segments" if meeting == UNMET else f"met after {meeting} steps"
    times = ", ".join(f"{name} {s:.3g} s" if math.isfinite(s) else f"{name} not" for name, s in predicted.items())
    return f"{met}; predicted: {times}: {best}"


def _short(spec: RunSpec, steps: int, batch: int, recurrence: RecurrenceSpec) -> RunSpec:
    """The same network on fewer steps and rows, on one rank."""
    problem = msgspec.structs.replace(spec.problem, seq=max(steps, 1), batch=batch)
    mode = "forward" if spec.training.mode == "forward" else "gradient"
    training = msgspec.structs.replace(spec.training, mode=mode)
    return msgspec.structs.replace(
        spec, problem=problem, training=training, parallel=ParallelSpec(grid=Grid()), recurrence=recurrence
    )


def _executor(spec: RunSpec, world: World) -> Executor:
    workload = open_workload(spec)
    backend = next(name for name in spec.machine.backend if name in SEGMENTED)
    executor = make_plan(spec, workload, Grid()).executor(0, backend, world.communicators(Grid()))
    executor.engine.load_batch(workload.batch(0))
    return executor


def _run(spec: RunSpec, world: World) -> Executor:
    executor = _executor(spec, world)
    executor.run()
    return executor


def _step_s(spec: RunSpec, world: World) -> float:
    """Seconds of a training step, the median of a few after one."""
    executor = _run(spec, world)
    return float(np.median([executor.run()[0] for _ in range(_REPETITIONS)]))
