"""Rows that stand alone: the draws, and the windows cut with them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.workloads.base import random_windows, row_range, uniform_rows


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(0, 2**40),
    n_draws=st.integers(1, 9),
    start=st.integers(0, 12),
    stride=st.integers(1, 3),
)
def test_uniform_rows_stand_alone(seed, step, n_draws, start, stride):
    rows = range(start, 12, stride)
    whole = uniform_rows(seed, step, range(12), n_draws)
    np.testing.assert_array_equal(uniform_rows(seed, step, rows, n_draws), whole[list(rows)])
    assert whole.shape == (12, n_draws)
    assert ((whole >= 0) & (whole < 1)).all()


def test_no_draw_is_used_twice():
    drawn = np.concatenate([uniform_rows(0, step, range(40), 6).ravel() for step in range(5)])
    assert np.unique(drawn).size == drawn.size


def test_draws_never_change():
    """Philox4x64 keyed by a SeedSequence: the same on every machine and, as promised, for every NumPy."""
    expected = [[0.015684887369243006, 0.02087751276525951], [0.28113858386328927, 0.6106700300621221]]
    np.testing.assert_array_equal(uniform_rows(7, 3, range(1, 3), 2), expected)


def test_the_stream_of_step_zero_is_not_that_of_the_plain_seed():
    plain = np.random.Generator(np.random.Philox(np.random.SeedSequence(5))).random(4)
    assert not np.isin(uniform_rows(5, 0, range(1), 4), plain).any()


def test_every_window_is_drawn_and_none_beyond_the_end():
    series = np.arange(10)
    starts = np.concatenate([random_windows(series, 0, step, range(64), 8)[0] for step in range(4)])
    assert set(starts) == {0, 1, 2}


def test_a_window_as_long_as_the_series():
    np.testing.assert_array_equal(random_windows(np.arange(6), 0, 0, range(2), 6), np.tile(np.arange(6), (2, 1)).T)


def test_windows_keep_the_columns_of_a_matrix():
    series = np.arange(60.0).reshape(20, 3)
    windows = random_windows(series, 1, 2, range(4), 5)
    assert windows.shape == (5, 4, 3)
    np.testing.assert_array_equal(np.diff(windows, axis=0), 3)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [(None, [0, 1, 2, 3, 4]), (slice(1, 3), [1, 2]), (slice(3, 99), [3, 4]), (slice(2, 2), [])],
)
def test_row_range(cut, expected):
    assert list(row_range(cut, 5)) == expected


def test_windows_that_carry_go_on_where_the_row_ended():
    series = np.arange(100)
    steps = [random_windows(series, 3, step, range(5), 8, carry=True) for step in range(20)]
    np.testing.assert_array_equal(steps[0], random_windows(series, 3, 0, range(5), 8))
    for before, after in pairwise(steps):
        np.testing.assert_array_equal(after[0], before[-1])
    # Each window goes up by one, at the end of the series back to its start.
    assert all(((np.diff(window, axis=0) % 100) == 1).all() for window in steps)


def test_rows_that_carry_do_not_depend_on_the_rows_around_them():
    series = np.arange(100)
    whole = random_windows(series, 3, 4, range(6), 8, carry=True)
    np.testing.assert_array_equal(random_windows(series, 3, 4, range(2, 5), 8, carry=True), whole[:, 2:5])
