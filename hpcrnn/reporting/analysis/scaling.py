"""Every number a report shows, derived from raw samples by pure functions.

What is compared with what::

    problem_id equal        strong scaling: the same work on more ranks
    all but batch equal,    weak scaling: the same work *a rank* on more ranks
      batch / ranks equal
    base of every speedup   the best VALID serial case of the problem, of the same file where it holds one

An excluded case enters none of them.  Ratios are never averaged here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from hpcrnn.records.record import OTHER, PHASES, STEP, Case, FloatArray, Record
from hpcrnn.records.split import PLAIN_ORDER, Split
from hpcrnn.records.statistics import Interval, ratio_interval
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.describe import case_name, loss_unit, mode_of, short_source, threads_of
from hpcrnn.reporting.units import format_seconds, printable


@dataclass(frozen=True)
class Base:
    """What a speedup is a speedup over.

    Attributes
    ----------
    entry : Entry
    same_file : bool
        Whether it was measured in the same file as the case compared with it.
    """

    entry: Entry
    same_file: bool


@dataclass(frozen=True)
class Point:
    """One case on a scaling curve.

    Attributes
    ----------
    entry : Entry
    n_ranks : int
    base : Base or None
    speedup, efficiency : Interval or None
        Over ``base``; None without one.
    """

    entry: Entry
    n_ranks: int
    base: Base | None
    speedup: Interval | None
    efficiency: Interval | None

    @property
    def time(self) -> Interval:
        """Seconds of a step."""
        return self.entry.step


@dataclass(frozen=True)
class Series:
    """Points that differ in nothing but the ranks, and, for weak scaling, the batch that grows with them.

    Attributes
    ----------
    strategy, backend : str
        ``pipeline · 1f1b M4``: axes, order and pieces without the size of the axis that grows.
    points : tuple of Point
        Ordered by ranks, then by case number.
    batch_per_rank : Fraction or None
        Of a weak series; None for a strong one.
    """

    strategy: str
    backend: str
    points: tuple[Point, ...]
    batch_per_rank: Fraction | None = None

    @property
    def line(self) -> tuple[Point, ...]:
        """The points a line may join: one a rank count, the lower middle one of repeated measurements."""
        groups: dict[int, list[Point]] = {}
        for point in self.points:
            groups.setdefault(point.n_ranks, []).append(point)
        return tuple(sorted(group, key=lambda p: p.time.median)[(len(group) - 1) // 2] for group in groups.values())

    @property
    def repeated(self) -> bool:
        """Whether a rank count was measured more than once."""
        return len(self.line) < len(self.points)

    @property
    def widest(self) -> Point:
        """The point on the most ranks."""
        return self.line[-1]


@dataclass(frozen=True)
class PhaseBreakdown:
    """Where a step's time goes: the median over repetitions of the mean over ranks of each phase.

    Attributes
    ----------
    entry : Entry
    seconds : dict of str to float
        In the record's order, without the step itself.
    mean_step_s : float
        The same statistic of the whole step: what shares are shares of.
    """

    entry: Entry
    seconds: dict[str, float]
    mean_step_s: float

    @property
    def shares(self) -> dict[str, float]:
        """Each phase over the mean rank's step, in [0, 1]; NaN where the step took no time."""
        whole = self.mean_step_s or math.nan
        return {name: value / whole for name, value in self.seconds.items()}


@dataclass(frozen=True)
class LossCurve:
    """The loss of every step of a training case, warm-up steps first.

    Attributes
    ----------
    entry : Entry
    loss : float64 array (n_steps,)
    n_warmup : int
        Leading steps whose times are not counted.
    unit : str
        Empty where the workload alone defines it.
    """

    entry: Entry
    loss: FloatArray
    n_warmup: int
    unit: str


@dataclass(frozen=True)
class Analysis:
    """All that a report is made of."""

    records: tuple[Record, ...]
    entries: tuple[Entry, ...]
    strong: tuple[Series, ...]
    weak: tuple[Series, ...]
    phases: tuple[PhaseBreakdown, ...]
    losses: tuple[LossCurve, ...]

    @property
    def included(self) -> tuple[Entry, ...]:
        """The cases that are plotted."""
        return tuple(e for e in self.entries if e.included)

    @property
    def excluded(self) -> tuple[Entry, ...]:
        """The cases that are listed with a reason instead."""
        return tuple(e for e in self.entries if not e.included)


def analyse(records: Sequence[Record]) -> Analysis:
    """Derive everything a report shows.

    Parameters
    ----------
    records : sequence of Record
        One given twice (by its uuid) counts once.
    """
    unique = tuple({record.uuid: record for record in reversed(records)}.values())[::-1]
    entries = make_entries(unique)
    included = tuple(e for e in entries if e.included)
    contending = [e for e in included if e.contends]
    return Analysis(
        records=unique,
        entries=entries,
        strong=strong_series(contending),
        weak=weak_series(contending),
        phases=tuple(phase_breakdown(e) for e in included),
        losses=tuple(loss_curve(e) for e in included if mode_of(e.case) == "train" and e.case.loss.size),
    )


