"""Who becomes slow in the midst of a run: found where it is planted, with its step, and hardly ever where it is not."""

from dataclasses import replace

import numpy as np
import pytest
from factory import make_record
from rank_samples import ranked_case

from hpcrnn.records.statistics import change_point
from hpcrnn.records.work import Work
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.onsets import find_onsets
from hpcrnn.reporting.analysis.stragglers import EFFECT, LEVEL
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.onsets import plan_onsets
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.ranks import onset_sentence, onset_table


def entry_with(factors, **kwargs):
    """A case whose ranks are busy for ``factors`` (n_steps, n_ranks) times what they would be."""
    factors = np.asarray(factors, dtype=float)
    n, n_ranks = factors.shape
    case = ranked_case(n_ranks, n, **kwargs)
    time_s = case.time_s.copy()
    place = case.phases.index
    for phase in ("forward", "backward"):
        time_s[:, :, place(phase)] *= factors
    busy = time_s[:, :, place("forward")] + time_s[:, :, place("backward")]
    time_s[:, :, 0] = 1.04 * busy.max(axis=1, keepdims=True)
    time_s[:, :, place("allreduce")] = time_s[:, :, 0] - busy
    (entry,) = make_entries([make_record([replace(case, time_s=time_s)])])
    return entry


def planted(n_ranks, n, rank, step, factor, **kwargs):
    factors = np.ones((n, n_ranks))
    factors[step:, rank] = factor
    return entry_with(factors, **kwargs)


@pytest.mark.parametrize(
    ("samples", "index"),
    [
        ([1] * 10 + [2] * 10, 10),
        ([1, 2, 1, 2, 1, 2, 1, 2, 9, 8, 9, 8, 9, 8, 9, 8], 8),
        (list(range(30)), 15),  # a drift has its change in the middle
        ([2] * 10 + [1] * 10, None),  # smaller is not larger
        ([1] * 20, None),
        ([1] * 18 + [5] * 2, None),  # two of twenty: too few
        ([1, 9] * 10, None),
        ([1] * 5, None),
        ([1, 2], None),
        ([7], None),
        ([], None),
        ([1] * 10 + [np.nan] + [2] * 10, None),
    ],
)
def test_changes_by_example(samples, index):
    assert change_point(samples, 0.05) == index


@pytest.mark.parametrize("n", [8, 12, 30, 100, 1000])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_samples_in_random_order_change_no_more_often_than_is_stated(n, level):
    random = np.random.default_rng(n)
    n_trials = 2000 if n < 1000 else 400
    found = sum(change_point(random.gamma(1.5, 1.0, n), level) is not None for _ in range(n_trials))
    assert found <= level * n_trials


def test_a_change_is_found_whatever_strictly_rising_function_the_samples_go_through():
    random = np.random.default_rng(5)
    samples = random.gamma(1.5, 1.0, 60) + np.repeat([0, 3], 30)
    assert change_point(samples, 0.01) == change_point(np.log(samples), 0.01) == change_point(samples**3, 0.01)
    assert change_point(samples, 0.01) is not None


@pytest.mark.parametrize(("n_ranks", "n", "step"), [(2, 100, 40), (2, 30, 12), (3, 50, 25), (8, 60, 45), (64, 80, 20)])
def test_a_rank_that_becomes_slow_is_named_with_its_step(n_ranks, n, step):
    n_trials = 20
    exact = 0
    for seed in range(n_trials):
        (onset,) = find_onsets(planted(n_ranks, n, n_ranks - 1, step, 2.0, seed=seed))
        assert (onset.rank, onset.n_steps) == (n_ranks - 1, n)
        assert abs(onset.step - step) <= 2
        exact += onset.step == step
        assert onset.rise.median == pytest.approx(2.0, rel=0.1)
    assert exact >= 0.75 * n_trials


