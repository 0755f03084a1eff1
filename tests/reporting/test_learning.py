"""Time to a target loss: what never got there counts, and what is compared is decided by seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from factory import make_case, make_record
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_samples import curve_of, ends_at, with_curves

from hpcrnn.records.learning import Learning
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.finding import finding_of
from hpcrnn.reporting.analysis.learning import Needed, band, goals, needed_ratio, outcome_of
from hpcrnn.reporting.tables.learning import (
    needed_text,
)
from hpcrnn.reporting.units import format_seconds

INF = math.inf


def ranked(*cases):
    (goal,) = goals(make_entries([make_record(cases)]))
    return {one.entry.number: one for one in goal.ranked}


# --- what seeds needed ------------------------------------------------------------------------------


def test_a_seed_that_never_got_there_makes_the_median_longer_not_shorter():
    stopped = (300.0, "max_steps")
    needed = outcome_of(*make_entries([make_record([ends_at([100, 120, stopped, stopped, stopped])])])).time
    assert needed.interval.median == INF
    assert needed.median_at_least == 300.0
    np.testing.assert_array_equal(needed.least, [100, 120, 300, 300, 300])
    np.testing.assert_array_equal(needed.most, [100, 120, INF, INF, INF])
    reached = outcome_of(*make_entries([make_record([ends_at([100, 120, 130, stopped, stopped])])])).time
    assert reached.interval.median == 130.0
    even = outcome_of(*make_entries([make_record([ends_at([100, 120, stopped, stopped])])])).time
    assert even.interval.median == INF
    assert even.median_at_least == 210.0


def test_what_diverged_would_never_have_got_there():
    needed = outcome_of(*make_entries([make_record([ends_at([100, (5, "diverged"), (5, "diverged")])])])).time
    np.testing.assert_array_equal(needed.least, [100, INF, INF])
    assert needed.median_at_least == INF


def test_a_median_is_not_known_where_seeds_were_stopped_before_it():
    case = ends_at([10, 20, (5.0, "max_time")])
    needed = outcome_of(*make_entries([make_record([case])])).time
    assert (needed.median_at_least, needed.interval.median) == (10.0, 20.0)
    assert needed_text(needed, format_seconds) == "at most 20.0 s"
    later = outcome_of(*make_entries([make_record([ends_at([10, 20, (25.0, "max_time")])])])).time
    assert needed_text(later, format_seconds) == "20.0 s"
    assert math.isnan(ranked(ends_at([40] * 3), ends_at([10, 20, (5.0, "max_time")], 2))[2].speedup.median)


def test_an_interval_may_be_open_above():
    times = [10, 11, 12, 13, 14, (20.0, "max_time"), (20.0, "max_time"), (20.0, "max_time")]
    interval = outcome_of(*make_entries([make_record([ends_at(times)])])).time.interval
    assert (interval.median, interval.low, interval.high) == (13.5, 10.0, INF)
    assert math.isnan(outcome_of(*make_entries([make_record([ends_at(times[:5])])])).time.interval.low)


times_of_seeds = st.lists(st.tuples(st.floats(1, 1e3), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=40)
@given(seeds=times_of_seeds, beyond=st.floats(0, 1e4))
def test_whatever_stopped_seeds_would_have_needed_lies_within(seeds, beyond):
    used = np.array([time for time, _ in seeds])
    reached = np.array([there for _, there in seeds])
    needed = Needed(used, np.where(reached, used, INF))
    truth = median_interval(np.where(reached, used, used + beyond))
    assert needed.median_at_least <= truth.median <= needed.interval.median
    assert truth.median == needed.interval.median or not needed.median_known
    if not math.isnan(truth.low):
        assert needed.interval.low <= truth.low
        assert truth.high <= needed.interval.high


@settings(max_examples=40)
@given(a=times_of_seeds, b=times_of_seeds, beyond=st.floats(0, 1e4))
def test_a_ratio_holds_what_stopped_seeds_would_have_made_it(a, b, beyond):
    sides = []
    for seeds in (a, b):
        used, reached = (np.array(column) for column in zip(*seeds, strict=True))
        true = np.where(reached, used, used + beyond)
        sides.append((Needed(used, np.where(reached, used, INF)), Needed(true, true)))
    known, truth = (needed_ratio(x, y) for x, y in zip(*sides, strict=True))
    if not (math.isnan(known.low) or math.isnan(known.high)):
        assert known.low <= truth.low * (1 + 1e-12)
        assert truth.high <= known.high * (1 + 1e-12)
    assert truth.low <= truth.median <= truth.high or math.isnan(truth.low)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 5), (5, 5)])
def test_few_seeds_decide_as_often_as_is_said(n, m):
    """Of all orders of n + m times that are alike, at most 5 % are decided."""
    pool = np.arange(1.0, n + m + 1)
    decided = total = 0
    for chosen in combinations(range(n + m), n):
        mine = pool[list(chosen)]
        others = np.delete(pool, chosen)
        decided += finding_of(needed_ratio(Needed(mine, mine), Needed(others, others)), "higher") != "undecided"
        total += 1
    assert 0 < decided / total <= 0.05


def test_three_seeds_and_three_decide_nothing():
    low, high = np.array([1.0, 2, 3]), np.array([100.0, 200, 300])
    ratio = needed_ratio(Needed(high, high), Needed(low, low))
    assert ratio.median == 100.0
    assert math.isnan(ratio.low)
    assert finding_of(ratio, "higher") == "undecided"


def test_an_open_end_of_a_ratio_can_still_decide():
    assert finding_of(Interval(5, math.nan, 1.2, INF), "higher") == "faster"
    assert finding_of(Interval(5, math.nan, 0.0, 0.9), "higher") == "slower"
    assert finding_of(Interval(5, math.nan, 0.0, INF), "higher") == "undecided"
    assert finding_of(Interval(5, math.nan, 1.2, math.nan), "higher") == "undecided"


# --- goals ------------------------------------------------------------------------------------------


def test_findings_by_hand():
    stopped = (30.0, "max_steps")
    found = ranked(
        ends_at([100, 101, 102, 103]),
        ends_at([50, 51, 52, 53], 2),
        ends_at([95, 99, 104, 110], 4),
        ends_at([200, (250.0, "max_time"), (250.0, "max_time"), (250.0, "max_time")], 8),
        ends_at([stopped] * 4, 16),
        ends_at([(9.0, "diverged")] * 4, 32),
        ends_at([50, 51, 52], 64),
    )
    assert {k: one.finding for k, one in found.items()} == {
        1: "base", 2: "faster", 3: "undecided", 4: "slower", 5: "undecided", 6: "slower", 7: "undecided",
    }  # fmt: skip
    # By the median, 101.5 and 101.5 s by their numbers; then by the share of seeds that got there.
    assert list(found) == [7, 2, 1, 3, 4, 5, 6]
    assert found[2].speedup.median == pytest.approx(101.5 / 51.5)
    assert (found[2].speedup.low, found[2].speedup.high) == (pytest.approx(100 / 53), pytest.approx(103 / 50))
    assert math.isnan(found[4].speedup.median)
    assert found[4].speedup.high == pytest.approx(103 / 200)
    # It was given less time than the base took: longer than that may still be quicker.
    assert (found[5].speedup.low, found[5].speedup.high) == (0.0, pytest.approx(103 / 30))
    assert found[7].too_few
    assert not found[5].too_few


def test_a_base_that_never_got_there_can_be_beaten():
    found = ranked(ends_at([(100.0, "max_steps")] * 4), ends_at([50, 51, 52, 53], 2), ends_at([120] * 4, 4))
    assert found[2].finding == "faster"
    assert found[2].speedup.high == INF
    assert found[3].finding == "undecided"
    assert found[2].base.entry.number == 1


def test_the_base_is_the_fastest_serial_case_to_the_target_whatever_its_learning_rate():
    found = ranked(
        ends_at([100] * 4), ends_at([60] * 4, lr=3e-3), ends_at([(10.0, "max_steps")] * 4, lr=0.1), ends_at([30] * 4, 2)
    )
    assert {one.base.entry.number for one in found.values()} == {2}
    assert found[4].speedup.median == 2.0
    assert found[1].finding == "slower"


def test_the_base_of_the_own_file_is_preferred():
    near = make_record([ends_at([100] * 4), ends_at([50] * 4, 2)])
    far = make_record([ends_at([10] * 4)], seed=1)
    (goal,) = goals(make_entries([near, far]))
    assert {one.entry.number: one.base.entry.number for one in goal.ranked} == {1: 1, 2: 1, 3: 3}


def test_goals_differ_in_target_batch_model_and_optimizer_only():
    cases = [ends_at([10] * 4), ends_at([10] * 4, target=1.9), ends_at([10] * 4, hidden=64)]
    cases += [ends_at([10] * 4, optimizer="sgd"), ends_at([10] * 4, 2, lr=0.1, eval_every=10, max_steps=77, clip=1.0)]
    found = goals(make_entries([make_record(cases)]))
    assert [sorted(one.entry.number for one in goal.ranked) for goal in found] == [[1, 5], [2], [3], [4]]


def test_what_is_wrong_or_was_not_trained_to_a_target_is_no_contender():
    wrong = replace(ends_at([1] * 4), verdict=make_case(1, valid=False).verdict)
    entries = make_entries([make_record([make_case(1), wrong, ends_at([10] * 4)])])
    (goal,) = goals([e for e in entries if e.included])
    assert [one.entry.number for one in goal.ranked] == [3]
    empty = replace(ends_at([10]), learning=replace(ends_at([10]).learning, curves=()))
    assert goals(make_entries([make_record([empty])])) == ()


def test_steps_and_their_time_make_up_the_time():
    base = with_curves([curve_of([0, 100], [5, 2], seed=k, step=[0, 1000]) for k in range(4)], target=2.0)
    case = with_curves([curve_of([0, 30], [5, 2], seed=k, step=[0, 1500]) for k in range(4)], 4, 2.0)
    one = ranked(base, case)[2]
    assert one.by_steps == pytest.approx(1000 / 1500)
    assert one.by_step_time == pytest.approx(0.1 / 0.02)
    assert one.by_steps * one.by_step_time == pytest.approx(one.speedup.median)


def test_a_model_that_was_there_before_its_first_step():
    one = ranked(ends_at([10] * 4), with_curves([curve_of([0], [1.0], seed=k) for k in range(4)] + [
        curve_of([0, 1], [5, 1], seed=9)], 2, 2.0))[2]  # fmt: skip
    assert one.outcome.time.interval.median == 0.0
    assert one.finding == "faster"
    assert one.outcome.step_s.median == pytest.approx(1 / 20)


# --- curves -----------------------------------------------------------------------------------------


def learning_of(*curves, target=2.0):
    return Learning(target, "", "", curves)


def test_a_seed_that_got_there_stays_and_the_median_ends_where_it_does():
    one = curve_of([0, 10, 20], [5, 3, 1.8])
    slow = curve_of([0, 10, 20, 30, 40], [5, 4, 3.4, 2.6, 1.9], seed=1)
    found = band(learning_of(one, slow, replace(slow, seed=2)), "time_s")
    np.testing.assert_array_equal(found.x, [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(found.low, [5, 3, 2, 2, 2])
    np.testing.assert_array_equal(found.middle, [5, 4, 3.4, 2.6, 2])
    np.testing.assert_array_equal(found.high, [5, 4, 3.4, 2.6, 2])
    assert found.reached
    (entry,) = make_entries([make_record([with_curves([one, slow, replace(slow, seed=2)], target=2.0)])])
    assert found.x[-1] == outcome_of(entry).time.interval.median
    fast = band(learning_of(one, replace(one, seed=2), slow), "time_s")
    np.testing.assert_array_equal(fast.middle[:3], [5, 3, 2])
    assert np.isnan(fast.middle[3:]).all()


def test_a_band_ends_where_the_first_seed_was_stopped_but_not_where_one_diverged():
    long = curve_of([0, 10, 20, 30], [5, 4, 3, 2.5], "max_steps")
    short = curve_of([0, 10], [5, 4.5], "max_time", seed=1)
    assert band(learning_of(long, short), "time_s").x[-1] == 10
    gone = replace(short, ending="diverged", held_out_loss=np.array([5, np.nan]))
    found = band(learning_of(long, gone), "time_s")
    assert found.x[-1] == 30
    np.testing.assert_array_equal(found.high, [5, 5, 5, 5])
    assert not found.reached


def test_losses_that_rise_again_do_not_undo_what_was_reached():
    found = band(learning_of(curve_of([0, 1, 2, 3], [5, 3, 4, 2.9], "max_steps")), "time_s")
    np.testing.assert_array_equal(found.middle, [5, 3, 3, 2.9])


def test_what_is_not_known_is_not_drawn():
    curve = curve_of([0, 1], [5, 2])
    assert band(learning_of(curve), "energy_j") is None
    assert band(learning_of(curve), "sent_bytes") is None
    assert band(learning_of(), "step") is None
    assert band(learning_of(replace(curve, held_out_loss=np.array([np.nan, np.nan]))), "step") is None
    assert band(learning_of(curve_of([0.0], [1.0])), "step") is None


@settings(max_examples=40)
@given(
    seeds=st.lists(st.lists(st.floats(0.1, 9), min_size=2, max_size=9), min_size=1, max_size=5), column=st.booleans()
)
def test_bands_fall_and_hold_their_median(seeds, column):
    curves = []
    for k, losses in enumerate(seeds):
        there = next((i for i, loss in enumerate(losses) if loss <= 2.0), None)
        kept = losses[: there + 1] if there is not None else losses
        times = np.arange(len(kept)) * (1 + 0.1 * k)
        curves.append(curve_of(times, kept, "max_steps" if there is None else "target", k))
    found = band(learning_of(*curves), "time_s" if column else "step")
    if found is None:
        return
    assert (np.diff(found.x) > 0).all()
    for line in (found.low, found.high, found.middle[~np.isnan(found.middle)]):
        assert (np.diff(line) <= 1e-12).all()
        assert (line >= 2.0).all()
    middle = np.where(np.isnan(found.middle), 2.0, found.middle)
    assert (found.low <= middle + 1e-12).all()
    assert (middle <= found.high + 1e-12).all()
