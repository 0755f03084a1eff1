"""What sequences of unequal length cost: told from CPU time where it can be, in tables, lines and figures."""

from dataclasses import replace

import numpy as np
import pytest
from factory import PHASES, make_case, make_record

from hpcrnn.records.record import BUSY_PHASES
from hpcrnn.records.work import Work, lost_share
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.analysis.stragglers import judge
from hpcrnn.reporting.analysis.unequal_work import lost_interval, work_cost, work_costs
from hpcrnn.reporting.describe import case_names, common_problem, describe_problem
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.unequal_work import plan_unequal_work
from hpcrnn.reporting.report.sections import sections
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.unequal_work import length_table, work_lines, work_table

COUNTS = np.zeros(64, np.int64)
COUNTS[[0, 9, 29, 63]] = 10, 40, 40, 10


def ragged(n_ranks=4, batching="naive", spread="even", shares=(1.0, 0.8, 0.9, 0.5), cpu=True, padding=0.25, **options):
    """A case whose ranks run these shares of the slots, and are at work in proportion."""
    case = make_case(n_ranks, seed=3, **options)
    problem = case.spec["problem"] | {"sequences": "lines", "batching": batching, "spread": spread}
    case = replace(case, spec=case.spec | {"problem": problem})
    n = len(case.time_s)
    slots = np.tile((1000 * np.array(shares[:n_ranks])).astype(np.int64), (n, 1))
    times = case.time_s.copy()
    times[:, :, PHASES.index("forward")] *= np.array(shares[:n_ranks])
    found = Work(np.round((1 - padding) * slots).astype(np.int64), slots, COUNTS)
    if not cpu:
        return replace(case, work=found)
    busy = [PHASES.index(phase) for phase in BUSY_PHASES if phase in PHASES]
    cpu_s = np.zeros_like(case.time_s)
    cpu_s[:, :, busy] = 0.01 * slots[:, :, None] / 1000 / len(busy)
    cpu_s[:, :, 0] = cpu_s[:, :, 1:].sum(axis=2)
    return replace(case, time_s=times, cpu_time_s=cpu_s, work=found)


def costs_of(*cases):
    return work_costs(make_entries([make_record(cases)]))


def test_waiting_is_told_from_cpu_time_and_agrees_with_the_slots_it_goes_with():
    (cost,) = costs_of(ragged())
    assert cost.by_cpu
    assert cost.waited.median == pytest.approx(cost.work.slot_imbalance)
    assert cost.work.slot_imbalance == pytest.approx(1 - 3.2 / 4)
    assert cost.waited.low <= cost.waited.median <= cost.waited.high
    assert cost.work.waste == pytest.approx(0.25, abs=1e-3)
    assert cost.rate.median == pytest.approx(np.median(2400 / cost.entry.case.step_s()))


def test_without_cpu_time_or_with_threads_the_clock_tells():
    (clock,) = costs_of(ragged(cpu=False))
    (threads,) = costs_of(ragged(threads=2))
    assert [clock.told_from, threads.told_from] == ["clock", "clock"]
    assert clock.waited is not None


def test_one_rank_waits_for_nobody():
    (cost,) = costs_of(ragged(1))
    assert cost.waited is None
    assert len(work_lines(cost)) == 1


def test_full_rows_and_invalid_cases_have_no_cost():
    assert not costs_of(make_case(2), replace(ragged(), verdict=make_case(valid=False).verdict))


def test_the_interval_of_what_is_lost_holds_it_and_narrows():
    rng = np.random.default_rng(0)
    few, many = rng.gamma(20, 1, (12, 4)), rng.gamma(20, 1, (400, 4))
    for seconds in (few, many):
        found = lost_interval(seconds)
        assert found.low < found.median == lost_share(seconds) < found.high
    assert lost_interval(many).high - lost_interval(many).low < lost_interval(few).high - lost_interval(few).low
    assert np.isnan(lost_interval(few[:5]).low)


def test_the_interval_covers_the_true_share_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    true = lost_share(rng.gamma(20, 1, (200_000, 2)))
    covered = [
        found.low <= true <= found.high for found in (lost_interval(rng.gamma(20, 1, (40, 2))) for _ in range(80))
    ]
    assert np.mean(covered) > 0.85  # of 95 %: percentiles of a bootstrap are a little narrow at 40 steps


