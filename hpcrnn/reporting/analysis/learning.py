"""How long cases took to learn as much: time, steps, bytes and joules to a target loss, over the seeds of each.

A *goal* is what has to be learned: model, data and batch, optimizer, target, and the data held out.  Learning rate and
limits are each case's own.  The *base* of a goal is the serial case that is fastest to the target, named and absolute.

A seed that did not reach the target is a result: what it would have needed lies somewhere between what it had used when
it ended and infinity (it is *censored*), and one that diverged would never have got there.  Quantiles of such samples
need no model: an order statistic lies between those of the lower ends and those of the upper ones.  So a median is
infinite where half of the seeds never got there, and no seed is left out.

A comparison is decided where the whole interval of the ratio of two medians lies on one side of 1.  From six seeds on
it follows from the intervals of both medians.  Of fewer, which have none, it is the interval of the rank-sum test that
holds all ratios of a seed of one to a seed of the other (Mann & Whitney, 1947; Hodges & Lehmann, 1963): its coverage is
``1 - 2 / C(n + m, n)``, 97 % of four seeds and four.  Of three and three it would be 90 %: nothing is decided.

Time to the target is a product, of every seed: steps to the target (what a method costs the statistics) times the time
of a step (what the hardware and communication cost).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb, inf, isinf, isnan, nan

import numpy as np

from hpcrnn.records.learning import Curve, Learning
from hpcrnn.records.record import FloatArray
from hpcrnn.records.statistics import CONFIDENCE, Interval, median_interval
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.finding import finding_of
from hpcrnn.reporting.analysis.standing import Finding

MOST_POINTS = 400
"""Of a drawn curve."""
_HOW = ("mode", "lr", "momentum", "clip", "carry", "seeds", "max_steps", "eval_every", "target_loss", "eval_rows")
"""Keys of the training section that are each case's own way, or that the learning itself says."""


