"""A case in one row of plain values: what tables for people round, for programs that do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.finding import finding_of
from hpcrnn.reporting.analysis.scaling import Base, SerialRuns, make_point

Finding = Literal["base", "faster", "slower", "undecided"]


@dataclass(frozen=True)
class Standing:
    """How a case stands to its base.

    Attributes
    ----------
    base : Base
    finding : {"base", "faster", "slower", "undecided"}
        ``base`` of the base itself; decided only where the whole interval lies on one side of 1.
    speedup : Interval
        Median time of the base over that of the case.
    efficiency : Interval
        The speedup over the ranks.
    """

    base: Base
    finding: Finding
    speedup: Interval
    efficiency: Interval


def standing(entry: Entry, serial: SerialRuns) -> Standing | None:
    """Compare a case with its base; None where it is excluded, or has none."""
    base = serial.base_of(entry) if entry.included else None
    point = make_point(entry, base)
    if point.base is None or point.speedup is None or point.efficiency is None:
        return None
    return Standing(point.base, _finding(entry, point.base, point.speedup), point.speedup, point.efficiency)


def _finding(entry: Entry, base: Base, speedup: Interval) -> Finding:
    if base.entry.number == entry.number:
        return "base"
    return finding_of(speedup, "higher")


def finite(value: float) -> float | None:
    """Return a number, or None for what is not known, or not finite."""
    return float(value) if math.isfinite(value) else None
