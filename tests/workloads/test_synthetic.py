"""Random inputs and cotangents."""

import numpy as np
from workload_samples import B, F, H, T, make_spec

from hpcrnn.workloads import open_workload
from hpcrnn.workloads import synthetic as module


def test_steps_come_again_after_four():
    workload = open_workload(make_spec("synthetic"))
    batches = [workload.batch(step) for step in range(8)]
    for step in range(4):
        np.testing.assert_array_equal(batches[step].inputs, batches[step + 4].inputs)
        np.testing.assert_array_equal(batches[step].targets, batches[step + 4].targets)
    assert len({batch.inputs.tobytes() for batch in batches}) == 4


def test_a_step_costs_no_copy():
    workload = open_workload(make_spec("synthetic"))
    assert np.shares_memory(workload.batch(0).inputs, workload.batch(1).inputs)


def test_widths():
    assert open_workload(make_spec("synthetic", features=F)).batch(0).inputs.shape == (T, B, F)
    assert open_workload(make_spec("synthetic", embed=4)).batch(0).inputs.shape == (T, B, 4)
    batch = open_workload(make_spec("synthetic")).batch(0)
    assert batch.inputs.shape == batch.targets.shape == (T, B, H)
    assert not np.array_equal(batch.inputs, batch.targets)


def test_numbers_are_standard_normal():
    batch = open_workload(make_spec("synthetic", seq=200, batch=20)).batch(0)
    for array in (batch.inputs, batch.targets):
        # 44 000 numbers: five standard deviations of the mean are 0.024.
        assert abs(array.mean()) < 0.024
        assert abs(array.std() - 1) < 0.024


def test_long_sequences_repeat_in_time(monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_STREAM", 10 * H)
    workload = open_workload(make_spec("synthetic", seq=57))
    batch = workload.batch(0)
    assert workload.describe()["distinct_time_steps"] == 10
    np.testing.assert_array_equal(batch.inputs[10:20], batch.inputs[:10])
    np.testing.assert_array_equal(batch.inputs[50:], batch.inputs[:7])
    assert np.unique(batch.inputs[:10]).size == batch.inputs[:10].size
    np.testing.assert_array_equal(workload.batch(0, slice(2, 4)).inputs, batch.inputs[:, 2:4])


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_KEPT_POOLS", 3)
    workload = open_workload(make_spec("synthetic"))
    whole = workload.batch(2).inputs
    for row in range(B):
        np.testing.assert_array_equal(workload.batch(2, slice(row, row + 1)).inputs, whole[:, row : row + 1])
        assert len(workload._pools) <= 3