class SerialRuns:
    """The VALID serial runs of a report, by problem: whoever wants the bases of many cases sorts them out once.

    Parameters
    ----------
    candidates : iterable of Entry
    """

    def __init__(self, candidates: Iterable[Entry]) -> None:
        self._runs: dict[tuple[str, bool], list[Entry]] = {}
        for entry in candidates:
            if entry.included and entry.case.is_serial_base and entry.case.verdict.status == "VALID":
                self._runs.setdefault((entry.case.problem_id, entry.case.simulated), []).append(entry)

    def base_of(self, entry: Entry) -> Base | None:
        """Return the base of a case's speedup: the best VALID serial run of the same problem.

        Best is the lowest median step.  One in the same file was measured on the same nodes, mostly interleaved
        with the case, and is preferred to one that was not; None where no file holds one.
        """
        serial = self._runs.get((entry.case.problem_id, entry.case.simulated), [])
        same = [e for e in serial if e.file == entry.file]
        best = min(same or serial, key=lambda e: e.step.median, default=None)
        return None if best is None else Base(best, same_file=bool(same))


def find_base(entry: Entry, candidates: Iterable[Entry]) -> Base | None:
    """Return the base of one case among candidates, as :class:`SerialRuns` does for many."""
    return SerialRuns(candidates).base_of(entry)


def describe_base(base: Base) -> str:
    """Name a base in words: ``serial · numpy, 1 rank, 412 ms``."""
    case = base.entry.case
    threads = f", {threads_of(case)} threads" if threads_of(case) > 1 else ""
    where = "" if base.same_file else f", from another file ({short_source(base.entry.record)})"
    return f"{case_name(case)}, 1 rank{threads}, {format_seconds(base.entry.step.median)}{where}"


def bases_of(points: Iterable[Point]) -> list[Base]:
    """Return the bases of points, each once."""
    return list({p.base.entry.number: p.base for p in points if p.base}.values())


def describe_bases(points: Iterable[Point]) -> str:
    """Name what points are compared with; several files have several bases."""
    bases = bases_of(points)
    if not bases:
        return "no VALID serial run to compare with"
    if len(bases) == 1:
        return f"base: {describe_base(bases[0])}"
    times = sorted(b.entry.step.median for b in bases)
    return f"base: each file's own best serial run, 1 rank, {format_seconds(times[0])} to {format_seconds(times[-1])}"


def make_point(entry: Entry, base: Base | None) -> Point:
    """Place a case on a strong curve: speedup over the base, and that over the ranks."""
    if base is None:
        return Point(entry, entry.case.n_ranks, None, None, None)
    speedup = _ratio(base.entry, entry)
    return Point(entry, entry.case.n_ranks, base, speedup, scaled(speedup, 1.0 / entry.case.n_ranks))


def _ratio(base: Entry, entry: Entry) -> Interval:
    """Time of the base over that of the case; a case over itself is 1, about which nothing is uncertain."""
    if base.number == entry.number:
        return Interval(entry.step.n, 1.0, 1.0, 1.0)
    return ratio_interval(base.step, entry.step)


def scaled(interval: Interval, factor: float) -> Interval:
    """Multiply an interval by a positive number."""
    return Interval(interval.n, interval.median * factor, interval.low * factor, interval.high * factor)


def strong_series(included: Sequence[Entry]) -> tuple[Series, ...]:
    """Group cases of one problem, backend, kernel, grid and order that ran on different rank counts.

    Of the axes of a grid the slowest may grow along a series; cases that differ in another are never joined.

    Parameters
    ----------
    included : sequence of Entry
        No excluded ones.

    Returns
    -------
    tuple of Series
        Only those that hold a parallel run beside another rank count or a base to compare it with.
    """
    found, serial = [], SerialRuns(included)
    for members in _grouped(included, lambda e: [e.case.problem_id, _way(e.case)]):
        points = tuple(make_point(e, serial.base_of(e)) for e in members)
        if len({p.n_ranks for p in points}) > 1 or any(p.base for p in points):
            found.append(Series(_strategy(members), members[0].case.backend, points))
    return tuple(found)


def weak_series(included: Sequence[Entry]) -> tuple[Series, ...]:
    """Group cases whose batch grows with the ranks, so that every rank keeps the same work.

    Efficiency is ``t(1) / t(P)`` against the series' own one-rank run, of the same file where it holds one,
    else the fastest.

    Returns
    -------
    tuple of Series
        Only those on two rank counts or more.
    """
    found = []
    # One rank that runs segments of time at once is a base of nothing.
    candidates = [e for e in included if e.case.n_ranks > 1 or e.case.is_serial_base]
    for members in _grouped(candidates, lambda e: [*_but_for_batch(e), str(batch_per_rank(e.case))]):
        if len({e.case.n_ranks for e in members}) > 1:
            points = tuple(_weak_point(e, members) for e in members)
            per_rank = batch_per_rank(members[0].case)
            found.append(Series(_strategy(members), members[0].case.backend, points, per_rank))
    return tuple(found)