def test_a_row_of_the_table_a_case():
    entries = make_entries(
        [make_record([ragged(1), ragged(), ragged(batching="packed", shares=(1, 1, 1, 1)), make_case()])]
    )
    table = work_table(work_costs(entries), names(entries))
    assert len(table.rows) == 3
    assert table.columns[2:8] == ["Sequences", "Ranks", "Tokens a step", "Slots a step", "Padding", "Uneven tokens"]
    assert table.rows[1][2:10] == ["lines, naive", "4", "2,400", "3,200", "25 %", "20 %", "20 %", "20 %"]
    assert table.rows[2][2] == "lines, packed"
    assert table.rows[2][8:10] == ["0 %", "0 %"]
    (lengths,) = length_table(work_costs(entries)).rows
    assert lengths[1:] == ["lines of stdlib", "100", "2,250", "22.5", "1", "10", "30", "64", "64", "10 %"]
    assert work_table([], {}) is None
    assert length_table([]) is None


def test_lines_of_a_case():
    (cost,) = costs_of(ragged())
    lines = work_lines(cost)
    assert lines[0].startswith("2,400 tokens in 3,200 slots a step, 25 % padding; ")
    assert lines[1] == "waiting for unequal work 20 % (20.00–20.00 %) by CPU time, 20 % predicted from slots"


def test_how_sequences_are_batched_is_in_the_problem_and_sets_cases_apart():
    cases = [ragged(), ragged(batching="packed", spread="skewed:0.5"), make_case(4)]
    assert "stdlib lines packed skewed:0.5" in describe_problem(cases[1])
    assert "stdlib · train" in describe_problem(cases[2])
    apart = case_names(cases)
    assert len(set(apart)) == 3
    assert "packed" in apart[1]
    assert "naive" in case_names(cases[:2])[0]
    assert "stdlib" in common_problem(cases)


def test_a_rank_that_has_more_to_run_is_not_called_slow():
    case = ragged(spread="skewed:1", shares=(0.4, 0.6, 0.8, 1.0))
    times = case.time_s.copy()
    for phase in BUSY_PHASES:
        if phase in PHASES:
            times[:, :, PHASES.index(phase)] = 0.1 * case.work.slots / 1000
    times[:, :, 0] = times[:, :, 1:].sum(axis=2).max(axis=1, keepdims=True)
    (entry,) = make_entries([make_record([replace(case, time_s=times)])])
    assert {straggler.kind for straggler in judge(entry).stragglers} == {"more work"}


def test_figures_and_section_of_a_report():
    record = make_record([ragged(1), ragged(), ragged(batching="sorted", cpu=False)])
    analysis = analyse([record])
    with drawing_style():
        drawings = [sheet.draw() for sheet in plan_unequal_work(analysis.included)]
    assert [drawing.name for drawing in drawings] == ["lengths", "unequal_work"]
    assert {drawing.section for drawing in drawings} == {"unequal_work"}
    assert "waiting 20 %, 20 % predicted" in drawings[1].alt
    assert "50 % are at most 10" in drawings[0].alt
    shown = [section for section in sections(analysis, []) if section.key == "unequal-work"]
    assert len(shown) == 1
    assert "serial" not in drawings[1].alt
    assert not list(plan_unequal_work(analyse([make_record([make_case(2)])]).included))


def test_ways_of_batching_the_same_data_stand_below_one_another():
    cases = [ragged(2, batching=b, spread=s) for s in ("skewed:1", "even") for b in ("packed", "naive", "sorted")]
    with drawing_style():
        *_, drawing = (sheet.draw() for sheet in plan_unequal_work(analyse([make_record(cases)]).included))
    labels = [text.get_text().replace("\n", " ") for text in drawing.figure.axes[0].get_yticklabels()]
    found = [label.rpartition("numpy")[2].strip(" ·") for label in labels]
    assert found == [f"{b} {s}" for s in ("even", "skewed:1") for b in ("naive", "sorted", "packed")]


def test_the_cost_of_a_case_with_steps_too_few_has_no_interval():
    case = ragged(n=3)
    (entry,) = make_entries([make_record([case])])
    cost = work_cost(entry, case.work)
    assert np.isnan(cost.waited.low)
    assert "waiting for unequal work 20 % by CPU time" in work_lines(cost)[1]
