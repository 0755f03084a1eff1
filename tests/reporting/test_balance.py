"""Even shares beside shares by speed: paired, with the ideal, and what was recovered of the loss."""

from dataclasses import replace

import numpy as np
import pytest
from factory import make_record
from rank_samples import ranked_case

from hpcrnn.records.balance import weights_of
from hpcrnn.reporting.analysis.balance import recoveries
from hpcrnn.reporting.analysis.contest import contests
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.analysis.strategy_map import strategy_maps
from hpcrnn.reporting.comparison.matching import has
from hpcrnn.reporting.describe import case_names
from hpcrnn.reporting.tables.balance import balance_table
from hpcrnn.reporting.tables.cases import names


def case_of(busy, *, balance="even", handicap=None, wait=0.0, n=20):
    """A case whose ranks are busy for so many seconds, and whose step is that of the busiest and some waiting."""
    busy = np.tile(np.asarray(busy, dtype=float), (n, 1)) * (1 + 0.01 * np.arange(n)[:, None])
    case = ranked_case(busy.shape[1], n, batch=12)
    time_s = np.zeros_like(case.time_s)
    place = case.phases.index
    time_s[:, :, place("forward")] = busy
    time_s[:, :, 0] = busy.max(axis=1, keepdims=True) * (1 + wait)
    time_s[:, :, place("allreduce")] = time_s[:, :, 0] - busy
    spec = {**case.spec, "parallel": {**case.spec["parallel"], "balance": balance}}
    spec["machine"] = {**spec["machine"], "handicap": handicap}
    return replace(case, spec=spec, time_s=time_s)


def recovered(even, balanced, weights="weights:1,0.5", **kwargs):
    record = make_record([case_of(even, **kwargs), case_of(balanced, balance=weights, **kwargs)])
    (found,) = recoveries(make_entries([record]))
    return found


@pytest.mark.parametrize(
    ("balanced", "share"),
    [([4 / 3, 4 / 3], 1.0), ([2.0, 2.0], 0.0), ([1.5, 1.0], 0.75), ([1.4, 1.2], 0.9), ([2.5, 0.5], -0.75)],
)
def test_what_is_recovered_by_example(balanced, share):
    """Ranks of speeds 1 and 1/2 take 1 and 2 s of even shares: 2 s, where 4/3 s is the best there is."""
    found = recovered([1.0, 2.0], balanced)
    assert found.recovered.median == pytest.approx(share)
    assert found.recovered.low <= found.recovered.median <= found.recovered.high
    assert found.ideal.median / found.even.step.median == pytest.approx(2 / 3)
    assert found.weights == (1.0, 0.5)


def test_waiting_stays_in_proportion():
    found = recovered([1.0, 2.0], [4 / 3, 4 / 3], wait=0.25)
    assert found.ideal.median / found.even.step.median == pytest.approx(2 / 3)
    assert found.recovered.median == pytest.approx(1.0)


def test_where_nothing_is_lost_there_is_nothing_to_recover():
    found = recovered([1.0, 1.01], [1.0, 1.0], weights="weights:1,1")
    assert found.recovered is None
    table = balance_table([found], names([found.even, found.balanced]))
    assert table.rows[0][-1] == "nothing to recover"


def test_measured_weights_are_those_of_the_record():
    even, balanced = case_of([1.0, 2.0]), case_of([1.3, 1.4], balance="measured")
    record = make_record([even, balanced])
    assert recoveries(make_entries([record])) == ()
    for damaged in (None, 3, {"weights": 3}, {"weights": [1]}, {"weights": [1, 0]}, {"weights": [1, float("nan")]}):
        assert weights_of(balanced, {"balance": damaged}) == ()
    record.environment["balance"] = {"how": "measured", "weights": [1, 0.5]}
    (found,) = recoveries(make_entries([record]))
    assert found.weights == (1, 0.5)


def test_only_cases_that_differ_in_their_shares_alone_are_paired():
    even, balanced = case_of([1.0, 2.0]), case_of([1.3, 1.4], balance="weights:2,1", handicap="1:0.5")
    assert recoveries(make_entries([make_record([even, balanced])])) == ()
    assert recoveries(make_entries([make_record([even]), make_record([balanced])])) == ()


def test_the_table_names_weights_and_what_was_found():
    found = recovered([1.0, 2.0], [1.4, 1.2], handicap="1:0.5")
    table = balance_table([found], names([found.even, found.balanced]))
    (row,) = table.rows
    assert len(row) == len(table.columns)
    assert row[2] == "1, 0.5"
    assert row[8] == "faster"
    assert row[9] == "90 %"
    assert balance_table([], {}) is None


def test_a_handicapped_case_is_marked_and_enters_no_comparison():
    real, slowed = case_of([1.0, 1.0]), case_of([0.2, 0.4], handicap="1:0.5")
    serial, stages = ranked_case(1, 20, batch=12), ranked_case(2, 20, batch=12, grid={"pipeline": 2})
    analysis = analyse([make_record([serial, real, slowed, stages])])
    assert case_names([real, slowed])[1].endswith("HANDICAPPED 1:0.5")
    assert slowed.id != real.id
    assert [e.case.handicap for e in analysis.included] == ["", "", "1:0.5", ""]
    curves = [[point.entry.number for point in series.points] for series in analysis.strong]
    assert sorted(curves) == [[1, 2], [1, 4]]
    (contest,) = contests(analysis.included)
    assert sorted(contender.entry.number for contender in contest.contenders) == [2, 4]
    (found,) = strategy_maps(analysis.included)
    assert [run.number for cell in found.cells for one in cell.ranking if len(cell.ranking) > 1 for run in one.runs]
    assert 3 not in [run.number for cell in found.cells for one in cell.ranking for run in one.runs]
    assert has(real, {"strategy": "data"})
    assert not has(slowed, {"strategy": "data"})
    assert has(slowed, {"strategy": "data", "handicap": "1:0.5"})


def test_no_handicapped_run_is_a_base():
    serial = ranked_case(1, 20)
    spec = {**serial.spec, "machine": {**serial.spec["machine"], "handicap": "0:0.5"}}
    assert serial.is_serial_base
    assert not replace(serial, spec=spec).is_serial_base


def test_shares_by_speed_explain_busy_times():
    """Speeds 1 and 1/2: the slow rank has fewer rows and is as long busy; per row it is slow, and nobody waits."""
    from hpcrnn.reporting.analysis.stragglers import judge

    (entry,) = make_entries([make_record([case_of([1.0, 1.0], balance="weights:1,0.5")])])
    assert judge(entry).stragglers == ()
    (entry,) = make_entries([make_record([case_of([2.0, 1.0], balance="weights:1,0.5")])])
    assert [s.kind for s in judge(entry).stragglers] == ["more work"]
