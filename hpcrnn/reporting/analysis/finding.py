"""What a ratio of two medians says: the one rule of everything that is compared."""

from __future__ import annotations

from math import isnan
from typing import Literal

from hpcrnn.records.statistics import Interval

Better = Literal["lower", "higher"]
"""Which way is better: lower of a cost, a time; higher of a rate."""
Finding = Literal["faster", "slower", "undecided"]


def finding_of(ratio: Interval, better: Better) -> Finding:
    """Read the interval of a ratio, of B over A, as what B is: decided only where all of it lies on one side of 1.

    An end may be infinite, where something was never reached; it is NaN where it is not known.
    """
    if isnan(ratio.low) or isnan(ratio.high) or ratio.low <= 1.0 <= ratio.high:
        return "undecided"
    return "faster" if (ratio.high < 1.0) == (better == "lower") else "slower"
