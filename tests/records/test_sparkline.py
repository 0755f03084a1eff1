"""Sparklines: order, scale, outliers, and every sample there can be."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.records.sparkline import ABOVE, ASCII_ABOVE, ASCII_BARS, ASCII_BELOW, BARS, BELOW, sparkline

ANY = st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.floats(1e-9, 1e3), max_size=60)


def test_rising_samples_rise():
    assert sparkline(np.arange(1.0, 9.0), 20) == BARS


def test_the_order_is_that_of_the_samples():
    assert sparkline([3, 1, 2, 1, 3, 1, 2, 3], 8) == "█▁▅▁█▁▅█"


def test_samples_that_hardly_differ_look_so():
    assert sparkline([1.0, 1.001, 1.002, 1.0, 1.001], 20) == "▁" * 5
    assert sparkline([1.0] * 5, 20) == "▁" * 5
    assert sparkline([0.0] * 5, 20) == "▁" * 5


def test_outliers_are_marked_and_flatten_nothing():
    steady = [1.0, 1.1, 1.2, 1.3] * 5
    line = sparkline([*steady, 50.0, *steady, 0.001], 60)
    assert line[20] == ABOVE
    assert line[-1] == BELOW
    assert set(line) - {ABOVE, BELOW} == set(sparkline(steady, 60))
    assert {BARS[0], BARS[-1]} < set(line)


def test_an_outlier_survives_among_neighbours():
    samples = [1.0, 1.1] * 500
    samples[777] = 30.0
    line = sparkline(samples, 20)
    assert len(line) == 20
    assert line.index(ABOVE) == 15
    assert line.count(ABOVE) == 1


@settings(derandomize=True, deadline=None, max_examples=200)
@given(samples=ANY, width=st.integers(0, 40), ascii_only=st.booleans())
def test_any_samples_can_be_drawn(samples, width, ascii_only):
    line = sparkline(samples, width, ascii_only=ascii_only)
    assert len(line) == min(width, len(samples))
    allowed = ASCII_BARS + ASCII_ABOVE + ASCII_BELOW if ascii_only else BARS + ABOVE + BELOW
    assert set(line) <= set(allowed + "?")
    assert line.isascii() or not ascii_only


@pytest.mark.parametrize("hole", [math.nan, math.inf])
def test_what_is_no_number_is_said(hole):
    assert sparkline([1.0, hole, 2.0], 5) == "▁?█"
    assert sparkline([hole], 5) == "?"
