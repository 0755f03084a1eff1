"""The record in memory: identity, yardsticks, views."""

import math

import numpy as np
import pytest
from record_samples import make_case

from hpcrnn.records.record import Check, Verdict, strategy_of


def test_the_id_names_what_was_run_and_how():
    base = make_case(seed=1)
    assert base.id == make_case(seed=2).id
    assert len(base.id) == 12
    changes = [
        {"overrides": {"hidden": 128}},
        {"overrides": {"microbatches": 2}},
        {"overrides": {"threads": 2}},
        {"backend": "torch"},
        {"kernel": "other"},
        {"n_ranks": 3},
        {"strategy": "serial"},
    ]
    assert len({base.id, *(make_case(**change).id for change in changes)}) == len(changes) + 1


def test_how_long_to_measure_does_not_change_the_case():
    assert make_case(overrides={"max_time": 3.0, "out": "x.h5"}).id == make_case().id


def test_the_problem_is_the_same_however_it_is_run():
    same = [make_case(), make_case(3), make_case(overrides={"threads": 2}), make_case(backend="torch")]
    assert len({case.problem_id for case in same}) == 1
    assert make_case(overrides={"seed": 1}).problem_id != make_case().problem_id


def test_the_step_is_the_slowest_ranks():
    case = make_case(3)
    np.testing.assert_array_equal(case.step_s(), case.time_s[:, :, 0].max(axis=1))
    np.testing.assert_array_equal(case.phase_s("allreduce"), case.time_s[:, :, 3])
    with pytest.raises(ValueError):
        case.phase_s("none")


def test_a_check_of_nan_never_passes():
    assert Check("loss", 1.0, 1.0, 1.0).passed
    assert not Check("loss", math.nan, 1.0, 1.0).passed
    assert not Check("loss", 1.0, 1.0, math.nan).passed


def test_the_worst_check():
    good, bad, nan = Check("a", 1.0, 1.0, 8.0), Check("b", 9.0, 1.0, 8.0), Check("c", math.nan, 1.0, 8.0)
    assert Verdict("INVALID", "", 8.0, (good, bad)).worst is bad
    assert Verdict("INVALID", "", 8.0, (good, nan, bad)).worst is nan


def test_names():
    assert make_case(4).label == "data 4 · numpy"
    assert make_case(1).label == "serial · numpy"
    assert strategy_of({"data": 4}) == "data"
    assert strategy_of({"data": 1}) == strategy_of({}) == "serial"
    assert strategy_of({"data": 2, "time": 2}) == "hybrid"


def test_the_name_of_a_case_says_how_it_is_split():
    way = {"grid": {"data": 1, "pipeline": 2}, "order": "1f1b", "microbatches": 4, "chunks": 2}
    assert make_case(2, strategy="pipeline", overrides=way).label == "pipeline 2 · 1f1b M4 C2 · numpy"
    assert make_case(2).memory_known
    assert not make_case(2, memory_bytes=np.zeros(2, dtype=np.int64)).memory_known
