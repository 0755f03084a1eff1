from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from factory import make_case, make_record, many_cases, quick_cases

from hpcrnn.records.record import Check, Verdict
from hpcrnn.reporting.analysis.entries import exclusion_reason, make_entries
from hpcrnn.reporting.analysis.scaling import analyse, describe_base, find_base
from hpcrnn.reporting.describe import common_problem, describe_problem, distinctions, notable_settings, worst_check
from hpcrnn.reporting.tables.cases import gaps
from hpcrnn.reporting.tables.system import system_disclosures

# Eight samples: the rank-based 95 % interval runs from the smallest to the largest.
ONE = [4.0, 4.1, 4.2, 4.3, 4.5, 4.6, 4.7, 4.8]
TWO = [2.0, 2.1, 2.1, 2.2, 2.2, 2.3, 2.3, 2.5]


def fixed(n_ranks, samples, batch=64, **changes):
    return make_case(n_ranks, batch, samples=samples, **changes)


def test_strong_scaling_by_hand():
    analysis = analyse([make_record([fixed(1, ONE), fixed(2, TWO)])])
    (series,) = analysis.strong
    base, point = series.points
    assert (series.strategy, series.backend) == ("data", "numpy")
    assert [p.n_ranks for p in series.points] == [1, 2]
    assert point.time.median == pytest.approx(2.2)
    assert (point.time.low, point.time.high) == (2.0, 2.5)
    assert point.speedup.median == pytest.approx(4.4 / 2.2)
    assert point.speedup.low == pytest.approx(4.0 / 2.5)
    assert point.speedup.high == pytest.approx(4.8 / 2.0)
    assert point.efficiency.median == pytest.approx(1.0)
    assert point.efficiency.high == pytest.approx(1.2)
    assert describe_base(point.base) == "serial · numpy, 1 rank, 4.40 s"
    # A case over itself is 1: nothing about that is uncertain.
    assert (base.speedup.low, base.speedup.median, base.speedup.high) == (1.0, 1.0, 1.0)


def test_weak_scaling_by_hand():
    analysis = analyse([make_record([fixed(1, ONE), fixed(2, [s + 0.4 for s in ONE], batch=128)])])
    (series,) = analysis.weak
    assert series.batch_per_rank == Fraction(64)
    single, wide = series.points
    assert single.efficiency.median == 1.0
    assert wide.efficiency.median == pytest.approx(4.4 / 4.8)
    assert wide.efficiency.low == pytest.approx(4.0 / 5.2)
    # Of another problem, and there is no serial run of it: no strong curve.
    assert analysis.strong == ()
    assert find_base(analysis.entries[1], analysis.entries) is None


def test_the_time_of_a_step_is_the_slowest_ranks():
    case = fixed(2, TWO)
    case.time_s[:, 1, 0] = 9.0
    (entry,) = make_entries([make_record([case])])
    assert entry.step.median == 9.0


def test_the_base_is_the_best_valid_serial_run_of_any_backend():
    cases = [
        fixed(1, ONE),
        fixed(1, [s / 2 for s in ONE], backend="torch"),
        fixed(1, [s / 9 for s in ONE], valid=False, threads=4),
        fixed(2, TWO),
    ]
    entries = make_entries([make_record(cases)])
    base = find_base(entries[3], entries)
    assert base.entry.number == 2
    assert describe_base(base) == "serial · torch, 1 rank, 2.20 s"


def test_a_base_of_the_same_file_is_preferred_and_another_files_is_named():
    slow = make_record([fixed(1, ONE), fixed(2, TWO)], source="results/a.h5")
    fast = make_record([fixed(1, [s / 2 for s in ONE])], source="results/b.h5", seed=1)
    alone = make_record([fixed(4, TWO)], source="results/c.h5", seed=2)
    entries = make_entries([slow, fast, alone])
    assert find_base(entries[1], entries).entry.number == 1
    base = find_base(entries[3], entries)
    assert base.entry.number == 3
    assert describe_base(base) == "serial · numpy, 1 rank, 2.20 s, from another file (b.h5)"


