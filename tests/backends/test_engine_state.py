"""What an engine keeps for a later start: a step after it is the step that would have been, bit for bit."""

import numpy as np
import pytest
from engine_samples import run_tasks, serial_order

from hpcrnn.backends.registry import make_engine
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.model.network import build_network, initial_parameters
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import open_workload

SMALL = {"hidden": 8, "layers": 2, "batch": 4, "seq": 6}


class Serial:
    """A serial run without MPI: the tasks of a step in order, then the update."""

    def __init__(self, **changes):
        self.spec = build_spec({}, SMALL | changes)
        self.workload = open_workload(self.spec)
        plan = make_plan(self.spec, self.workload, Grid())
        self.tasks = serial_order(plan.schedule.graph)
        self.engine = make_engine("numpy", plan.network, plan.extent(0), self.spec)
        self.engine.load_parameters(initial_parameters(plan.network, self.spec.problem.seed))

    def steps(self, which):
        losses = []
        for step in which:
            self.engine.load_batch(self.workload.batch(step))
            run_tasks(self.engine, self.tasks)
            if self.spec.training.mode == "train":
                if self.spec.training.carry:
                    self.engine.carry_states()
                self.engine.update(1.0)
            losses.append(self.engine.loss)
        return losses


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd"}, {"carry": True, "cell": "gru"}, {"microbatches": 2, "carry": True}, {"cell": "mingru"}],
)
def test_steps_after_a_restart_are_those_that_would_have_been(changes):
    first, later = Serial(**changes), Serial(**changes)
    first.steps(range(3))
    kept = first.engine.state()
    wanted = first.steps(range(3, 6))
    later.steps(range(7, 9))  # whatever it did before
    later.engine.restore(kept)
    assert later.steps(range(3, 6)) == wanted
    np.testing.assert_array_equal(first.engine.state()["parameters"], later.engine.state()["parameters"])


def test_what_is_kept_is_a_copy():
    serial = Serial()
    kept = serial.engine.state()
    before = {name: array.copy() for name, array in kept.items()}
    serial.steps(range(2))
    for name, array in kept.items():
        np.testing.assert_array_equal(array, before[name])


def test_pieces_of_the_parameters_are_what_was_loaded():
    serial = Serial(dtype="float64")
    pieces = serial.engine.parameter_pieces()
    wanted = initial_parameters(build_network(serial.spec, serial.workload.interface), serial.spec.problem.seed)
    assert pieces.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(pieces[name].value, array)


@pytest.mark.parametrize("workload", ["stdlib", "adding"])
def test_predictions_are_those_the_loss_is_made_of(workload):
    serial = Serial(workload=workload, mode="forward", dtype="float64")
    (loss,) = serial.steps([0])
    batch, told = serial.workload.batch(0), serial.engine.predictions()
    if workload == "stdlib":
        assert told.shape == batch.targets.shape
        np.testing.assert_allclose(-told.mean(), loss, rtol=1e-12)
    else:
        terms = ((told - batch.targets) ** 2).mean(axis=-1) * batch.weights
        np.testing.assert_allclose(terms.mean(), loss, rtol=1e-12)
