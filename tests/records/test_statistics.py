"""Statistics: against SciPy, by simulated coverage, and at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.records.statistics import (
    DEPENDENCE_LEVEL,
    Interval,
    dependence,
    is_outlier,
    median_interval,
    percentile,
    ratio_interval,
    sign_test_count,
)

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


@settings(derandomize=True, deadline=None, max_examples=100)
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


@pytest.mark.parametrize(("q", "least", "least_interval"), [(90, 10, 36), (99, 100, 368)])
def test_a_percentile_needs_its_samples_and_its_interval_more(q, least, least_interval):
    samples = np.random.default_rng(q).lognormal(size=least_interval)
    for n in (0, 1, least - 1):
        assert not percentile(samples[:n], q).known
        assert math.isnan(percentile(samples[:n], q).value)
    for n in (least, least_interval - 1):
        found = percentile(samples[:n], q)
        assert found.known
        assert found.value == np.percentile(samples[:n], q)
        assert not found.has_interval
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert percentile(samples, q).has_interval


@pytest.mark.parametrize(("q", "n"), [(90, n) for n in (36, 37, 50, 99, 100, 511)] + [(99, n) for n in (368, 999)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_a_percentile_is_that_of_scipys_quantile_test(q, n, confidence):
    stats = pytest.importorskip("scipy.stats")
    samples = np.random.default_rng(n).lognormal(size=n)
    expected = stats.quantile_test(samples, p=q / 100).confidence_interval(confidence)
    found = percentile(samples, q, confidence)
    np.testing.assert_array_equal((found.low, found.high), (expected.low, expected.high))
    assert found.low <= found.value <= found.high


def test_the_interval_covers_the_percentile_as_often_as_it_says():
    random, n_trials = np.random.default_rng(5), 1000
    found = [percentile(random.exponential(size=60), 90) for _ in range(n_trials)]
    coverage = np.mean([p.low <= math.log(10) <= p.high for p in found])
    assert coverage > 0.95 - 3 * math.sqrt(0.95 * 0.05 / n_trials)


@pytest.mark.parametrize("n", [10, 13, 20, 21, 60, 61, 62, 120])
def test_independent_samples_are_seldom_called_dependent(n):
    random, n_trials = np.random.default_rng(n), 2000
    alarms = np.mean([dependence(random.lognormal(size=n)) is not None for _ in range(n_trials)])
    assert alarms <= DEPENDENCE_LEVEL + 3 * math.sqrt(DEPENDENCE_LEVEL / n_trials)


@pytest.mark.parametrize("ties", [2, 3, 5])
def test_samples_that_are_often_equal_are_seldom_called_dependent(ties):
    random, n_trials = np.random.default_rng(ties), 1000
    alarms = np.mean([dependence(random.integers(ties, size=40)) is not None for _ in range(n_trials)])
    assert alarms <= DEPENDENCE_LEVEL + 3 * math.sqrt(DEPENDENCE_LEVEL / n_trials)


def test_drift_is_found_and_its_size_is_told():
    samples = np.linspace(1.0, 1.4, 30) + 0.01 * np.random.default_rng(0).random(30)
    found = dependence(samples)
    assert found.drifts
    assert found.clusters
    assert found.shift == pytest.approx(np.median(samples[15:]) / np.median(samples[:15]) - 1)
    assert dependence(samples[::-1]).shift < 0


def test_slow_spells_are_found_where_nothing_drifts():
    """Ten fast, ten slow, and again."""
    samples = np.tile(np.repeat([1.0, 2.0], 10), 3) + 0.1 * np.random.default_rng(0).random(60)
    found = dependence(samples)
    assert (found.clusters, found.drifts) == (True, False)
    assert found.n_runs == 6
    assert found.expected_runs == 31


def test_autocorrelated_samples_are_found_mostly():
    random, found = np.random.default_rng(1), 0
    for _ in range(100):
        noise = random.standard_normal(100)
        for k in range(1, 100):
            noise[k] += 0.7 * noise[k - 1]
        found += dependence(np.exp(noise / 10)) is not None
    assert found >= 95


@pytest.mark.parametrize("samples", [[], [1.0], np.arange(9.0), np.ones(50), [*np.ones(49), 2.0]])
def test_nothing_speaks_against_the_independence_of_few_or_equal_samples(samples):
    assert dependence(samples) is None


@settings(derandomize=True, deadline=None, max_examples=100)
@given(samples=st.lists(TIMES, max_size=80))
def test_dependence_can_be_asked_of_any_samples(samples):
    found = dependence(samples)
    assert found is None or found.drifts or found.clusters
    assert (found is None) == (dependence([2 * s for s in samples]) is None)


@pytest.mark.parametrize("n", [1, 5, 6, 13, 50, 200])
@pytest.mark.parametrize("level", [0.5, 0.05, 0.05 / 64])
def test_the_count_of_the_sign_test_is_the_smallest_that_is_rare_enough(n, level):
    stats = pytest.importorskip("scipy.stats")
    k = sign_test_count(n, level)
    assert stats.binom.sf(k - 1, n, 0.5) <= level * (1 + 1e-12)
    assert stats.binom.sf(k - 2, n, 0.5) > level
    assert k <= n + 1