def test_threads_of_the_base_are_named():
    entries = make_entries([make_record([fixed(1, ONE, threads=4), fixed(2, TWO)])])
    assert "1 rank, 4 threads, " in describe_base(find_base(entries[1], entries))


def test_repeated_measurements_are_all_kept_and_the_line_takes_the_middle_one():
    records = [make_record([fixed(1, [s + k for s in ONE]), fixed(2, [s + k for s in TWO])], seed=k) for k in range(3)]
    (series,) = analyse(records).strong
    assert series.repeated
    assert len(series.points) == 6
    assert [p.time.median for p in series.line] == pytest.approx([5.4, 3.2])
    # Each is compared with the serial run of its own file.
    assert [p.base.entry.file for p in series.points] == [p.entry.file for p in series.points]


def test_a_record_given_twice_counts_once():
    record = make_record(quick_cases())
    assert len(analyse([record, record]).entries) == 3


def test_an_invalid_case_enters_nothing():
    good = analyse([make_record([fixed(1, ONE)])])
    both = analyse([make_record([fixed(1, ONE), fixed(2, TWO, valid=False), fixed(2, TWO, batch=128, valid=False)])])
    assert [e.number for e in both.excluded] == [2, 3]
    assert both.strong == both.weak == ()
    assert len(both.phases) == len(both.losses) == len(good.phases) == 1
    reason = both.excluded[0].exclusion
    assert reason.startswith("INVALID: gradient layer0.R is off by 3.0e-2")
    assert "allowed is 2.0e-6" in reason
    assert "1 of 3 checks failed" in reason


def test_without_a_valid_serial_run_there_is_no_speedup():
    analysis = analyse([make_record([fixed(1, ONE, valid=False), fixed(2, TWO), fixed(4, TWO)])])
    (series,) = analysis.strong
    assert [p.n_ranks for p in series.points] == [2, 4]
    assert all(p.base is None and p.speedup is None and p.efficiency is None for p in series.points)


def test_a_simulated_time_is_never_compared_with_a_measured_one():
    simulated = replace(fixed(2, TWO), simulated=True)
    analysis = analyse([make_record([fixed(1, ONE), simulated])])
    assert analysis.strong == ()


def test_a_verdict_is_believed_only_with_checks_that_agree():
    case = fixed(1, ONE)
    failed = Check("loss", 1.0, 1e-9, 1e-6)
    assert exclusion_reason(case) == ""
    no_checks = replace(case, verdict=Verdict("VALID", "", 8.0, ()))
    assert exclusion_reason(no_checks) == "recorded as VALID without a single check"
    contradicts = replace(case, verdict=Verdict("VALID", "", 8.0, (failed,)))
    assert exclusion_reason(contradicts).startswith("recorded as VALID, but its checks say otherwise: loss")
    nan = replace(case, verdict=Verdict("INVALID", "", 8.0, (Check("loss", np.nan, 0.0, 0.0), failed)))
    assert "loss is off by NaN" in exclusion_reason(nan)
    assert worst_check(Verdict("VALID", "", 8.0, (Check("x", 0.0, 0.0, 0.0),))).quantity == "x"


def test_a_case_without_usable_times_is_excluded():
    case = fixed(1, ONE)
    assert exclusion_reason(replace(case, time_s=case.time_s[:0])) == "no counted repetition"
    broken = fixed(1, ONE)
    broken.time_s[3, 0, 0] = np.nan
    assert "positive finite" in exclusion_reason(broken)


def test_too_few_samples_give_a_median_without_bounds():
    (series,) = analyse([make_record([fixed(1, ONE), fixed(2, TWO[:5])])]).strong
    point = series.widest
    assert point.speedup.median == pytest.approx(4.4 / 2.1)
    assert np.isnan(point.speedup.low)
    assert np.isnan(point.efficiency.high)


def test_phases_are_the_median_over_repetitions_of_the_mean_over_ranks():
    case = fixed(2, TWO)
    case.time_s[:, 0, 1], case.time_s[:, 1, 1] = np.arange(8.0), 2.0
    (breakdown,) = analyse([make_record([case])]).phases
    assert breakdown.seconds["forward"] == pytest.approx((3.5 + 2.0) / 2)
    assert "step" not in breakdown.seconds
    assert breakdown.shares["forward"] == pytest.approx(2.75 / breakdown.mean_step_s)


