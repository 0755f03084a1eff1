"""Averages of models, by hand."""

import numpy as np
import pytest

from hpcrnn.execution.models import ModelAverage, Outer


def averaged(models, shares, outer=None, steps=()):
    """Average after each of some steps of all models; what all go on from, time after time."""
    replicas = [ModelAverage(model, share, outer) for model, share in zip(models, shares, strict=True)]
    found = []
    for step in steps:
        for model, way in zip(models, step, strict=True):
            np.add(model, way, out=model)
        total = sum(replica.weighted().copy() for replica in replicas)
        for replica in replicas:
            np.copyto(replica.weighted(), total)
            replica.take()
        assert all((model == models[0]).all() for model in models)
        found.append(models[0].copy())
    return found


def test_models_are_averaged_by_their_shares():
    models = [np.zeros(2), np.zeros(2)]
    (mean,) = averaged(models, (0.75, 0.25), steps=[([4.0, 0.0], [0.0, 8.0])])
    np.testing.assert_array_equal(mean, [3.0, 2.0])


def test_nesterov_momentum_is_that_of_torch_sgd():
    """v = mu v + g; theta -= lr (g + mu v), with g the way back from the average."""
    models, lr, momentum = [np.ones(3)], 0.5, 0.25
    steps = [([1.0, -2.0, 0.0],), ([0.5, 0.0, 0.0],), ([0.0, 0.0, 1.0],)]
    theta, velocity = np.ones(3), np.zeros(3)
    for found, (way,) in zip(averaged(models, (1.0,), Outer(lr, momentum), steps), steps, strict=True):
        gradient = -np.array(way)
        velocity = momentum * velocity + gradient
        theta = theta - lr * (gradient + momentum * velocity)
        np.testing.assert_allclose(found, theta, rtol=1e-15)


def test_state_is_all_that_the_next_average_depends_on():
    rng = np.random.default_rng(0)
    steps = [(rng.standard_normal(4),) for _ in range(4)]
    whole = averaged([np.zeros(4)], (1.0,), Outer(0.7, 0.9), steps)
    model = np.zeros(4)
    first = ModelAverage(model, 1.0, Outer(0.7, 0.9))
    for (way,) in steps[:2]:
        model += way
        first.weighted()
        first.take()
    again = model.copy()
    second = ModelAverage(again, 1.0, Outer(0.7, 0.9))
    second.restore(first.state())
    for (way,) in steps[2:]:
        again += way
        second.weighted()
        second.take()
    np.testing.assert_array_equal(again, whole[-1])


@pytest.mark.parametrize("outer", [None, Outer(0.7, 0.9)])
def test_memory_is_that_of_the_arrays(outer):
    assert ModelAverage(np.zeros(5, np.float32), 1.0, outer).memory_bytes == 20 * (1 if outer is None else 3)


def test_after_parameters_were_set_from_outside_the_way_begins_there():
    model = np.zeros(1)
    average = ModelAverage(model, 1.0, Outer(1.0, 0.5))
    model += 1.0
    average.weighted()
    average.take()
    model[:] = 10.0
    average.reset()
    model += 1.0
    average.weighted()
    average.take()
    assert model[0] == 11.5  # from 10, one, and half of it once more
