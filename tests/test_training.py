"""What a training to a target is refused for, before anything runs."""

import pytest

from hpcrnn.errors import SpecError
from hpcrnn.spec import build_spec
from hpcrnn.training import check_training, eval_rows


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({}, "training.target_loss = None"),
        ({"target_loss": 2.0, "workload": "synthetic"}, "problem.workload = 'synthetic'"),
        ({"target_loss": 2.0, "eval_every": 50, "max_steps": 40}, "training.eval_every = 50: allowed is at most"),
        ({"target_loss": 2.0, "resume": True}, "measure.resume"),
        ({"target_loss": 2.0, "carry": True}, "training.carry"),
        ({"target_loss": 2.0, "trace": True}, "measure.trace"),
        ({"target_loss": 2.0, "sequences": "lines"}, "problem.sequences = 'lines'"),
        ({"target_loss": 2.0, "backend": "torch"}, "machine.backend = 'torch'"),
        ({"target_loss": 2.0, "backend": "numpy,cupy"}, "machine.backend = 'numpy,cupy'"),
        ({"target_loss": 2.0, "checkpoint": "x", "method": "picard"}, "measure.checkpoint = 'x'"),
    ],
)
def test_a_training_that_cannot_be(overrides, told):
    with pytest.raises(SpecError) as error:
        check_training(build_spec({}, {"mode": "target", **overrides}))
    assert told in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [{"target_loss": 2.0}, {"seeds": 4}, {"max_steps": 5}, {"eval_every": 5}, {"checkpoint": "x"}, {"resume": True}],
)
def test_keys_of_a_training_mean_nothing_without_one(overrides):
    with pytest.raises(SpecError, match="allowed is nothing without mode = target"):
        check_training(build_spec({}, overrides))


def test_an_evaluation_has_four_batches_of_rows_unless_told():
    assert eval_rows(build_spec({}, {"batch": 9})) == 36
    assert eval_rows(build_spec({}, {"batch": 9, "eval_rows": 5})) == 5
