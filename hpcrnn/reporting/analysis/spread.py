"""How the ranks of a case differ: what each is busy and what each waits, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcrnn.records.bubble import busy_s
from hpcrnn.records.record import STEP, Case, FloatArray
from hpcrnn.records.statistics import Interval, is_outlier, median_interval

MOST_ROWS = 32
"""Ranks that are shown one by one; of more, neighbours are shown together."""
GROUPS = 16
"""As many rows of neighbours then."""


@dataclass(frozen=True, eq=False)
class Band:
    """What one rank, or several neighbours together, took of something.

    Attributes
    ----------
    first, last : int
        Ranks, the last one included.
    middle : Interval
        Median over steps with its interval; of several ranks the median of their medians, without an interval.
    low, high : float
        Smallest and largest step of one rank; 10th and 90th percentile of the steps of several.
    outliers : float64 array (n_outliers,)
        Of one rank; they lie within ``low`` and ``high``.
    """

    first: int
    last: int
    middle: Interval
    low: float
    high: float
    outliers: FloatArray

    @property
    def alone(self) -> bool:
        """Whether it is of one rank."""
        return self.first == self.last


@dataclass(frozen=True, eq=False)
class Spread:
    """Busy and waiting time of the ranks of a case, seconds, in the order of ranks.

    Attributes
    ----------
    busy, waiting : tuple of Band
        Of the same ranks.
    """

    busy: tuple[Band, ...]
    waiting: tuple[Band, ...]


def rank_spread(case: Case, apart: Sequence[int] = ()) -> Spread:
    """Sum up what each rank of a case is busy and waits.

    Waiting is what is left of a rank's own step, with what the executor itself takes.

    Parameters
    ----------
    case : Case
    apart : sequence of int
        Ranks that are shown on their own, however many there are.

    Returns
    -------
    Spread

    Raises
    ------
    ValueError
        The case has no counted step, or none of the phases that are work.
    """
    busy = busy_s(case)
    if busy is None or not busy.size:
        raise ValueError(case.label)
    waiting = case.phase_s(STEP) - busy
    groups = rows_of_ranks(case.n_ranks, apart)
    return Spread(*(tuple(_band(values, *group) for group in groups) for values in (busy, waiting)))


def rows_of_ranks(n_ranks: int, apart: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Cut ranks into runs of neighbours, first and last, as even as can be; those to be shown apart are alone."""
    if n_ranks <= MOST_ROWS:
        return [(rank, rank) for rank in range(n_ranks)]
    bounds = {n_ranks * k // GROUPS for k in range(GROUPS + 1)}
    bounds |= {rank + after for rank in apart for after in (0, 1)}
    ordered = sorted(bounds)
    return [(a, b - 1) for a, b in pairwise(ordered)]


def _band(values: FloatArray, first: int, last: int) -> Band:
    own = values[:, first : last + 1]
    if first == last:
        steps = own[:, 0]
        middle = median_interval(steps)
        return Band(first, last, middle, float(steps.min()), float(steps.max()), steps[is_outlier(steps)])
    middle = Interval(len(own), float(np.median(np.median(own, axis=0))), np.nan, np.nan)
    low, high = (float(end) for end in np.percentile(own, (10, 90)))
    return Band(first, last, middle, low, high, np.empty(0))
