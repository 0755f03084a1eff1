"""What a ratio of two medians says: the one rule of everything that is compared."""

from __future__ import annotations

from typing import Literal

from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.units import has_bounds

Better = Literal["lower", "higher"]
"""Which way is better: lower of a cost, a time; higher of a rate."""
Finding = Literal["faster", "slower", "undecided"]


def finding_of(ratio: Interval, better: Better) -> Finding:
    """Read the interval of a ratio, of B over A, as what B is: decided only where all of it lies on one side of 1."""
    if not has_bounds(ratio) or ratio.low <= 1.0 <= ratio.high:
        return "undecided"
    return "faster" if (ratio.high < 1.0) == (better == "lower") else "slower"
