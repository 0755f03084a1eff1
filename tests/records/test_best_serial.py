"""The base of every speedup."""

import numpy as np
import pytest
from record_samples import make_case

from hpcrnn.records.baseline import best_serial
from hpcrnn.records.record import Baseline


def timed(seconds, **changes):
    case = make_case(changes.pop("n_ranks", 1), **changes)
    case.time_s[...] = seconds
    return case


def test_the_fastest_valid_measured_serial_run():
    best = timed(2.0, backend="torch")
    cases = [
        timed(3.0),
        best,
        timed(0.1, valid=False, kernel="wrong"),
        timed(0.2, simulated=True, kernel="simulated"),
        timed(0.3, n_ranks=2),
        timed(0.4, n=0, kernel="never repeated"),
    ]
    assert best_serial(cases) == Baseline(best.id, 2.0, "best_serial")
    assert best_serial(reversed(cases)) == best_serial(cases)


def test_segments_of_time_at_once_are_no_serial_run():
    chain = timed(3.0)
    cases = [timed(1.0, overrides={"method": "picard", "fold": fold}) for fold in (1, 8)]
    assert [case.strategy for case in cases] == ["serial", "serial"]
    assert best_serial([*cases, chain]).case_id == chain.id
    assert best_serial(cases) is None


def test_it_is_the_median_that_counts():
    steady, lucky = timed(2.0, kernel="steady"), timed(3.0, kernel="lucky")
    lucky.time_s[0] = 0.001
    assert best_serial([lucky, steady]).case_id == steady.id


def test_the_step_of_the_slowest_rank_is_not_mixed_with_other_phases():
    case = timed(1.0)
    case.time_s[:, :, 1:] = 99.0
    assert best_serial([case]).time_s == 1.0


@pytest.mark.parametrize("cases", [[], [timed(1.0, n_ranks=2)], [timed(1.0, valid=False)]])
def test_there_may_be_none(cases):
    assert best_serial(iter(cases)) is None


def test_cases_of_two_problems_have_no_common_base():
    with pytest.raises(ValueError, match="one problem"):
        best_serial([timed(1.0), timed(1.0, overrides={"hidden": 128})])


def test_a_baseline_of_nan_is_not_the_best():
    broken, fine = timed(np.nan, kernel="broken"), timed(5.0)
    assert best_serial([broken, fine]).case_id == fine.id