@pytest.mark.parametrize(("n_ranks", "n"), [(2, 12), (2, 100), (4, 30), (16, 50)])
def test_false_alarms_are_rarer_than_the_level(n_ranks, n):
    """The noise is so wide that medians of halves differ by more than the effect."""
    n_trials = 300 if n_ranks < 16 else 100
    entries = (entry_with(np.ones((n, n_ranks)), noise=0.8, seed=seed) for seed in range(n_trials))
    assert sum(bool(find_onsets(entry)) for entry in entries) <= LEVEL * n_trials


def test_a_rank_that_is_slow_throughout_has_not_become_so():
    assert find_onsets(entry_with([[1, 2]] * 40)) == ()


def test_a_rank_that_becomes_faster_slows_nobody_down():
    factors = np.ones((40, 2))
    factors[20:, 0] = 0.5
    assert find_onsets(entry_with(factors)) == ()


def test_what_slows_all_ranks_down_makes_none_of_them_slow():
    factors = np.ones((40, 4))
    factors[20:] = 3.0
    assert find_onsets(entry_with(factors)) == ()


def test_little_is_of_no_consequence():
    assert find_onsets(planted(4, 60, 1, 30, 1 + 0.5 * EFFECT, noise=0.001)) == ()


def test_several_ranks_may_become_slow_each_at_its_own_step():
    factors = np.ones((60, 8))
    factors[20:, 2] = 1.5
    factors[40:, 5] = 2.0
    found = find_onsets(entry_with(factors, noise=0.01))
    assert [(onset.rank, onset.step) for onset in found] == [(2, 20), (5, 40)]


def test_a_stage_with_other_work_is_watched_all_the_same():
    factors = np.ones((40, 3)) * [1.0, 2.5, 1.2]
    factors[15:, 1] *= 1.6
    (onset,) = find_onsets(entry_with(factors, grid={"pipeline": 3}, layers=3, noise=0.01))
    assert (onset.rank, onset.step) == (1, 15)
    assert onset.rise.median == pytest.approx(1.6, rel=0.05)


@pytest.mark.parametrize("overrides", [{"grid": {"tensor": 2}}, {"grid": {"time": 2}, "method": "picard"}])
def test_nobody_is_named_where_ranks_wait_inside_their_tasks(overrides):
    assert find_onsets(planted(2, 40, 1, 20, 2.0, **overrides)) == ()


def test_a_short_run_names_nobody():
    assert find_onsets(planted(2, 9, 1, 5, 5.0)) == ()


def test_what_is_said_of_it():
    entry = planted(4, 50, 3, 20, 2.0, noise=0.001)
    (onset,) = find_onsets(entry)
    assert onset_sentence(onset) == (
        "rank 3 on node01 becomes slow with step 20 of 0 to 49: from 1.00× to 2.00× the others' busy time"
    )
    table = onset_table([(entry, onset)], names([entry]))
    assert table.rows[0][2:8] == ["3", "node01", "20 of 0–49", "1.00×", "2.00×", "2.00×"]
    assert len(table.rows[0]) == len(table.columns)
    assert onset_table([], {}) is None


def test_each_case_with_such_a_rank_has_a_figure():
    entries = [planted(2, 40, 1, 20, 2.0), entry_with(np.ones((40, 3))), planted(8, 60, 5, 30, 1.6)]
    with drawing_style():
        drawings = [sheet.draw() for sheet in plan_onsets(entries)]
    assert [drawing.name for drawing in drawings] == ["onset_1", "onset_2"]
    for drawing, rank in zip(drawings, (1, 5), strict=True):
        assert drawing.section == "ranks"
        assert f"rank {rank} on node01 becomes slow with step " in drawing.alt
        assert f"rank {rank}" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def test_of_sequences_of_unequal_length_the_pace_is_that_of_a_slot():
    """Rank 1 gets twice as long sequences from step 20 on: more work, and no slower pace."""
    factors = np.ones((40, 2))
    factors[20:, 1] = 2.0
    entry = entry_with(factors, noise=0.01)
    assert [onset.step for onset in find_onsets(entry)] == [20]
    slots = (100 * factors).astype(np.int64)
    case = replace(entry.case, work=Work(slots, slots, np.ones(64, dtype=np.int64)))
    assert find_onsets(replace(entry, case=case)) == ()
