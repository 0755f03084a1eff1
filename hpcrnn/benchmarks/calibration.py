"""How fast the ranks are: ``--balance measured``, before anything is laid out.

All ranks at the same time, as in a step, run the problem's layers alone: the rows and layers of an even share, and as
many steps of it as a repetition has time for.  A rank's speed is one over its median.  Ranks are told apart only where
their times are, by :data:`NOISE` and by the intervals of their medians; those that are not are given the same speed,
and where all are alike the split stays even.

Work does not take time in proportion: a product of fewer rows takes longer *per row*, and the update takes as long
however few the steps are.  Where rows or time steps are to be shared out unevenly all ranks are therefore measured once
more, each with the share that its first speed gives it, and the speed is what it does of that a second.  The update is
in it where the steps are those of a whole share; of fewer it would be too large a part.
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
from hpcrnn.schedules.shares import share_out, speeds_of
from hpcrnn.spec import AXES, BackendName, Grid, Mode, ParallelSpec, RecurrenceSpec, RunSpec, TrainingSpec
from hpcrnn.spec.unequal import parse_handicap, parse_weights
from hpcrnn.workloads import open_workload

NOISE = 0.05
"""Times that differ by less, relatively, do not tell two ranks apart."""
LEAST, MOST, LIMIT_S = 7, 25, 1.0
"""Repetitions: at the least (six make an interval), at the most, and seconds after which no more are begun."""
SAMPLE_S = 0.25
"""Seconds that a repetition is to take on the slowest rank, where its share is large enough."""
_FIRST_STEPS = 4
_TINY_LR = 1e-20


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
    small = _even_share(spec, world)
    passes = [_measure(small, spec, world)]
    weights, reason = weigh(passes[0].s_of_one)
    second = _own_share(small, spec, weights, world.rank)
    if second is not None:
        passes.append(_measure(second, spec, world))
        weights, reason = weigh(passes[1].s_of_one)
    facts = {
        "how": "measured",
        "weights": list(weights),
        "reason": reason,
        "layers": small.model.layers,
        "passes": [
            {"rows": list(one.rows), "steps": list(one.steps), "sample_s": [list(times) for times in one.sample_s]}
            for one in passes
        ],
    }
    return Balance(weights, facts, reason)


@dataclass(frozen=True)
class _Pass:
    """What all ranks took; the same on all of them.

    Attributes
    ----------
    rows, steps : tuple of int
        Of each rank.
    sample_s : tuple of tuple of float
        Seconds of each repetition of each rank.
    """

    rows: tuple[int, ...]
    steps: tuple[int, ...]
    sample_s: tuple[tuple[float, ...], ...]

    @property
    def s_of_one(self) -> list[list[float]]:
        """Seconds of one time step of one row: of each repetition of each rank."""
        work = [rows * steps for rows, steps in zip(self.rows, self.steps, strict=True)]
        return [[seconds / one for seconds in times] for one, times in zip(work, self.sample_s, strict=True)]


def weigh(samples: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], str]:
    """Turn times into speeds.

    From the fastest rank on, ranks are of one kind until one takes :data:`NOISE` longer than the first of them, and its
    whole interval lies beyond that one's: with it a new kind begins.

    Parameters
    ----------
    samples : sequence of sequence of float
        Seconds of each repetition of the same work, for each rank.

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
    spread = f"the slowest rank takes {slowest / fastest:.2f} times as long as the fastest"
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


def _measure(small: RunSpec, spec: RunSpec, world: World) -> _Pass:
    """Measure all ranks at the same time, each with its own share."""
    executor = _executor(small, spec, world)
    samples: list[float] = []
    end = time.monotonic() + LIMIT_S
    more = True
    while more:
        world.comm.Barrier()  # at the same time: cores share caches, memory and heat
        samples.append(float(executor.run()[0]))
        more = len(samples) < LEAST or (len(samples) < MOST and time.monotonic() < end)
        more = world.comm.bcast(more)
    own = small.problem.batch, small.problem.seq, tuple(samples)
    rows, steps, sample_s = zip(*world.comm.allgather(own), strict=True)
    return _Pass(rows, steps, sample_s)


def _even_share(spec: RunSpec, world: World) -> RunSpec:
    """What a rank has to do where shares are even, as a problem of its own, the same for all but for a handicap."""
    grid = spec.parallel.grid or Grid()
    slowed = parse_handicap(spec.machine.handicap).get(world.rank)
    # Of a rank that becomes slow later nothing is known yet.
    handicap = None if slowed is None or slowed.from_step else f"0:{slowed.speed}"
    share = msgspec.structs.replace(
        spec,
        model=msgspec.structs.replace(spec.model, layers=spec.model.layers // grid.pipeline),
        training=_one_step_of(spec.training, whole=False),
        parallel=ParallelSpec(grid=Grid(), microbatches=spec.parallel.microbatches),
        recurrence=RecurrenceSpec(),
        machine=msgspec.structs.replace(spec.machine, handicap=handicap),
    )
    rows, most = spec.problem.batch // grid.data, spec.problem.seq // grid.time
    few = min(most, _FIRST_STEPS)
    slowest_s = max(world.comm.allgather(_executor(_with(share, batch=rows, seq=few), spec, world).run()[0]))
    steps = min(most, max(few, math.ceil(few * SAMPLE_S / slowest_s)))
    share = msgspec.structs.replace(share, training=_one_step_of(spec.training, whole=steps == most))
    return _with(share, batch=rows, seq=steps)


def _one_step_of(training: TrainingSpec, *, whole: bool) -> TrainingSpec:
    """A step to be timed, which changes next to nothing however often it is run; with its update if it is whole."""
    mode: Mode = training.step_mode if whole or training.mode == "forward" else "gradient"
    return msgspec.structs.replace(training, mode=mode, target_loss=None, lr=_TINY_LR)


def _own_share(small: RunSpec, spec: RunSpec, weights: Sequence[float], rank: int) -> RunSpec | None:
    """What a rank has to do by speeds that were measured of even shares; None where neither rows nor steps differ."""
    grid = spec.parallel.grid or Grid()
    speeds = speeds_of(grid, weights)
    place = dict(zip(AXES, np.unravel_index(rank, [getattr(grid, axis) for axis in AXES]), strict=True))
    changed = {}
    if speeds.data:
        rows = share_out(spec.problem.batch, speeds.data, spec.parallel.microbatches)[place["data"]]
        changed["batch"] = rows.stop - rows.start
    if speeds.time and small.problem.seq == spec.problem.seq // grid.time:
        least = max(spec.parallel.chunks, spec.recurrence.fold)
        steps = share_out(spec.problem.seq, speeds.time, least)[place["time"]]
        changed["seq"] = steps.stop - steps.start
    return _with(small, **changed) if changed else None


def _with(spec: RunSpec, **problem: int) -> RunSpec:
    return msgspec.structs.replace(spec, problem=msgspec.structs.replace(spec.problem, **problem))


def _executor(small: RunSpec, spec: RunSpec, world: World) -> Executor:
    """Build this rank's run, and run it once, so that its memory has been touched."""
    workload = open_workload(small)
    backends: Sequence[BackendName] = spec.machine.rank_backends or spec.machine.backend[:1] * world.size
    executor = make_plan(small, workload, Grid()).executor(0, backends[world.rank], world.communicators(Grid()))
    executor.engine.load_batch(workload.batch(0))
    executor.run()
    return executor