def test_the_learning_curve_has_its_unit_and_every_step():
    cases = [fixed(1, ONE), fixed(1, ONE, workload="adding"), fixed(1, ONE, mode="forward")]
    curves = analyse([make_record(cases)]).losses
    assert [c.unit for c in curves] == ["nats per byte", ""]
    assert curves[0].loss.size == 8 + curves[0].n_warmup == 10


def test_forty_cases_are_five_curves():
    analysis = analyse([make_record(many_cases())])
    assert len(analysis.strong) == 5
    assert all(len(s.points) == 8 and not s.repeated for s in analysis.strong)


def test_gaps_are_said_in_words():
    assert gaps(analyse([make_record([fixed(1, ONE)])])) == {
        "strong": "No strong scaling: every case ran on one rank.",
        "weak": "No weak scaling: every case ran on one rank.",
    }
    assert gaps(analyse([make_record(quick_cases())])) == {}
    assert "No case may be plotted" in gaps(analyse([make_record([fixed(1, ONE, valid=False)])]))["strong"]
    assert "same sequences a rank" in gaps(analyse([make_record([fixed(1, ONE), fixed(2, TWO)])]))["weak"]


def test_problems_are_named_by_what_differs():
    cases = quick_cases()
    assert describe_problem(cases[0]) == "lstm H512 L2 D512 · B64 T64 · float32 · stdlib · train"
    assert common_problem(cases) == "lstm H512 L2 D512 · T64 · float32 · stdlib · train"
    assert distinctions(cases) == ["B64", "B64", "B128"]
    assert distinctions(cases, ["problem.batch"]) == ["", "", ""]
    # A kernel that follows from the backend is not worth saying; one that does not is.
    assert distinctions([fixed(1, ONE), fixed(1, ONE, backend="torch")]) == ["", ""]
    other = replace(fixed(1, ONE), kernel="numpy")
    assert distinctions([fixed(1, ONE), other]) == ["MKL packed sgemm", "numpy"]
    # Nor is what the label says: micro-batches, chunks, order.
    assert distinctions([fixed(1, ONE), fixed(1, ONE, lr=0.01, microbatches=4)]) == ["lr=0.001", "lr=0.01"]


def test_the_transport_of_gpus_is_named_where_cases_differ_in_it():
    staged, direct = (fixed(2, TWO, backend="cupy", transport=name) for name in ("staged", "direct"))
    assert distinctions([staged, direct]) == ["MPI staged", "MPI direct"]
    assert distinctions([fixed(2, TWO), fixed(1, ONE, backend="cupy"), direct]) == ["", "", ""]
    assert "MPI direct" in notable_settings(direct)
    assert staged.id != direct.id
    base = fixed(1, ONE, backend="cupy")
    series = analyse([make_record([base, staged, direct])]).strong
    assert [[p.entry.case.transport for p in s.points] for s in series] == [["", "staged"], ["", "direct"]]


def test_hosts_of_a_kind_are_disclosed_once():
    parts = system_disclosures([make_record(many_cases())])
    hosts = [part for part in parts if part.title.startswith("Hosts")]
    assert len(hosts) == 1
    rows = dict(hosts[0].rows)
    assert rows["name"] == "node01 (ranks 0–63), node02 (ranks 64–127)"
    assert rows["memory"] == "503 GiB"
    assert rows["could not be found out"] == "governor"


@pytest.mark.parametrize(
    "environment", [{}, {"hosts": "unknown", "git": "unknown"}, {"hosts": [{}], "odd": [1, {"a": None}]}]
)
def test_an_environment_may_lack_anything(environment):
    for part in system_disclosures([make_record([fixed(1, ONE)], environment=environment)]):
        assert all(name and text for name, text in part.rows)


def test_sections_that_differ_between_files_name_them():
    records = [make_record([fixed(1, ONE)], seed=k) for k in range(3)]
    records[2].environment["packages"]["numpy"] = "9"
    titles = [part.title for part in system_disclosures(records)]
    assert "Packages (files 1–2)" in titles
    assert "Packages (file 3)" in titles
    assert "MPI" in titles
