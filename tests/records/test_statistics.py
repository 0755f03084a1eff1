"""Statistics: against SciPy, by simulated coverage, and at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.records.statistics import Interval, is_outlier, median_interval, ratio_interval

TIMES = st.floats(1e-9, 1e6)


@pytest.mark.parametrize("n", [*range(6, 40), 99, 100, 511, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_interval_is_that_of_scipys_quantile_test(n, confidence):
    stats = pytest.importorskip("scipy.stats")
    samples = np.random.default_rng(n).lognormal(size=n)
    expected = stats.quantile_test(samples, p=0.5).confidence_interval(confidence)
    interval = median_interval(samples, confidence)
    assert interval.n == n
    assert interval.median == np.median(samples)
    np.testing.assert_array_equal((interval.low, interval.high), (expected.low, expected.high))


@pytest.mark.parametrize("n", [6, 9, 20, 61])
def test_the_interval_covers_the_median_as_often_as_it_says(n):
    n_trials, median = 2000, 1.0  # of the log-normal distribution
    random = np.random.default_rng(n)
    intervals = [median_interval(random.lognormal(size=n)) for _ in range(n_trials)]
    coverage = np.mean([interval.low <= median <= interval.high for interval in intervals])
    # At least 95 %, and three standard deviations of the simulation less at the worst.
    assert coverage > 0.95 - 3 * math.sqrt(0.95 * 0.05 / n_trials)


@pytest.mark.parametrize("n", range(6))
def test_too_few_samples_have_no_interval(n):
    interval = median_interval(np.arange(1.0, n + 1))
    assert interval.n == n
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert math.isnan(interval.relative_width)
    assert math.isnan(interval.median) == (n == 0)


def test_six_samples_reach_from_the_first_to_the_last():
    assert median_interval([3, 1, 2, 6, 5, 4]) == Interval(6, 3.5, 1, 6)


@given(samples=st.lists(TIMES, min_size=1, max_size=50), data=st.data())
def test_the_interval_holds_the_median_whatever_the_order(samples, data):
    interval = median_interval(samples)
    assert interval == median_interval(data.draw(st.permutations(samples))) or len(samples) < 6
    if len(samples) >= 6:
        assert min(samples) <= interval.low <= interval.median <= interval.high <= max(samples)
        assert interval.relative_width >= 0


def test_shape_does_not_matter():
    samples = np.arange(12.0)
    assert median_interval(samples.reshape(3, 4)) == median_interval(samples)


def test_a_larger_confidence_is_wider():
    samples = np.random.default_rng(0).random(60)
    widths = [median_interval(samples, confidence).relative_width for confidence in (0.5, 0.8, 0.95, 0.999)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_outliers_are_beyond_the_outer_fences():
    samples = np.array([10.0, 11, 12, 13, 14, 50, -30])
    np.testing.assert_array_equal(is_outlier(samples), [False] * 5 + [True] * 2)
    q1, q3 = np.quantile(samples, [0.25, 0.75])
    fence = q3 + 3 * (q3 - q1)
    samples[5] = fence - 1e-9
    assert not is_outlier(samples)[5]


@pytest.mark.parametrize("samples", [[], [1], [1, 2, 900], [5] * 9, [1, 2, 3, 4]])
def test_no_outliers(samples):
    marks = is_outlier(samples)
    assert marks.shape == (len(samples),)
    assert marks.dtype == bool
    assert not marks.any()


def test_one_late_step_among_equal_ones():
    np.testing.assert_array_equal(is_outlier([5.0] * 9 + [5.001]), [False] * 9 + [True])


def test_ratio_of_intervals():
    assert ratio_interval(Interval(8, 6.0, 5.0, 8.0), Interval(9, 2.0, 1.0, 2.5)) == Interval(8, 3.0, 2.0, 8.0)


def test_ratio_without_an_interval():
    ratio = ratio_interval(median_interval([4.0]), median_interval(np.full(9, 2.0)))
    assert ratio.median == 2
    assert math.isnan(ratio.low)
    assert math.isnan(ratio.high)


def test_the_ratio_interval_covers_the_true_ratio():
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(500):
        slow, fast = (median_interval(scale * random.lognormal(0, 0.3, 15)) for scale in (6.0, 2.0))
        ratio = ratio_interval(slow, fast)
        hits += ratio.low <= 3.0 <= ratio.high
    assert hits / 500 > 0.95  # Bonferroni promises 0.90, and is conservative
