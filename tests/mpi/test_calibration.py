"""What a calibration makes of times, and how a rank is made slow."""

from time import thread_time_ns

import numpy as np
import pytest

from hpcrnn.benchmarks.calibration import LEAST, NOISE, weigh
from hpcrnn.execution.handicap import Slowdown


def times(median_s, n=LEAST, spread=0.01):
    """Samples about a median, that much to either side."""
    return list(median_s * (1 + spread * np.linspace(-1, 1, n)))


@pytest.mark.parametrize(
    ("medians", "weights"),
    [
        ([1.0, 2.0], (1, 0.5)),
        ([2.0, 1.0, 4.0], (0.5, 1, 0.25)),
        ([0.1, 0.1 * (1 + 0.9 * NOISE)], ()),  # less than what counts
        ([3.0], ()),
        ([1.0, 1.01, 2.0, 2.02], (1, 1, 0.5, 0.5)),  # two kinds, whose members differ by noise
        ([1.0, 1.04, 1.08, 1.12], (1, 1, 0.9273, 0.9273)),  # no chain of small differences makes one kind
        ([1e-6, 10.0], (1, 0.0001)),
    ],
)
def test_speeds_by_example(medians, weights):
    found, reason = weigh([times(median) for median in medians])
    assert found == pytest.approx(weights, abs=1e-4)
    assert ("stay even" in reason) == (not weights)


def test_medians_that_noise_explains_leave_shares_even():
    noisy = [[1.0, 1.1, 1.2, 1.4, 1.6, 2.0, 2.2], [1.1, 1.2, 1.5, 1.7, 1.8, 2.1, 2.3]]
    found, reason = weigh(noisy)
    assert found == ()
    assert reason == (
        "the slowest rank takes 1.21 times as long as the fastest, which is noise or no more than 5%: shares stay even"
    )


def test_equal_ranks_are_rarely_told_apart():
    random = np.random.default_rng(0)
    alarms = sum(bool(weigh(1 + random.gamma(1.5, 0.05, (4, LEAST)))[0]) for _ in range(300))
    assert alarms <= 0.05 * 300


def test_a_tenfold_speed_is_found_in_any_noise_that_is_not_as_large():
    random = np.random.default_rng(1)
    for _ in range(100):
        found, _ = weigh([10 * (1 + random.gamma(1.5, 0.3, LEAST)), 1 + random.gamma(1.5, 0.3, LEAST)])
        assert found[1] == 1
        assert 0.05 < found[0] < 0.2


def burn(cpu_ns):
    end = thread_time_ns() + cpu_ns
    while thread_time_ns() < end:
        pass


def cpu_of(call):
    start = thread_time_ns()
    call()
    return thread_time_ns() - start


@pytest.mark.parametrize("speed", [0.5, 0.2])
def test_a_slow_call_takes_so_much_more_cpu_time(speed):
    """CPU time, which no other process on this core changes."""
    slowdown = Slowdown(speed)
    slowdown.begin_step()
    slow = slowdown.slow(lambda: burn(2_000_000))
    assert cpu_of(slow) == pytest.approx(2_000_000 / speed, rel=0.1)


def test_a_rank_becomes_slow_with_the_step_it_is_told():
    slowdown = Slowdown(0.25, from_run=2)
    slow = slowdown.slow(lambda: burn(1_000_000))
    spent = []
    for _ in range(4):
        slowdown.begin_step()
        spent.append(cpu_of(slow) / 1e6)
    assert spent == pytest.approx([1, 1, 4, 4], rel=0.2)
