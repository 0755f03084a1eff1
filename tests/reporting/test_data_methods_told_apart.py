"""Two data methods of the same grid are two ways: in names, tables, contests and comparisons."""

from itertools import combinations
from typing import get_args

import pytest
from factory import make_case, make_record

from hpcrnn.reporting.analysis.contest import contests
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.comparison.matching import differences, facts, match
from hpcrnn.reporting.describe import case_names, distinctions
from hpcrnn.spec import DataMethodName

CASES = [
    make_case(4, median_s=0.3 + 0.01 * number, data_method=method, **more)
    for number, (method, more) in enumerate(
        [(method, {}) for method in get_args(DataMethodName)]
        + [("local_sgd", {"sync_every": 4}), ("diloco", {"outer_momentum": 0.5}), ("hierarchical", {"node_size": 2})]
    )
]


def test_every_method_has_a_name_of_its_own():
    serial = make_case(1)
    names = case_names([serial, *CASES])
    assert len(set(names)) == len(names)
    assert names[0] == "serial · numpy"
    assert "data 4 · local_sgd 8 · numpy" in names
    assert "data 4 · local_sgd 4 · numpy" in names


def test_a_base_says_nothing_of_methods():
    assert distinctions([make_case(1), make_case(2)]) == ["", ""]
    assert distinctions([make_case(1), make_case(2, data_method="diloco")]) == ["", ""]
    assert distinctions([make_case(1), make_case(2, data_method="allreduce_flat")]) == ["", "allreduce_flat"]


@pytest.mark.parametrize(("a", "b"), list(combinations(CASES, 2)))
def test_two_methods_are_not_compared_as_if_they_were_one(a, b):
    assert a.id != b.id
    assert differences(a, b)
    first, second = (analyse([make_record([case])]).included for case in (a, b))
    assert match(first, second)[0] == []


def test_a_case_says_only_what_belongs_to_its_method():
    known = {case.split.exchange: set(facts(case)) for case in CASES}
    belongs = {"sync_every", "outer_lr", "outer_momentum", "staleness", "node_size"}
    assert known["local_sgd 8"] & belongs == {"sync_every"}
    assert known["diloco 8"] & belongs == {"sync_every", "outer_lr", "outer_momentum"}
    assert known["parameter_server_async 2"] & belongs == {"staleness"}
    assert known[""] & belongs == set()
    assert "data_method" not in facts(make_case(1))


def test_they_contend_with_one_another():
    (contest,) = contests(analyse([make_record([make_case(1), *CASES])]).included)
    assert len(contest.contenders) == len(CASES)
