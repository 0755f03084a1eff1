"""How long it still takes: from the stopping rule, and from what is done; nothing where nothing is known."""

from math import inf, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.benchmarks.progress.estimates import Ledger, State, TimeLeft, repetitions_needed, time_left
from hpcrnn.benchmarks.progress.words import bar, duration, percent, shortened, step_time
from hpcrnn.spec import MeasureSpec

LIMITS = MeasureSpec(ci_width=0.05, max_time=100.0, min_repeats=10, max_repeats=500)


@pytest.mark.parametrize(
    ("n", "widths", "elapsed_s", "seconds", "is_bound"),
    [
        (20, [0.1], 10.0, 60 * 0.5, False),  # half as wide takes four times as many
        (20, [0.1, 0.05], 10.0, 60 * 0.5, False),
        (8, [0.01], 4.0, 2 * 0.5, False),  # min_repeats
        (20, [0.3], 10.0, 90 + 0.5, True),  # max_time comes first, and the round is finished
        (3, [nan], 2.0, 98 + 0.5, True),  # no interval yet
        (20, [0.01, nan], 10.0, 90 + 0.5, True),
        (20, [], 10.0, 90 + 0.5, True),
        (499, [0.3], 10.0, 0.5, True),  # max_repeats
        (20, [0.05], 10.0, 0.0, False),
        (5, [0.3], 120.0, 0.5, True),
    ],
)
def test_time_left_of_a_run(n, widths, elapsed_s, seconds, is_bound):
    assert time_left(n, widths, 0.5, elapsed_s, LIMITS) == TimeLeft(pytest.approx(seconds), is_bound)


@given(
    st.integers(1, 600), st.lists(st.floats(0, 10) | st.just(nan), max_size=3), st.floats(1e-6, 50), st.floats(0, 200)
)
def test_it_is_never_more_than_the_limits(n, widths, round_s, elapsed_s):
    left = time_left(n, widths, round_s, elapsed_s, LIMITS)
    assert 0 <= left.seconds <= max(100 - elapsed_s, 0) + round_s
    assert left.seconds <= max(500 - n, 0) * round_s
    assert left.is_bound or not any(map(isnan, widths))


@given(st.integers(6, 1000), st.floats(0, 10), st.floats(0, 10))
def test_a_narrower_interval_needs_no_more_repetitions(n, one, other):
    needed = sorted((width, repetitions_needed(n, width, LIMITS)) for width in (one, other))
    assert needed[0][1] <= needed[1][1]
    assert needed[0][1] >= LIMITS.min_repeats


def test_the_interval_of_a_simulated_run_ends_about_when_it_was_said():
    # Widths that shrink exactly as the rule says: the estimate stands from the start.
    expected = [time_left(n, [0.5 / n**0.5], 1.0, float(n), LIMITS) for n in range(10, 100)]
    assert {round(n + left.seconds, 6) for n, left in zip(range(10, 100), expected, strict=True)} == {100.0}


def test_nothing_is_said_before_an_item_is_done():
    ledger = Ledger(["on 1 rank"] * 4, "point")
    assert ledger.time_left() is None
    ledger.settle(0, State.DONE_BEFORE)
    ledger.settle(1, State.FAILED, 0.1)
    assert ledger.time_left() is None
    ledger.settle(2, State.DONE, 8.0)
    assert ledger.time_left() == TimeLeft(8.0, basis="by the one point done")
    assert ledger.time_left(5.0).seconds == 3.0
    assert ledger.time_left(9.0) is None  # longer than anything before: nothing is known
    assert [ledger.count(state) for state in State] == [1, 1, 1, 1]


def test_items_last_as_long_as_those_of_their_kind():
    ledger = Ledger(["on 1 rank", "on 1 rank", "on 2 ranks", "on 2 ranks", "on 4 ranks"], "point")
    ledger.settle(0, State.DONE, 10.0)
    assert str(ledger.time_left()) == "about 40 s left, by the one point done, none on 2 ranks or on 4 ranks"
    ledger.settle(2, State.DONE, 4.0)
    assert str(ledger.time_left()) == "about 21 s left, by the 2 points done, none on 4 ranks"
    ledger.settle(4, State.DONE, 1.0)
    assert str(ledger.time_left()) == "about 14 s left, by the 3 points done"


def test_many_kinds_are_not_all_named():
    ledger = Ledger([f"on {n} ranks" for n in range(2, 9)], "point")
    ledger.settle(0, State.DONE, 1.0)
    assert str(ledger.time_left()).endswith("none on 3 ranks or on 4 ranks or on 5 ranks or others")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(State), st.floats(0.1, 100)), max_size=20))
def test_an_estimate_is_within_what_was_measured(items):
    ledger = Ledger([kind for kind, _, _ in items], "row")
    for index, (_, state, seconds) in enumerate(items):
        ledger.settle(index, state, seconds)
    left = ledger.time_left()
    done = [seconds for _, state, seconds in items if state is State.DONE]
    to_go = ledger.count(State.TO_GO)
    if not done or not to_go:
        assert left is None
    else:
        assert to_go * min(done) * 0.999 <= left.seconds <= to_go * max(done) * 1.001


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.84, "0.8 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (7530, "2 h 6 min"),
        (inf, "an unknown time"),
        (nan, "an unknown time"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.2345, "1.23 s"),
        (0.39251, "393 ms"),
        (0.00923, "9.23 ms"),
        (4.5e-5, "45.0 us"),
        (123.4, "123 s"),
        (0.0999999, "100 ms"),
        (1e-9, "0.00 us"),
        (99999.0, "100000 s"),
        (0.9999, "1.00 s"),
    ],
)
def test_step_times(seconds, text):
    assert step_time(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.071, "7.1 %"), (0.0996, "10 %"), (0.42, "42 %"), (1e-5, "0.001 %"), (0.0, "0.0 %"), (nan, "-")],
)
def test_percents(share, text):
    assert percent(share) == text


@given(st.floats(allow_nan=True), st.integers(0, 40), st.booleans())
def test_a_bar_is_full_at_one_only(share, width, in_ascii):
    done, rest = bar(share, width, in_ascii=in_ascii)
    assert len(done + rest) == width
    assert (not rest) == (share >= 1 or not width) or share == inf


def test_texts_are_cut_visibly():
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcdef", 4, in_ascii=True) == "abc~"
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdef", 0) in ("", "…")
