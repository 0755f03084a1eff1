"""How fast the ranks are: ``--balance measured``, before anything is laid out.

All ranks at the same time, as in a step, run forward and backward of the problem's layers alone, each the same: the
rows, steps and layers of its even share, the steps cut where that would take long.  A rank's speed is one over its
median.  Ranks are told apart only where their times are, by :data:`NOISE` and by the intervals of their medians; those
that are not are given the same speed, and where all are alike the split stays even.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.world import World
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.spec import BackendName, Grid, ParallelSpec, RecurrenceSpec, RunSpec
from hpcrnn.spec.unequal import parse_handicap, parse_weights
from hpcrnn.workloads import open_workload

NOISE = 0.05
"""Times that differ by less, relatively, do not tell two ranks apart."""
LEAST, MOST, LIMIT_S = 7, 25, 1.0
"""Repetitions: at the least (six make an interval), at the most, and seconds after which no more are begun."""
SAMPLE_S = 0.05
"""Seconds that a repetition is to take on the slowest rank, where its share is large enough."""
_FIRST_STEPS = 4


@dataclass(frozen=True)
class Balance:
    """How the work is to be shared.

    Attributes
    ----------
    weights : tuple of float
        Speed of each rank over that of the fastest; empty where shares are even.
    facts : dict
        The section ``balance`` of the environment; empty where nobody asked for another than even shares.
    reason : str
        What the calibration found, in words; empty where there was none.
    """

    weights: tuple[float, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


def settle_balance(spec: RunSpec, world: World) -> Balance:
    """Return the weights that were given, or measure them; every rank calls this, and all get the same.

    Parameters
    ----------
    spec : RunSpec
        With its grid and its method resolved.
    world : World
    """
    given = parse_weights(spec.parallel.balance)
    if given:
        return Balance(given, {"how": "given", "weights": list(given)})
    if spec.parallel.balance == "even" or world.size == 1:
        return Balance()
    samples, small = _measure(spec, world)
    gathered = world.comm.gather(samples)
    found = None
    if gathered is not None:
        weights, reason = weigh(gathered)
        facts = {
            "how": "measured",
            "weights": list(weights),
            "reason": reason,
            "sample_s": gathered,
            "rows": small.problem.batch,
            "steps": small.problem.seq,
            "layers": small.model.layers,
        }
        found = Balance(weights, facts, reason)
    settled: Balance = world.comm.bcast(found)
    return settled


def weigh(samples: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], str]:
    """Turn times into speeds.

    From the fastest rank on, ranks are of one kind until one takes :data:`NOISE` longer than the first of them, and its
    whole interval lies beyond that one's: with it a new kind begins.

    Parameters
    ----------
    samples : sequence of sequence of float
        Seconds of the same work, for each rank.

    Returns
    -------
    weights : tuple of float
        Speeds over that of the fastest kind, to four decimals; empty where all ranks are of one kind.
    reason : str
    """
    found = [median_interval(times) for times in samples]
    by_time = sorted(range(len(found)), key=lambda rank: found[rank].median)
    kinds: list[list[int]] = []
    for rank in by_time:
        if not kinds or _takes_longer(found[rank], found[kinds[-1][0]]):
            kinds.append([])
        kinds[-1].append(rank)
    fastest, slowest = found[by_time[0]].median, found[by_time[-1]].median
    spread = f"the slowest rank took {slowest / fastest:.2f} times as long as the fastest"
    if len(kinds) == 1:
        return (), f"{spread}, which is noise or no more than {NOISE:.0%}: shares stay even"
    medians = [float(np.median([found[rank].median for rank in kind])) for kind in kinds]
    speeds: dict[int, float] = {}
    for kind, median in zip(kinds, medians, strict=True):
        # Something is left of a rank that is slower by far.
        speeds |= dict.fromkeys(kind, max(round(medians[0] / median, 4), 1e-4))
    return tuple(speeds[rank] for rank in range(len(found))), spread


def _takes_longer(one: Interval, other: Interval) -> bool:
    return one.median > (1 + NOISE) * other.median and one.low > other.high


def _measure(spec: RunSpec, world: World) -> tuple[list[float], RunSpec]:
    """Seconds of this rank's repetitions, and what was run."""
    small = _even_share(spec, world.rank)
    steps = min(small.problem.seq, _FIRST_STEPS)
    executor = _executor(_with_steps(small, steps), spec, world)
    slowest_s = max(world.comm.allgather(executor.run()[0]))
    steps = min(small.problem.seq, max(steps, math.ceil(steps * SAMPLE_S / slowest_s)))
    small = _with_steps(small, steps)
    executor = _executor(small, spec, world)
    samples: list[float] = []
    end = time.monotonic() + LIMIT_S
    more = True
    while more:
        world.comm.Barrier()  # at the same time: cores share caches, memory and heat
        samples.append(float(executor.run()[0]))
        more = len(samples) < LEAST or (len(samples) < MOST and time.monotonic() < end)
        more = world.comm.bcast(more)
    return samples, small


def _even_share(spec: RunSpec, rank: int) -> RunSpec:
    """What a rank has to do where shares are even, as a problem of its own; rounded down, to be the same for all."""
    grid = spec.parallel.grid or Grid()
    problem, model = spec.problem, spec.model
    slowed = parse_handicap(spec.machine.handicap).get(rank)
    # Of a rank that becomes slow later nothing is known yet.
    handicap = None if slowed is None or slowed.from_step else f"0:{slowed.speed}"
    return msgspec.structs.replace(
        spec,
        problem=msgspec.structs.replace(problem, batch=problem.batch // grid.data, seq=problem.seq // grid.time),
        model=msgspec.structs.replace(model, layers=model.layers // grid.pipeline),
        training=msgspec.structs.replace(
            spec.training, mode="forward" if spec.training.mode == "forward" else "gradient"
        ),
        parallel=ParallelSpec(grid=Grid(), microbatches=spec.parallel.microbatches),
        recurrence=RecurrenceSpec(),
        machine=msgspec.structs.replace(spec.machine, handicap=handicap),
    )


def _with_steps(spec: RunSpec, steps: int) -> RunSpec:
    return msgspec.structs.replace(spec, problem=msgspec.structs.replace(spec.problem, seq=steps))


def _executor(small: RunSpec, spec: RunSpec, world: World) -> Executor:
    """Build this rank's run, and run it once, so that its memory has been touched."""
    workload = open_workload(small)
    backends: Sequence[BackendName] = spec.machine.rank_backends or spec.machine.backend[:1] * world.size
    executor = make_plan(small, workload, Grid()).executor(0, backends[world.rank], world.communicators(Grid()))
    executor.engine.load_batch(workload.batch(0))
    executor.run()
    return executor
