"""What is held out is never trained on, and is the same for every seed and method."""

import numpy as np
import pytest

from hpcrnn.errors import SpecError
from hpcrnn.spec import build_spec
from hpcrnn.workloads import open_held_out, open_workload

TARGET = {"mode": "target", "target_loss": 2.0, "batch": 64, "seq": 5}


def spec_of(**changes):
    return build_spec({}, TARGET | changes)


@pytest.fixture
def text(tmp_path):
    """A text whose bytes say where they are: 200 of one kind, then 20 of another."""
    path = tmp_path / "text"
    path.write_bytes(bytes([1] * 198 + [2] * 22))
    return f"file:{path}"


def test_the_last_tenth_of_a_text_is_held_out(text):
    spec = spec_of(workload=text)
    trained = np.concatenate([open_workload(spec).batch(step).inputs for step in range(20)])
    assert set(np.unique(trained)) == {1}
    held_out = open_held_out(spec, 50).batch(0)
    assert set(np.unique(held_out.inputs)) == {2}
    assert held_out.inputs.shape == (5, 50)


def test_without_a_target_all_is_trained_on(text):
    workload = open_workload(build_spec({}, {"workload": text, "batch": 64, "seq": 5}))
    assert set(np.unique([workload.batch(step).inputs for step in range(30)])) == {1, 2}


def test_the_last_tenth_of_a_series_is_held_out(tmp_path):
    series = np.concatenate([np.linspace(-1, 1, 180), np.full(20, 9.0)])[:, None]
    np.save(tmp_path / "s.npy", series)
    spec = spec_of(workload=f"series:{tmp_path / 's.npy'}", dtype="float64")
    whole = (9.0 - series.mean()) / series.std()
    assert open_held_out(spec, 8).batch(0).inputs == pytest.approx(whole)
    assert max(open_workload(spec).batch(step).inputs.max() for step in range(20)) < whole


def test_sequences_of_the_adding_problem_are_those_of_a_seed_no_run_has():
    first, second = (open_held_out(spec_of(workload="adding", seed=seed), 8).batch(0) for seed in (0, 7))
    np.testing.assert_array_equal(first.inputs, second.inputs)
    for seed in (0, 2**31 - 1):
        trained = open_workload(spec_of(workload="adding", seed=seed)).batch(0)
        assert not np.array_equal(trained.inputs[:, :8], first.inputs)


@pytest.mark.parametrize("seed", [0, 3])
def test_every_seed_is_held_against_the_same(text, seed):
    wanted = open_held_out(spec_of(workload=text), 9).batch(0)
    found = open_held_out(spec_of(workload=text, seed=seed, batch=3), 9).batch(0)
    np.testing.assert_array_equal(found.inputs, wanted.inputs)


def test_data_whose_tenth_holds_no_sequence_is_refused(tmp_path):
    (tmp_path / "text").write_bytes(b"x" * 50)
    with pytest.raises(SpecError, match="at least 60 elements: the last tenth is held out, and is 5 long"):
        open_held_out(spec_of(workload=f"file:{tmp_path / 'text'}"), 4)
