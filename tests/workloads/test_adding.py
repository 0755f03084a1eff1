"""The adding problem."""

import numpy as np
import pytest
from workload_samples import make_spec

from hpcrnn.errors import SpecError
from hpcrnn.workloads import open_workload


@pytest.mark.parametrize("seq", [2, 3, 7, 50])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_target_is_the_sum_of_the_marked(seq, dtype):
    batch = open_workload(make_spec("adding", seq=seq, dtype=dtype)).batch(4)
    values, marks = batch.inputs[:, :, 0], batch.inputs[:, :, 1]
    assert np.isin(marks, (0, 1)).all()
    np.testing.assert_array_equal(marks[: seq // 2].sum(axis=0), 1)
    np.testing.assert_array_equal(marks[seq // 2 :].sum(axis=0), 1)
    np.testing.assert_allclose(batch.targets[-1, :, 0], (values * marks).sum(axis=0), rtol=1e-6)
    assert values.min() >= 0
    assert values.max() <= 1


def test_only_the_last_step_counts():
    batch = open_workload(make_spec("adding")).batch(0)
    assert (batch.weights[-1] == len(batch.weights)).all()
    assert not batch.weights[:-1].any()
    assert not batch.targets[:-1].any()


def test_marks_fall_everywhere_and_values_are_uniform():
    workload = open_workload(make_spec("adding", seq=6, batch=4000))
    batch = workload.batch(0)
    share = batch.inputs[:, :, 1].mean(axis=1)
    # Binomial(4000, 1/3): one standard deviation is 0.0075.
    np.testing.assert_allclose(share, 1 / 3, atol=5 * 0.0075)
    np.testing.assert_allclose(batch.inputs[:, :, 0].mean(), 1 / 2, atol=0.01)
    error = ((batch.targets[-1] - 1) ** 2).mean()
    np.testing.assert_allclose(error, workload.describe()["squared_error_of_a_constant"], rtol=0.1)


def test_one_step_has_no_room_for_two_marks():
    with pytest.raises(SpecError, match=r"problem\.seq = 1: allowed is an integer >= 2 for the adding workload"):
        open_workload(make_spec("adding", seq=1))


def test_sequences_that_stand_alone_carry_no_states():
    with pytest.raises(SpecError, match=r"training\.carry = True: allowed is false for the adding workload"):
        open_workload(make_spec("adding", carry=True))
