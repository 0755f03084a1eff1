"""Learning curves in a record: they come back exactly, and what cannot be true of them is found."""

from dataclasses import replace

import numpy as np
import pytest
from sound_samples import edit_file, make_case, make_learning, sound_record

from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import read_record, read_stored, write_record
from hpcrnn.records.invariants import examine
from hpcrnn.records.learning import COLUMNS


def learned(**changes):
    case = make_case({"data": 2}, mode="target", target_loss=2.5, seeds=2)
    return replace(case, learning=replace(make_learning(), **changes))


def round_trip(case, path):
    write_record(sound_record(case), path)
    return read_record(path).cases[0]


def assert_same(a, b):
    assert (a.target_loss, a.unit, a.held_out) == (b.target_loss, b.unit, b.held_out)
    assert [(c.seed, c.ending) for c in a.curves] == [(c.seed, c.ending) for c in b.curves]
    for one, other in zip(a.curves, b.curves, strict=True):
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert a.restarts == b.restarts


def test_they_come_back_exactly(tmp_path):
    case = learned()
    assert_same(round_trip(case, tmp_path / "r.h5").learning, case.learning)


def test_a_training_that_was_stopped_before_its_first_seed_began(tmp_path):
    case = replace(learned(curves=()), time_s=learned().time_s[:0], loss=learned().loss[:2])
    case = replace(case, gradient_norm=case.gradient_norm[:2])
    assert round_trip(case, tmp_path / "r.h5").learning.curves == ()


def test_what_a_seed_needed_is_infinite_where_it_never_got_there():
    learning = make_learning()
    assert learning.n_reached == 1
    np.testing.assert_array_equal(learning.to_target("step"), [80, np.inf])
    np.testing.assert_array_equal(learning.to_target("sent_bytes"), [80 * 8192, np.inf])


def test_columns_of_several_lengths_are_a_bug(tmp_path):
    learning = make_learning()
    short = replace(learning.curves[0], time_s=learning.curves[0].time_s[1:])
    with pytest.raises(ValueError, match="time_s of seed 0"):
        write_record(sound_record(learned(curves=(short, learning.curves[1]))), tmp_path / "r.h5")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda group: group["ending"].__setitem__(0, "bored"), "ending that is not target"),
        (lambda group: group["curve"].__setitem__(0, 1), "does not number its seeds in order"),
        (lambda group: group["curve"].__setitem__(-1, 7), "does not number its seeds in order"),
    ],
)
def test_a_group_that_cannot_be_is_refused(tmp_path, change, told):
    case, path = learned(), tmp_path / "r.h5"
    write_record(sound_record(case), path)
    edit_file(path, lambda file: change(file[f"cases/{case.id}/learning"]))
    with pytest.raises(FileError, match=told):
        read_record(path)


def wrong_curves():
    good = make_learning().curves
    first = good[0]
    backwards = replace(first, time_s=first.time_s[::-1])
    late = replace(first, held_out_loss=np.append(2.0, first.held_out_loss[1:]))
    yield "time", (backwards, good[1])
    yield "early", (late, good[1])
    yield "not reached", (replace(first, ending="max_steps"), good[1])
    yield "twice", (first, replace(good[1], seed=0))
    yield "legs", (first,)


@pytest.mark.parametrize("curves", [pytest.param(curves, id=name) for name, curves in wrong_curves()])
def test_what_cannot_be_true_is_found(tmp_path, curves):
    path = tmp_path / "r.h5"
    write_record(sound_record(learned()), path)
    assert examine(read_stored(path)).violations == ()
    write_record(sound_record(learned(curves=curves)), path)
    assert {v.check for v in examine(read_stored(path)).violations} == {"learning curves"}
