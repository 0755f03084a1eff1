"""The ways of splitting one problem beside one another, each beside the bounds it sets itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpcrnn.records.bubble import measured_bubble
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.scaling import Point, SerialRuns, bases_of, make_point, way_of_splitting


@dataclass(frozen=True)
class Contender:
    """A case that is no serial run beside the bounds its way of splitting sets.

    Attributes
    ----------
    point : Point
        With its speedup over the best serial run, where there is one.
    bubble : Interval
        Measured share of rank-time that was no work; NaN where the phases do not tell.
    bubble_bound : float
        The share that the schedule must idle; NaN where it is unknown.
    """

    point: Point
    bubble: Interval
    bubble_bound: float

    @property
    def entry(self) -> Entry:
        """The case."""
        return self.point.entry

    @property
    def speedup_bound(self) -> float:
        """The speedup that the schedule allows: ranks times what it does not idle."""
        return self.point.n_ranks * (1.0 - self.bubble_bound)

    @property
    def share_of_bound(self) -> float:
        """Efficiency over that of the bound; NaN where either is unknown."""
        return self.point.speedup.median / self.speedup_bound if self.point.speedup else math.nan


@dataclass(frozen=True)
class Contest:
    """The ways one problem was split, by ranks and then by speedup, where there is one.

    Attributes
    ----------
    contenders : tuple of Contender
    """

    contenders: tuple[Contender, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """The contenders as points of a strong curve."""
        return tuple(c.point for c in self.contenders)

    @property
    def weighed_base(self) -> Entry | None:
        """A serial run whose memory is known, the same in every file; None where there is none."""
        return next((b.entry for b in bases_of(self.points) if b.entry.case.memory_known), None)


def contests(included: Sequence[Entry]) -> tuple[Contest, ...]:
    """Put the cases of each problem that are no serial runs beside one another.

    One rank that runs segments of time at once is among them.

    Returns
    -------
    tuple of Contest
        Only of problems that were split in several ways, or in another than over the batch.
    """
    by_problem: dict[tuple[str, bool], list[Entry]] = {}
    for entry in included:
        if entry.contends and not entry.case.is_serial_base:
            by_problem.setdefault((entry.case.problem_id, entry.case.simulated), []).append(entry)
    contested = (
        members
        for members in by_problem.values()
        if any(e.case.strategy != "data" for e in members) or len({way_of_splitting(e.case) for e in members}) > 1
    )
    serial = SerialRuns(included)
    return tuple(
        Contest(tuple(sorted((make_contender(e, serial) for e in members), key=_place))) for members in contested
    )


def _place(contender: Contender) -> tuple[int, float, float]:
    """Order by ranks and then by speedup: files with bases of their own are compared by it, not by time."""
    speedup = contender.point.speedup
    return contender.point.n_ranks, -speedup.median if speedup else 0.0, contender.point.time.median


def make_contender(entry: Entry, serial: SerialRuns) -> Contender:
    """Place a case beside its bounds."""
    point = make_point(entry, serial.base_of(entry))
    return Contender(point, median_interval(measured_bubble(entry.case)), entry.case.bubble_bound)