def groups_over_ranks_and_batch(included: Sequence[Entry]) -> tuple[tuple[Entry, ...], ...]:
    """Group parallel cases that differ in nothing but ranks and batch, with the one-rank cases that join them.

    Returns
    -------
    tuple of tuple of Entry
        Each ordered by ranks, then by case number.
    """
    return tuple(tuple(members) for members in _grouped(included, _but_for_batch))


def _but_for_batch(entry: Entry) -> list[Any]:
    """Return the problem without its batch, and the way it was run."""
    rest = {k: v for k, v in entry.case.problem.items() if k != "problem"}
    data = {k: v for k, v in entry.case.problem["problem"].items() if k != "batch"}
    return [rest, data, _way(entry.case)]


def batch_per_rank(case: Case) -> Fraction:
    """Sequences a rank has in a step, exactly."""
    return Fraction(int(case.problem["problem"]["batch"]), case.n_ranks)


def _weak_point(entry: Entry, members: Sequence[Entry]) -> Point:
    single = [e for e in members if e.case.n_ranks == 1]
    same = [e for e in single if e.file == entry.file]
    best = min(same or single, key=lambda e: e.step.median, default=None)
    if best is None:
        return Point(entry, entry.case.n_ranks, None, None, None)
    efficiency = _ratio(best, entry)
    base = Base(best, same_file=bool(same))
    return Point(entry, entry.case.n_ranks, base, scaled(efficiency, entry.case.n_ranks), efficiency)


def phase_breakdown(entry: Entry) -> PhaseBreakdown:
    """Return the median over repetitions of the mean over ranks of each phase, seconds."""

    def typical(phase: str) -> float:
        return float(np.median(entry.case.phase_s(phase).mean(axis=1)))

    seconds = {printable(p): typical(p) for p in entry.case.phases if p != STEP}
    return PhaseBreakdown(entry, seconds, typical(STEP))


def phase_names(breakdowns: Iterable[PhaseBreakdown]) -> list[str]:
    """Return every phase there is, in the order of a step; what this version does not know after, ``other`` last."""
    found = list({name: None for b in breakdowns for name in b.seconds})
    order = {name: place for place, name in enumerate(PHASES)}
    return sorted(found, key=lambda name: (name == OTHER, order.get(name, len(order))))


def loss_curve(entry: Entry) -> LossCurve:
    """Return the learning curve of a case."""
    return LossCurve(entry, entry.case.loss, entry.case.warmup_s.shape[0], loss_unit(entry.case))


def _grouped(entries: Sequence[Entry], key: Callable[[Entry], list[Any]]) -> list[list[Entry]]:
    """Group parallel cases by key and way of splitting, and let the one-rank cases of the key join each group.

    One-rank cases cut in the same pieces, by the same method, where there are any, else serial ones in one piece: a
    serial run has no use for micro-batches.
    """
    by_key: dict[str, list[Entry]] = {}
    for entry in entries:
        by_key.setdefault(json.dumps(key(entry), sort_keys=True), []).append(entry)
    groups = []
    for members in by_key.values():
        wide: dict[str, list[Entry]] = {}
        for entry in members:
            if entry.case.n_ranks > 1:
                wide.setdefault(way_of_splitting(entry.case), []).append(entry)
        single = [e for e in members if e.case.n_ranks == 1]
        for group in wide.values():
            alike = [e for e in single if _cut(e.case) == _cut(group[0].case)]
            whole = [e for e in single if e.case.split == Split()]
            groups.append(sorted((alike or whole) + group, key=lambda e: (e.case.n_ranks, e.number)))
    return groups


def _way(case: Case) -> list[Any]:
    """How a case was run but for how it was split: points of one curve agree in it."""
    return [case.backend, case.kernel, case.how["threads"], case.simulated]


def _pieces(case: Case) -> dict[str, Any]:
    """How a case was cut, but for its grid; defaults stand for what an earlier version did not store."""
    parallel = {**_EARLIER, **case.how["parallel"]}
    return {key: value for key, value in parallel.items() if key != "grid"}


_EARLIER = {"order": PLAIN_ORDER, "virtual_stages": 1}
"""What files of an earlier version were run with, and do not say."""


def _cut(case: Case) -> list[Any]:
    """How a case was cut into pieces and segments of time, and whether it is exact."""
    return [_pieces(case), case.how.get("recurrence"), case.verdict.status]


def way_of_splitting(case: Case) -> str:
    """Name how a case was split, and its parts meet, but for the axis that grows: points of one curve agree in it."""
    return json.dumps([case.split.series_name, *_cut(case), case.transport], sort_keys=True)


def _strategy(members: Sequence[Entry]) -> str:
    return members[-1].case.split.series_name
