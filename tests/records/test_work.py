"""What ranks worked on: padding, and what of their time unequal shares must cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hpcrnn.records.work import Work, lost_share

shares = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 10**6))


def work(tokens, slots, counts=(1,)):
    return Work(np.array(tokens), np.array(slots), np.array(counts))


def test_what_is_lost_counts_long_steps_as_they_last():
    # Of 2 x (10 + 1000) the ranks are busy for 10 + 0 + 1000 + 1000.
    assert lost_share(np.array([[10, 0], [1000, 1000]])) == pytest.approx(10 / 2020)


@settings(deadline=None, max_examples=50)
@given(shares)
def test_what_is_lost_is_a_share_and_nothing_where_all_are_equal(found):
    lost = lost_share(found)
    if not found.any():
        assert np.isnan(lost)
        return
    assert 0 <= lost <= 1 - 1 / found.shape[1] + 1e-12
    assert lost_share(found[:, :1]) == 0 or np.isnan(lost_share(found[:, :1]))
    assert lost_share(7 * found) == pytest.approx(lost)


def test_padding_is_what_is_run_and_holds_nothing():
    found = work([[3, 4], [5, 0]], [[4, 4], [6, 2]])
    assert found.waste == pytest.approx(1 - 12 / 16)
    assert found.token_imbalance == pytest.approx(1 - 12 / 18)
    assert found.slot_imbalance == pytest.approx(1 - 16 / 20)
    assert found.step_tokens.tolist() == [7, 5]
    assert found.filled(batch=8) == pytest.approx(1.0)


def test_nothing_run_wastes_nothing():
    found = work(np.zeros((0, 2), int), np.zeros((0, 2), int))
    assert np.isnan([found.waste, found.slot_imbalance]).all()


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((10,), [1, 1, 1]), ((0, 1, 1), [2, 3, 3]), ((5, 0, 4, 1), [1, 3, 4]), ((99, 1), [1, 1, 2])],
)
def test_quantiles_of_lengths(counts, expected):
    assert work([[1]], [[1]], counts).quantiles([0.5, 0.9, 1.0]).tolist() == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.floats(0.01, 1.0))
def test_quantiles_are_those_of_the_sequences_one_by_one(lengths, share):
    found = work([[1]], [[1]], np.bincount(lengths, minlength=10)[1:]).quantiles([share])[0]
    ordered = sorted(lengths)
    assert found == ordered[max(0, int(np.ceil(share * len(ordered) - 1e-9)) - 1)]


def test_arrays_that_do_not_fit():
    assert work([[1, 2]], [[1, 2]]).fault((1, 2)) == ""
    assert work([[1, 2]], [[1, 2, 3]]).fault((1, 2)) == "work: slots has shape (1, 3), not (1, 2)"
