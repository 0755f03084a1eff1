"""What does not hold in a result file, and the words for it: what :mod:`hpcrnn.records.invariants` yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.record import Baseline
from hpcrnn.records.statistics import Interval

CLOSE = 1e-9
"""Relative difference that sums of nanoseconds kept as float64 may have."""
TICK_S = 1e-8
"""Seconds that rounding may add up to where the readings of a clock are subtracted from one another."""


@dataclass(frozen=True)
class Wrong:
    """One thing that does not hold.

    Attributes
    ----------
    quantity : str
        What and where, e.g. ``time[rep 3, rank 0, forward]``.
    found, expected : str
    """

    quantity: str
    found: str
    expected: str


Axis = str | tuple[str, ...]
"""How the places along an axis are called: a word before the number, or their own names."""


def first_wrong(
    quantity: str, values: npt.NDArray[Any], wrong: npt.NDArray[np.bool_], expected: str, axes: tuple[Axis, ...]
) -> Iterator[Wrong]:
    """Name the first place where something is wrong, and say how many more there are."""
    if not wrong.any():
        return
    place = [
        axis[k] if isinstance(axis, tuple) else f"{axis} {k}" for axis, k in zip(axes, place_of(wrong), strict=True)
    ]
    more = int(wrong.sum()) - 1
    found = f"{value_at(values, wrong):.9g}" + (f" (and {more} more like it)" if more else "")
    yield Wrong(f"{quantity}[{', '.join(place)}]", found, expected)


def place_of(wrong: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the first place where something is wrong."""
    return tuple(int(k) for k in np.argwhere(wrong)[0])


def value_at(values: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> float:
    """Return the value at the first place where something is wrong."""
    return float(values[place_of(wrong)])


def is_ordered(interval: Interval) -> bool:
    """Whether the median lies within its interval, where there is one."""
    return isnan(interval.low) or interval.low <= interval.median <= interval.high


def shown(interval: Interval) -> str:
    """Write a median with its interval."""
    return f"{interval.median:.6g} [{interval.low:.6g}, {interval.high:.6g}]"


def marked(marks: npt.NDArray[np.bool_]) -> str:
    """Name the repetitions that are marked."""
    return f"repetitions {listed(np.flatnonzero(marks).tolist())}" if marks.any() else "none"


def listed(numbers: list[int], most: int = 8) -> str:
    """Write the first numbers, and how many more there are."""
    rest = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + rest


def named(baseline: Baseline | None) -> str:
    """Write what a base is."""
    if baseline is None:
        return "none"
    return f"{baseline.kind} {baseline.case_id}, {baseline.time_s:.9g} s"
