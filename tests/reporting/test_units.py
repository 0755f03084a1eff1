from __future__ import annotations

import math

import pytest

from hpcrnn.records.statistics import Interval
from hpcrnn.reporting import units

NAN = math.nan


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (0.412, "412 ms"),
        (1.0, "1.00 s"),
        (0.9996, "1.00 s"),  # rounds up into the next unit
        (0.00099949, "999 µs"),
        (9.996, "10.0 s"),
        (1234.6, "1235 s"),
        (3.2e-10, "0.320 ns"),
        (0.0, "0 s"),
        (-0.002, "-2.00 ms"),
        (NAN, "—"),
        (math.inf, "∞ s"),
    ],
)
def test_seconds(seconds, text):
    assert units.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (412.3, 3, "412"),
        (0.0, 3, "0"),
        (0.00123, 2, "0.0012"),
        (1.2e-9, 2, "1.2e-9"),
        (NAN, 3, "—"),
        (-5.0, 3, "-5.00"),
    ],
)
def test_significant(value, digits, text):
    assert units.significant(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"), [(3.04e-2, "3.0e-2"), (0.0, "0"), (NAN, "NaN"), (math.inf, "∞"), (1.0, "1.0e0")]
)
def test_scientific(value, text):
    assert units.scientific(value) == text


def test_other_quantities():
    assert units.format_bytes(0) == "0 B"
    assert units.format_bytes(1023) == "1023 B"
    assert units.format_bytes(1.5 * 2**20) == "1.50 MiB"
    assert units.format_bytes(1023.9 * 2**10) == "1.00 MiB"
    assert units.format_hertz(2.5e9) == "2.50 GHz"
    assert units.format_flops(5.42e9) == "5.42 GFLOP"
    assert units.format_gflops(2e9, 0.5) == "4.00"
    assert units.format_gflops(0.0, 0.5) == "—"
    assert units.format_ratio(1.934) == "1.93×"
    assert units.format_ratio(NAN) == "—"
    assert units.plural(1, "rank") == "1 rank"
    assert units.plural(2, "rank") == "2 ranks"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.955, "96 %"), (0.0734, "7.3 %"), (0.09996, "10 %"), (0.0, "0 %"), (1.02, "102 %"), (NAN, "—")],
)
def test_percent(share, text):
    assert units.format_percent(share) == text


def test_intervals_share_a_unit_and_tell_their_ends_apart():
    assert units.format_interval(Interval(32, 0.412, 0.409, 0.416)) == "409–416 ms"
    assert units.format_interval(Interval(32, 0.9995, 0.9991, 1.0009)) == "0.999–1.00 s"
    assert units.format_interval(Interval(32, 0.4121, 0.41204, 0.41216)) == "412.0–412.2 ms"
    assert units.format_ratio_interval(Interval(9, 1.93, 1.9, 1.96)) == "1.90–1.96×"
    assert units.format_percent_interval(Interval(9, 0.96, 0.95, 1.013)) == "95–101 %"


@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_samples_give_no_interval(n):
    assert units.format_interval(Interval(n, 0.4, NAN, NAN)) == "n too small"
    assert not units.has_bounds(Interval(n, 0.4, NAN, NAN))


def test_an_axis_has_the_unit_of_its_middle():
    assert units.seconds_unit([0.5, 0.002]).name == "ms"
    assert units.seconds_unit([2.0, 30.0]).name == "s"
    assert units.seconds_unit([NAN, 0.0, 4e-6]).name == "µs"
    assert units.seconds_unit([]).name == "s"


def test_text_cannot_steer_a_terminal():
    assert units.printable("a\x1b[31mb\nc") == "a [31mb c"
    assert units.shorten("short", 10) == "short"
    assert units.shorten("/a/long/path/to/the/file.txt", 16) == "/a/lo…e/file.txt"
    assert len(units.shorten("x" * 99, 16)) == 16
