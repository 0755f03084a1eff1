"""Statistics of timings, with nothing assumed normal.

Timings are right-skewed and multi-modal: a median with a rank-based interval says what a mean with a
standard deviation cannot (Hoefler & Belli, SC'15, rules 5-8).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb, isfinite, log, nan, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95

PERCENTILE_NEEDS = {90: 10, 99: 100}
"""Samples a percentile needs before it is more than the largest sample by another name: one beyond it on average."""

DEPENDENCE_LEVEL = 0.02
"""How often samples that are independent are said not to be, at the most."""


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


@dataclass(frozen=True)
class Percentile:
    """A percentile and its confidence interval.

    Attributes
    ----------
    q, n : int
        Which percentile, and of how many samples.
    value, low, high : float
        In the unit of the samples. ``value`` is NaN where n is too small for the percentile, ``low`` and ``high``
        where it is too small for an interval, which takes more: 36 samples for the 90th at 95 %, 368 for the 99th.
    """

    q: int
    n: int
    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there were samples enough to speak of it."""
        return isfinite(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether there were samples enough for an interval."""
        return isfinite(self.low) and isfinite(self.high)


def percentile(samples: npt.ArrayLike, q: int, confidence: float = CONFIDENCE) -> Percentile:
    """Percentile of raw samples with a nonparametric confidence interval from order statistics.

    Of n samples Binomial(n, q / 100) lie below the true percentile whatever the distribution; the interval runs
    between the closest order statistics beyond which it lies with at most half of ``1 - confidence`` on either side
    (as :func:`median_interval` has it for one half).

    Parameters
    ----------
    samples : array_like (n,)
    q : {90, 99}
    confidence : float
        In (0, 1).

    Returns
    -------
    Percentile
        Without a value (NaN) under :data:`PERCENTILE_NEEDS` samples.
    """
    values = np.sort(np.asarray(samples, dtype=np.float64).ravel())
    n = values.size
    if n < PERCENTILE_NEEDS[q]:
        return Percentile(q, n, nan, nan, nan)
    low, high = _ranks(n, q, confidence)
    bounds = (float(values[low]), float(values[high])) if low >= 0 and high < n else (nan, nan)
    return Percentile(q, n, float(np.percentile(values, q)), *bounds)


@lru_cache(maxsize=4096)
def _ranks(n: int, q: int, confidence: float) -> tuple[int, int]:
    """Order statistics, from 0, between which the q-th percentile lies; -1 and n stand for no such statistic.

    With B of Binomial(n, q / 100) the largest ``low`` with ``P(B <= low) <= limit`` and the smallest ``high`` with
    ``P(B >= high + 1) <= limit``. Summed from the top in integers: exact, and short where q is near 100.
    """
    limit, scale = (1.0 - confidence) / 2.0, 100**n
    below, above = q, 100 - q
    at_least, b = 0, n + 1  # at_least is P(B >= b), times the scale
    high = n
    while b > 0:
        term = comb(n, b - 1) * below ** (b - 1) * above ** (n - b + 1)
        if (scale - at_least) / scale <= limit:
            break
        at_least += term
        b -= 1
        if at_least / scale <= limit:
            high = b - 1
    return b - 1, high


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


@dataclass(frozen=True)
class Dependence:
    """Samples of which neighbours are alike: they drift, or come in spells that outlast a step.

    An interval of their median may be too narrow, for it takes samples to be independent.

    Attributes
    ----------
    drifts : bool
        Whether the halves differ by more than chance explains.
    shift : float
        Median of the second half over that of the first, less 1.
    clusters : bool
        Whether the runs are fewer than chance explains.
    n_runs : int
        Stretches of neighbours on one side of the median.
    expected_runs : float
        Of independent samples, on average.
    """

    drifts: bool
    shift: float
    clusters: bool
    n_runs: int
    expected_runs: float


def dependence(samples: npt.ArrayLike, level: float = DEPENDENCE_LEVEL) -> Dependence | None:
    """Say whether neighbouring samples are alike, by two tests of half the level each.

    Where samples are independent and alike, all their orders are equally likely, whatever their distribution; the
    number of runs about the median (Wald & Wolfowitz, 1940) and the rank sum of the second half (Mann & Whitney, 1947)
    then have known distributions. They are counted in integers, but for the rank sum of more than 60 samples, which
    is normal to within what matters. Slow spells leave too few runs, drift sets the halves apart.

    Parameters
    ----------
    samples : array_like (n,)
        In the order they were taken.
    level : float
        How often independent samples are said to be dependent, at the most.

    Returns
    -------
    Dependence or None
        None where nothing speaks against independence, and always under 10 samples.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    if values.size < _DEPENDENCE_NEEDS:
        return None
    middle, half = np.median(values), values.size // 2
    above = values[values != middle] > middle
    n_above, n = int(above.sum()), above.size
    n_runs = 1 + int(np.count_nonzero(above[1:] != above[:-1]))
    first, second = values[:half], values[-half:]
    larger = (second[:, None] > first).sum() + 0.5 * (second[:, None] == first).sum()
    clusters = n_runs <= _most_runs(n_above, n - n_above, level / 2)
    drifts = bool(min(larger, half * half - larger) <= _least_exceedances(half, level / 4))
    if not (clusters or drifts):
        return None
    expected = 1.0 + 2.0 * n_above * (n - n_above) / max(n, 1)
    shift = _quotient(float(np.median(second)), float(np.median(first))) - 1.0
    return Dependence(drifts, shift, clusters, n_runs, expected)


_DEPENDENCE_NEEDS = 10
_COUNTED_UP_TO = 30


@lru_cache(maxsize=4096)
def _least_exceedances(m: int, level: float) -> float:
    """Largest u that ``U <= u`` is seen with at most this probability; U counts pairs of m and m samples; -1: none."""
    if m > _COUNTED_UP_TO:
        return 0.5 * m * m - 0.5 + NormalDist().inv_cdf(level) * sqrt(m * m * (2 * m + 1) / 12)
    # The coefficients of the Gaussian binomial (2m over m): in how many orders U is 0, 1, 2, ...
    orders = [1] + [0] * (m * m)
    for i in range(1, m + 1):
        for u in range(m * m, m + i - 1, -1):
            orders[u] -= orders[u - m - i]
        for u in range(i, m * m + 1):
            orders[u] += orders[u - i]
    below, u = 0, -1
    while (below := below + orders[u + 1]) / comb(2 * m, m) <= level:
        u += 1
    return u


@lru_cache(maxsize=4096)
def _most_runs(n_above: int, n_below: int, level: float) -> int:
    """Largest r with ``P(runs <= r) <= level`` where all orders are equally likely; 0 where there is none."""
    orders, fewer, r = comb(n_above + n_below, n_above), 0, 1
    if not n_above or not n_below:
        return 0
    while True:
        r += 1
        half = r // 2
        if r % 2 == 0:
            fewer += 2 * comb(n_above - 1, half - 1) * comb(n_below - 1, half - 1)
        else:
            fewer += comb(n_above - 1, half - 1) * comb(n_below - 1, half)
            fewer += comb(n_above - 1, half) * comb(n_below - 1, half - 1)
        if fewer / orders > level:
            return r - 1 if r > 2 else 0


@lru_cache(maxsize=4096)
def sign_test_count(n: int, level: float) -> int:
    """Heads that so many tosses of a fair coin give with at most this probability, or more heads.

    Parameters
    ----------
    n : int
        Tosses.
    level : float
        Probability, in (0, 1).

    Returns
    -------
    int
        The smallest k with ``P(Bin(n, 1/2) >= k) <= level``; ``n + 1`` where n is too small for any.
    """
    scale, at_least, k = 1 << n, 0, n + 1
    while k > 0:
        at_least += comb(n, k - 1)
        if at_least / scale > level:
            return k
        k -= 1
    return k


def change_point(samples: npt.ArrayLike, level: float) -> int | None:
    """Find where samples become larger and stay so, by the ranks of their values alone.

    Pettitt's test (1979, *A Non-Parametric Approach to the Change-Point Problem*), one-sided: for every t a rank sum
    compares the samples before t with those from t on, and the largest of these, K, is significant where
    ``exp(-6 K^2 / (n^3 + n^2))`` is at most the level.  That bound errs on the safe side, the more the fewer samples:
    of samples in random order 1 % are said to change at a level of 5 % where there are ten, 4 % where there are a
    hundred.  A change near an end needs more samples to be seen than one in the middle.

    Parameters
    ----------
    samples : array_like (n,)
        In the order they were taken.
    level : float
        How often samples whose orders are equally likely are said to change, at the most.

    Returns
    -------
    int or None
        Index of the first sample after the change; None where there is none.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    n = values.size
    if n < 2 or not np.isfinite(values).all():
        return None
    ordered = np.sort(values)
    # Of equal values the middle of their ranks.
    ranks = 0.5 * (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1)
    sizes = np.arange(1, n)
    exceed = (n + 1) * sizes - 2 * np.cumsum(ranks)[:-1]
    largest = float(exceed.max())
    if largest <= 0 or 6.0 * largest**2 < -log(level) * (n**3 + n**2):
        return None
    # The cut that explains most of the ranks' variance: K itself, of few samples on one side, lies too far inside.
    return int((exceed / np.sqrt(sizes * (n - sizes))).argmax()) + 1