@dataclass(frozen=True, eq=False)
class Needed:
    """What the seeds of a case needed of one thing to reach the target, each as far as it is known.

    Attributes
    ----------
    least, most : float64 array (n_seeds,)
        Equal where a seed reached the target; else what it had used when it ended, and infinity: both of one that
        diverged. NaN where it is not known.
    """

    least: FloatArray
    most: FloatArray

    @cached_property
    def interval(self) -> Interval:
        """Median over the seeds, or what it is at most, and its rank-based interval, of which both may be infinite."""
        low, high = median_interval(self.least), median_interval(self.most)
        return Interval(high.n, high.median, low.low, high.high)

    @property
    def median_at_least(self) -> float:
        """What the median is at least: less than that of the interval where seeds were stopped before it."""
        return float(np.median(self.least))

    @property
    def median_known(self) -> bool:
        """Whether the median is finite and the same, whatever those that were stopped would have needed."""
        return bool(np.isfinite(self.interval.median)) and self.median_at_least == self.interval.median

    @property
    def span(self) -> tuple[float, float]:
        """The least that a seed needed, and the most."""
        return float(self.least.min()), float(self.most.max())


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a case learned, seed by seed.

    Attributes
    ----------
    entry : Entry
    learning : Learning
        With one curve at the least.
    time, steps, sent, energy : Needed
        Seconds, optimizer steps, bytes of all ranks, joules to the target.
    """

    entry: Entry
    learning: Learning
    time: Needed
    steps: Needed
    sent: Needed
    energy: Needed

    @property
    def n_seeds(self) -> int:
        return len(self.learning.curves)

    @cached_property
    def step_s(self) -> Interval:
        """Seconds of a step: of each seed its mean, of those the median."""
        known = [c for c in self.learning.curves if c.step[-1] > 0]
        return median_interval([c.time_s[-1] / c.step[-1] for c in known])

    @property
    def energy_known(self) -> bool:
        """Whether the energy of every seed is known."""
        return not np.isnan(self.energy.least).any()


@dataclass(frozen=True, eq=False)
class Ranked:
    """A case beside the base of its goal.

    Attributes
    ----------
    outcome : Outcome
    base : Outcome or None
        The serial case that is fastest to the target, of the same file where that holds one; None without one.
    finding : {"base", "faster", "slower", "undecided"}
        What the case is, to the target.
    speedup : Interval
        Time of the base to the target over that of the case. The median is NaN where not both are known, the ends
        where there are too few seeds.
    """

    outcome: Outcome
    base: Outcome | None
    finding: Finding
    speedup: Interval

    @property
    def entry(self) -> Entry:
        """The case."""
        return self.outcome.entry

    @property
    def by_steps(self) -> float:
        """Steps of the base to the target over those of the case: below 1 it needs more; NaN where one is not known."""
        return _of_medians(self.base.steps, self.outcome.steps) if self.base else nan

    @property
    def by_step_time(self) -> float:
        """Time of a step of the base over that of the case."""
        return _quotient(self.base.step_s.median, self.outcome.step_s.median) if self.base else nan

    @property
    def too_few(self) -> bool:
        """Whether there are too few seeds to decide anything."""
        return self.base is not None and self.finding == "undecided" and isnan(self.speedup.low)


@dataclass(frozen=True, eq=False)
class Goal:
    """Cases that had the same to learn, the fastest to the target first, then by how many seeds reached it.

    Attributes
    ----------
    target_loss : float
    unit : str
        Of the loss.
    held_out : str
        What the models were held against.
    ranked : tuple of Ranked
    """

    target_loss: float
    unit: str
    held_out: str
    ranked: tuple[Ranked, ...]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(one.outcome for one in self.ranked)

    @property
    def entries(self) -> list[Entry]:
        """The cases."""
        return [one.entry for one in self.ranked]


@dataclass(frozen=True, eq=False)
class Band:
    """How the loss of a case came down, over its seeds.

    Of every seed the lowest held-out loss so far, straight between evaluations; one that has reached the target stays
    there, so that the median is of all seeds at every point. It ends where the first seed ended that did not.

    Attributes
    ----------
    x : float64 array (n,)
        Ascending, from 0.
    low, middle, high : float64 array (n,)
        Smallest, median and largest of the seeds; the median ends, as NaN, where it has reached the target.
    reached : bool
        Whether the median did.
    n : int
        Seeds.
    """

    x: FloatArray
    low: FloatArray
    middle: FloatArray
    high: FloatArray
    reached: bool
    n: int


def outcome_of(entry: Entry) -> Outcome | None:
    """Return what a case learned; None where it was not trained to a target, or no seed of it began."""
    learning = entry.case.learning
    if learning is None or not learning.curves or any(not len(curve.step) for curve in learning.curves):
        return None
    columns = ("time_s", "step", "sent_bytes", "energy_j")
    return Outcome(entry, learning, *(_needed(learning.curves, column) for column in columns))


def _needed(curves: Sequence[Curve], column: str) -> Needed:
    used = np.array([getattr(curve, column)[-1] for curve in curves], dtype=np.float64)
    reached = np.array([curve.reached for curve in curves])
    diverged = np.array([curve.ending == "diverged" for curve in curves])
    unknown = np.isnan(used)
    least = np.where(diverged & ~unknown, inf, used)
    return Needed(least, np.where(reached | unknown, used, inf))


def goals(entries: Sequence[Entry]) -> tuple[Goal, ...]:
    """Put the cases that had the same to learn beside one another; those that may be set beside other results.

    Parameters
    ----------
    entries : sequence of Entry
    """
    found: dict[str, list[Outcome]] = {}
    for entry in entries:
        if entry.contends and (outcome := outcome_of(entry)) is not None:
            found.setdefault(_goal_id(outcome), []).append(outcome)
    return tuple(_goal(outcomes) for outcomes in found.values())


def rank_all(entries: Sequence[Entry]) -> dict[int, Ranked]:
    """Return how every case that was trained to a target stands to the base of its goal, by its number."""
    return {one.entry.number: one for goal in goals(entries) for one in goal.ranked}


def same_target(a: Learning, b: Learning) -> bool:
    """Whether two cases were to come to the same loss on the same data."""
    return (a.target_loss, a.unit, a.held_out) == (b.target_loss, b.unit, b.held_out)


def _goal_id(outcome: Outcome) -> str:
    problem, learning = outcome.entry.case.problem, outcome.learning
    training = {key: value for key, value in problem["training"].items() if key not in _HOW}
    what = [learning.target_loss, learning.unit, learning.held_out, outcome.entry.case.simulated]
    return json.dumps([problem | {"training": training}, *what], sort_keys=True)


def _goal(outcomes: Sequence[Outcome]) -> Goal:
    ranked = [_rank(outcome, _base_of(outcome, outcomes)) for outcome in sorted(outcomes, key=_place)]
    learning = outcomes[0].learning
    return Goal(learning.target_loss, learning.unit, learning.held_out, tuple(ranked))


def _place(outcome: Outcome) -> tuple[float, float, int]:
    """Order by the median time, of those that never got there by the share of seeds that did, then by number."""
    interval = outcome.time.interval
    return interval.median, -outcome.learning.n_reached / outcome.n_seeds, outcome.entry.number


def _base_of(outcome: Outcome, outcomes: Sequence[Outcome]) -> Outcome | None:
    serial = [o for o in outcomes if o.entry.case.is_serial_base and o.entry.case.verdict.status == "VALID"]
    same = [o for o in serial if o.entry.file == outcome.entry.file]
    return min(same or serial, key=_place, default=None)


def _rank(outcome: Outcome, base: Outcome | None) -> Ranked:
    if base is None:
        return Ranked(outcome, None, "undecided", Interval(outcome.n_seeds, nan, nan, nan))
    if base.entry.number == outcome.entry.number:
        return Ranked(outcome, base, "base", Interval(outcome.n_seeds, 1.0, 1.0, 1.0))
    speedup = needed_ratio(base.time, outcome.time)
    return Ranked(outcome, base, finding_of(speedup, "higher"), speedup)


def needed_ratio(numerator: Needed, denominator: Needed) -> Interval:
    """Ratio of the medians of what two cases needed, with an interval from the seeds of both.

    Returns
    -------
    Interval
        Its median is NaN where not both are known. Its ends, of which the upper one may be infinite, are
        NaN where there are too few seeds, or both may be infinite.
    """
    a, b = numerator.interval, denominator.interval
    n, median = min(a.n, b.n), _of_medians(numerator, denominator)
    if isnan(a.low) or isnan(b.low):
        if 2 / comb(a.n + b.n, a.n) > 1 - CONFIDENCE:
            return Interval(n, median, nan, nan)
        (a_low, a_high), (b_low, b_high) = numerator.span, denominator.span
    else:
        a_low, a_high, b_low, b_high = a.low, a.high, b.low, b.high
    return Interval(n, median, _quotient(a_low, b_high), _quotient(a_high, b_low))


def _of_medians(a: Needed, b: Needed) -> float:
    return _quotient(a.interval.median, b.interval.median) if a.median_known and b.median_known else nan


def _quotient(a: float, b: float) -> float:
    """Divide what may be zero or infinite; NaN where the quotient may be anything."""
    if isnan(a) or isnan(b) or (isinf(a) and isinf(b)) or a == b == 0.0:
        return nan
    return a / b if b else inf


def band(learning: Learning, column: str) -> Band | None:
    """Return how the held-out loss of a case came down against one of its columns.

    Parameters
    ----------
    learning : Learning
    column : str
        ``step``, ``time_s``, ``sent_bytes`` or ``energy_j``.

    Returns
    -------
    Band or None
        None where the column is not known, or nothing was used, or a seed never had a finite loss.
    """
    seeds = [(_column(curve, column), _lowest(curve, learning.target_loss)) for curve in learning.curves]
    if not seeds or any(not (np.isfinite(x).all() and np.isfinite(loss).all()) for x, loss in seeds):
        return None
    # Of what was stopped nothing is known beyond its end; what diverged stays where it was.
    open_ends = [
        x[-1] for (x, _), c in zip(seeds, learning.curves, strict=True) if c.ending not in ("target", "diverged")
    ]
    end = min(open_ends, default=max(x[-1] for x, _ in seeds))
    grid = np.unique(np.concatenate([x for x, _ in seeds]))
    grid = grid[grid <= end]
    if grid.size < 2:
        return None
    if grid.size > MOST_POINTS:
        grid = grid[np.unique(np.linspace(0, grid.size - 1, MOST_POINTS).round().astype(np.int64))]
    losses = np.array([np.interp(grid, x, loss) for x, loss in seeds])
    middle = np.median(losses, axis=0)
    there = middle <= learning.target_loss
    reached = bool(there.any())
    if reached:
        middle[int(there.argmax()) + 1 :] = nan
    return Band(grid, losses.min(axis=0), middle, losses.max(axis=0), reached, len(seeds))


def _column(curve: Curve, name: str) -> FloatArray:
    return np.asarray(getattr(curve, name), dtype=np.float64)


def _lowest(curve: Curve, target: float) -> FloatArray:
    """Lowest held-out loss so far, no lower than the target; what is no number is none."""
    loss = np.where(np.isnan(curve.held_out_loss), inf, curve.held_out_loss)
    return np.maximum(np.minimum.accumulate(loss), target)
