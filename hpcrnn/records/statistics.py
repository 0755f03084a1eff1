"""Statistics of timings, with nothing assumed normal.

Timings are right-skewed and multi-modal: a median with a rank-based interval says what a mean with a
standard deviation cannot (Hoefler & Belli, SC'15, rules 5-8).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import nan

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A median and its confidence interval.

    Attributes
    ----------
    n : int
        Samples.
    median, low, high : float
        In the unit of the samples. ``low`` and ``high`` are NaN where n is too small for an interval.
    """

    n: int
    median: float
    low: float
    high: float

    @property
    def relative_width(self) -> float:
        """``(high - low) / median``; NaN without an interval."""
        return (self.high - self.low) / self.median if self.median else nan


def median_interval(samples: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Median with a nonparametric confidence interval from order statistics.

    The number of samples below the true median is Binomial(n, 1/2) whatever the distribution, so the
    interval between the (k+1)-th smallest and the (k+1)-th largest sample covers it with probability
    ``1 - 2 * P(Bin(n, 1/2) <= k)``; the largest such k is taken (Conover, *Practical Nonparametric
    Statistics*, §3.2).

    Parameters
    ----------
    samples : array_like (n,)
    confidence : float
        In (0, 1).

    Returns
    -------
    Interval
        Without bounds (NaN) where no order statistics reach the confidence: n < 6 at 95 %.
    """
    values = np.sort(np.asarray(samples, dtype=np.float64).ravel())
    n = values.size
    if n == 0:
        return Interval(0, nan, nan, nan)
    k = _rank(n, confidence)
    median = float(np.median(values))
    if k < 0:
        return Interval(n, median, nan, nan)
    return Interval(n, median, float(values[k]), float(values[n - 1 - k]))


@lru_cache(maxsize=4096)
def _rank(n: int, confidence: float) -> int:
    """Largest k with ``P(Bin(n, 1/2) <= k) <= (1 - confidence) / 2``; -1 where there is none.

    Integer arithmetic: exact for any n, where floating binomials underflow.
    """
    limit = (1.0 - confidence) / 2.0
    scale = 1 << n
    term = below = 1  # C(n, 0), and the sum so far
    k = -1
    while below / scale <= limit:
        k += 1
        term = term * (n - k) // (k + 1)
        below += term
    return k


def is_outlier(samples: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mark samples beyond 3 interquartile ranges from the quartiles (Tukey's outer fences).

    Marked, never removed: an outlier is a fact about the machine.

    Parameters
    ----------
    samples : array_like (n,)

    Returns
    -------
    bool array (n,)
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size < 4:
        return np.zeros(values.shape, dtype=np.bool_)
    q1, q3 = np.quantile(values, [0.25, 0.75])
    reach = 3.0 * (q3 - q1)
    return np.asarray((values < q1 - reach) | (values > q3 + reach), dtype=np.bool_)


def ratio_interval(numerator: Interval, denominator: Interval) -> Interval:
    """Ratio of two medians, with the interval that follows from the two intervals' ends.

    Conservative: the ratio's coverage is at least ``1 - 2 (1 - confidence)`` (Bonferroni).
    """
    return Interval(
        min(numerator.n, denominator.n),
        _quotient(numerator.median, denominator.median),
        _quotient(numerator.low, denominator.high),
        _quotient(numerator.high, denominator.low),
    )


def _quotient(a: float, b: float) -> float:
    return a / b if b else nan
