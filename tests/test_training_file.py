"""A training goes on from a checkpoint of its own only, for longer than was first asked if need be."""

import numpy as np
import pytest

from hpcrnn.benchmarks.training_file import fault
from hpcrnn.records.checkpoint import Checkpoint
from hpcrnn.records.learning import COLUMNS, Curve, Learning

SAME = {"model.hidden": 16, "ranks": 2, "training.seeds": 3, "training.max_steps": 400}


def checkpoint(n_curves, n_ranks, *, index):
    columns = dict.fromkeys(COLUMNS, np.array([0, 400]))
    curves = tuple(Curve(seed, ("target", "max_steps")[seed], **columns) for seed in range(n_curves))
    return Checkpoint(SAME, index, Learning(2.5, "", "", curves, ()), {}, ({},) * n_ranks)


def test_of_the_same_training_it_goes_on():
    assert not fault(checkpoint(1, 0, index=1), SAME)  # between two seeds
    assert not fault(checkpoint(2, 2, index=1), SAME)  # within one
    assert not fault(checkpoint(1, 2, index=0), {**SAME, "training.max_steps": 500, "training.seeds": 4})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.hidden", 32, "its model.hidden is 16, here it is 32"),
        ("training.seeds", 2, "its training.seeds is 3, here it is 2"),
        ("training.max_steps", 399, "its training.max_steps is 400, here it is 399"),
        ("problem.batch", 8, "its problem.batch is None, here it is 8"),
    ],
)
def test_of_another_or_for_less_it_is_refused(key, value, said):
    assert fault(checkpoint(1, 0, index=1), {**SAME, key: value}) == f"a checkpoint of this training: {said}"


def test_a_seed_that_ended_at_its_most_steps_would_not_go_on():
    ended = checkpoint(2, 0, index=2)
    assert not fault(ended, {**SAME, "training.seeds": 9})
    assert "max_steps, 400: seed 1 has" in fault(ended, {**SAME, "training.max_steps": 401})


@pytest.mark.parametrize(("n_curves", "n_ranks", "index"), [(1, 1, 0), (2, 3, 1), (2, 2, 0), (1, 0, 0), (1, 0, 4)])
def test_what_does_not_fit_together_is_not_whole(n_curves, n_ranks, index):
    assert fault(checkpoint(n_curves, n_ranks, index=index), SAME) == "a checkpoint that is whole"
