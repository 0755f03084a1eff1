"""Where the ranks' time goes: the division adds up exactly, and tables, figure and terminal say it."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from factory import make_case, make_record, strategy_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hpcrnn.records.record import BUSY_PHASES, PHASES
from hpcrnn.reporting.analysis.accounting import (
    PARTS,
    account,
    account_all,
    cpu_time,
    knows_cpu_given,
    rank_seconds,
    typical_steps,
)
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.scaling import Base, analyse
from hpcrnn.reporting.figures.accounting import FURTHEST, plan_accounts
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.report.page import Terms
from hpcrnn.reporting.report.sections import sections
from hpcrnn.reporting.tables.accounting import PART_NAMES, accounting_tables, lost_text
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.table import Table
from hpcrnn.reporting.terminal.show import show

AT_WORK = np.isin(PHASES, BUSY_PHASES)


def timed(case, parts, cpu=None):
    """Give a case these times (n, n_ranks, n_phases - 1) of its phases but the step, and CPU times of the same."""

    def whole(times):
        return np.concatenate([times.sum(axis=2, keepdims=True), times], axis=2)

    measured = None if cpu is None else whole(cpu)
    return replace(case, phases=PHASES, time_s=whole(parts), cpu_time_s=measured)


def entries_of(*cases, **changes):
    return make_entries([make_record(cases, **changes)])


def with_cpu(case, share=0.95):
    return replace(case, cpu_time_s=share * case.time_s)


def pair(serial, parallel):
    """Account one case against another of the same file."""
    one, other = entries_of(serial, parallel)
    return account(other, Base(one, same_file=True))


@st.composite
def any_times(draw, n_ranks):
    """Times of all phases, some of them nought, and CPU times, mostly below them."""
    n = draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = 10.0 ** draw(st.integers(-6, 3))
    parts = scale * random.random((n, n_ranks, len(PHASES) - 1)) * (random.random((n, n_ranks, 1)) + 0.01)
    parts *= random.random(parts.shape) < 0.7
    parts[:, :, 0] += scale * 1e-3  # a step takes some time
    return parts, parts * random.uniform(0.3, 1.02, parts.shape)


# --- the division -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(times=st.integers(1, 6).flatmap(any_times), by_cpu=st.booleans())
def test_the_parts_of_every_step_add_up_to_the_ranks_time(times, by_cpu):
    parts, cpu = times
    case = timed(make_case(parts.shape[1], n=1), parts, cpu)
    found = rank_seconds(case, by_cpu=by_cpu)
    np.testing.assert_allclose(sum(found.values()), case.n_ranks * case.step_s(), rtol=1e-12)
    assert set(found) == set(PARTS) - (set() if by_cpu else {"not_given"})
    for part, seconds in found.items():
        # CPU time may run ahead of the other clock by a reading; nothing else is ever below nought.
        assert part == "not_given" or (seconds >= -1e-12 * case.n_ranks * case.step_s()).all(), part


@settings(max_examples=60, deadline=None)
@given(serial=any_times(1), parallel=st.integers(2, 5).flatmap(any_times), measured=st.booleans())
def test_what_is_useful_and_what_is_lost_are_all_of_the_ranks_time(serial, parallel, measured):
    one = timed(make_case(1, n=1), *(serial if measured else serial[:1]))
    many = timed(make_case(parallel[0].shape[1], n=1), *(parallel if measured else parallel[:1]))
    found = pair(one, many)
    assert ("not_given" in found.lost) == measured
    # To rounding of the larger of the two.
    assert found.useful + sum(found.lost.values()) == pytest.approx(1.0, abs=1e-12 * (1 + found.useful))
    lost_s, larger_s = found.rank_time_s - found.serial_s, max(found.rank_time_s, found.serial_s)
    assert found.rank_time_s * sum(found.lost.values()) == pytest.approx(lost_s, abs=1e-12 * larger_s)
    assert sum(found.held.values()) == pytest.approx(found.rank_time_s, rel=1e-9)
    assert sum(found.serial.values()) == pytest.approx(found.serial_s, rel=1e-9)


def test_each_part_is_what_its_formula_says():
    columns = dict.fromkeys(PHASES[1:], 0.0)

    def rank(**seconds):
        return list((columns | seconds).values())

    serial = [[rank(forward=4.0, backward=5.0, update=1.0, other=0.5)]]
    serial_cpu = [[rank(forward=3.9, backward=5.0, update=1.0, other=0.5)]]
    parallel = [
        [
            rank(forward=2.5, backward=3.0, update=1, post=0.1, wait_recv=0.2, wait_send=0.3, allreduce=0.4, other=0.5),
            rank(forward=2.0, backward=3.0, update=1.0, post=0.2, allreduce=1.0, other=0.25),
        ]
    ]  # fmt: skip
    parallel_cpu = [[rank(forward=2.5, backward=2.75, update=1.0), rank(forward=2.0, backward=3.0, update=0.5)]]
    found = pair(
        timed(make_case(1, n=1), *map(np.array, (serial, serial_cpu))),
        timed(make_case(2, n=1), *map(np.array, (parallel, parallel_cpu))),
    )
    step = 8.0  # of rank 0; rank 1 ends at 7.45
    assert found.rank_time_s == pytest.approx(2 * step)
    assert found.serial_s == pytest.approx(10.5)
    assert found.held == pytest.approx({
        "work": 2.5 + 2.75 + 1.0 + 2.0 + 3.0 + 0.5,
        "not_given": 0.25 + 0.5,
        "communication": 0.1 + 0.2 + 2 * 0.4,
        "waiting": 0.2 + 0.3 + (1.0 - 0.4) + (8.0 - 7.45),
        "other": 0.5 + 0.25,
    })  # fmt: skip
    assert found.lost["work"] * 16 == pytest.approx(11.75 - 9.9)
    assert found.lost["not_given"] * 16 == pytest.approx(0.75 - 0.1)
    assert found.useful == pytest.approx(10.5 / 16)


def test_ranks_that_need_less_than_the_serial_run_have_done_less_than_no_extra_work():
    found = pair(make_case(1, 64, 0.4), make_case(4, 64, 0.08))
    assert found.useful > 1
    assert found.lost["work"] < 0
    assert found.useful + sum(found.lost.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 31, 32])
def test_typical_are_the_steps_between_the_quartiles_and_no_outlier(n):
    steps = np.random.default_rng(n).random(n) + 1.0
    chosen = typical_steps(steps)
    assert len(chosen) == n - 2 * (n // 4)
    assert (np.diff(chosen) > 0).all()
    if n >= 4:
        assert steps.min() not in steps[chosen]
        assert steps.max() not in steps[chosen]
        outlying = np.where(steps == steps.max(), 1e6, steps)
        np.testing.assert_array_equal(typical_steps(outlying), chosen)


# --- what is known ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "known"),
    [
        (make_case(2, n=3), False),
        (with_cpu(make_case(2, n=3)), True),
        (with_cpu(make_case(2, n=3, threads=2)), False),
        (with_cpu(make_case(2, n=3, backend="cupy")), False),
        (replace(make_case(2, n=3), cpu_time_s=np.full((3, 2, 7), np.nan)), False),
    ],
    ids=["no CPU time", "CPU time", "two threads", "on a GPU", "not measured"],
)
def test_cpu_that_was_not_given_is_known_of_ranks_of_one_thread_that_measured_it(case, known):
    assert knows_cpu_given(case) is known
    found = pair(with_cpu(make_case(1, n=3)), case)
    assert ("not_given" in found.lost) is known


def test_cpu_times_are_those_of_the_ranks_that_measured_them():
    case = with_cpu(make_case(3, n=5))
    case.cpu_time_s[:, 1] = np.nan
    found = cpu_time(case)
    at_work = [case.phases.index(phase) for phase in BUSY_PHASES]
    np.testing.assert_allclose(found.step, np.median(case.cpu_time_s[:, [0, 2], 0], axis=0))
    np.testing.assert_allclose(found.work, np.median(case.cpu_time_s[:, [0, 2]][:, :, at_work].sum(axis=2), axis=0))
    assert cpu_time(make_case(3, n=5)) is None
    assert cpu_time(replace(case, cpu_time_s=np.full_like(case.time_s, np.nan))) is None


def test_a_case_stands_beside_the_serial_run_of_its_own_backend():
    torch, numpy = make_case(1, 64, 0.3, backend="torch"), make_case(1, 64, 0.4)
    ours, theirs = make_case(2, 64, 0.21), make_case(2, 64, 0.16, backend="torch")
    found = account_all(entries_of(torch, numpy, ours, theirs))
    assert [(a.entry.number, a.base.entry.number) for a in found] == [(3, 2), (4, 1)]
    assert all(a.remarks == () for a in found)
    (alone,) = account_all(entries_of(torch, ours))
    assert alone.base.entry.case.backend == "torch"
    assert "another backend" in alone.remarks[0]


def test_a_serial_run_of_another_machine_is_no_base_and_one_of_the_same_machine_is_named():
    here, there = make_record([make_case(1)]), make_record([make_case(2, 64, 0.2)], seed=1, source="other.h5")
    (found,) = account_all(make_entries([here, there]))
    assert "another file" in found.remarks[0]
    for host in there.environment["hosts"]:
        host["cpu_model"] = "AMD EPYC 9654"
    assert account_all(make_entries([here, there])) == []


def test_what_must_be_known_of_a_case_is_said():
    record = make_record([make_case(1), make_case(4, 64, 0.2, handicap="1:0.5")])
    for host in record.environment["hosts"]:
        host["affinity"] = "0"  # all on one core
    (found,) = account_all(make_entries([record]))
    assert "more threads than cores" in found.remarks[0]
    assert "slowed on purpose (1:0.5)" in found.remarks[1]
    simulated = [replace(case, simulated=True) for case in (make_case(1), make_case(2, 64, 0.2))]
    (found,) = account_all(entries_of(*simulated))
    assert "simulated" in found.remarks[0]


@pytest.mark.parametrize(("share", "said"), [(0.96, False), (0.7, True)])
def test_a_serial_run_that_was_not_given_its_cpu_is_no_clean_base(share, said):
    (found,) = account_all(entries_of(with_cpu(make_case(1), share), with_cpu(make_case(2, 64, 0.22))))
    assert any("serial run, too, was at work without a CPU for 29 %" in remark for remark in found.remarks) == said


def test_one_rank_invalid_cases_and_those_without_a_base_are_left_out():
    alone = make_case(1, 1, 0.1, method="picard", fold=4, seq=64)
    bad, other = make_case(2, valid=False), make_case(2, 64, hidden=96)
    assert account_all(entries_of(make_case(1), alone, bad, other)) == []


# --- tables, figure, page, terminal -----------------------------------------------------------------


def strategies():
    return [with_cpu(case, 1 - 0.01 * k) for k, case in enumerate(strategy_cases((2, 4)))]


def tables_of(*cases):
    entries = entries_of(*cases)
    return accounting_tables(account_all(entries), names(entries))


def percent(cell):
    return float(cell.removesuffix(" %"))


def test_there_is_a_table_a_strategy_led_by_the_serial_run_and_its_rows_add_up():
    tables = tables_of(*strategies())
    titles = [table.title.removeprefix("Serial against ") for table in tables]
    assert titles == ["data parallel", "layer pipeline", "time segments", "tensor split", "hybrid grids"]
    first = tables[0].columns.index("Useful")
    shares = slice(first, first + 1 + len(PART_NAMES))
    for table in tables:
        assert table.rows[0][:4] == ["1", "serial · numpy", "412 ms", "base"]
        assert all(len(row) == len(table.columns) for row in table.rows)
        for row in table.rows[1:]:
            assert sum(map(percent, row[shares])) == pytest.approx(100, abs=2)  # each rounded to three digits
            assert not any(cell.startswith("-0 ") or cell == "-0.0 %" for cell in row)
    assert sorted(int(row[0]) for table in tables for row in table.rows[1:]) == list(range(2, 15))


def test_what_replicas_exchange_has_a_table_of_its_own_where_it_is_no_sum_of_gradients():
    methods = ["allreduce_flat", "allreduce_bucketed", "local_sgd", "parameter_server_sync"]
    tables = tables_of(make_case(1), *(make_case(2, 64, 0.2, data_method=method) for method in methods))
    assert {table.title: len(table.rows) - 1 for table in tables} == {
        "Serial against data parallel": 2,
        "Serial against data parallel, local_sgd": 1,
        "Serial against data parallel, parameter_server_sync": 1,
    }


def test_each_problem_has_its_own_serial_run_in_the_table():
    cases = [make_case(n, batch, 0.4 * batch / 64 / n) for batch in (64, 128) for n in (1, 2)]
    (table,) = tables_of(*cases)
    assert [row[0] for row in table.rows] == ["1", "2", "3", "4"]
    assert [row[3] == "base" for row in table.rows] == [True, False, True, False]


def test_files_of_before_have_dashes_and_say_that_it_is_not_known():
    (table,) = tables_of(make_case(1), make_case(2, 64, 0.22))
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert {row[name] for name in ("CPU not given", "CPU a rank", "At most", "At work")} == {"—"}
    assert table.note == "No. 2: what CPU was not given is not known, and counts as extra work."


def drawn(*cases):
    with drawing_style():
        return [sheet.draw() for sheet in plan_accounts(entries_of(*cases))]


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_bar_is_all_of_the_ranks_time(share):
    cases = [make_case(1, 64, 0.4), *(make_case(n, 64, share * 0.4 / n * 1.2, seed=n) for n in (2, 4))]
    (drawing,) = drawn(*cases)
    (ax,) = drawing.figure.axes
    for row in range(2):
        bars = [bar for container in ax.containers for bar in container if round(bar.get_y() + 0.31) == row]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(100)
        ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
        assert all(before[1] == pytest.approx(after[0]) for before, after in pairwise(ends))
    found = account_all(entries_of(*cases))
    marks = [line.get_xdata()[0] for line in ax.lines]
    assert marks == pytest.approx([100 * a.useful for a in found])
    assert all(lost_text(a) in drawing.alt for a in found)


def test_a_serial_run_that_takes_far_longer_is_marked_at_the_edge():
    (drawing,) = drawn(make_case(1, 64, 4.0), make_case(2, 64, 0.2))
    (ax,) = drawing.figure.axes
    (mark,) = ax.lines
    assert (mark.get_xdata()[0], mark.get_marker()) == (FURTHEST, ">")
    assert mark.get_label() == "the serial run's time, beyond 150 %"


def test_the_page_has_the_section_where_something_ran_on_several_ranks():
    def section(*cases):
        found = {s.key: s for s in sections(analyse([make_record(cases)]), [])}
        return found.get("accounting")

    assert section(make_case(1)) is None
    assert section(*strategies()).title == "Where the time goes: serial against parallel"
    (terms,) = [block for block in section(*strategies()).blocks if isinstance(block, Terms)]
    columns = {
        name for block in section(*strategies()).blocks if isinstance(block, Table) for name in block.columns
    }  # fmt: skip
    assert {term for term, _ in terms.rows} <= columns | {"Statistic"}


def shown(*cases, verbose=True):
    out = io.StringIO()
    show([make_record(cases)], Console(file=out, width=400), verbose=verbose)
    return out.getvalue()


def test_show_says_it_when_asked():
    cases = [with_cpu(make_case(1, n=12)), with_cpu(make_case(2, 64, 0.22, n=12))]
    found = account_all(entries_of(*cases))
    text = shown(*cases)
    assert lost_text(found[0]) in text
    assert "CPU time a rank" in text
    assert "CPU not given is" not in text
    brief = shown(*cases, verbose=False)
    assert "of the ranks' time" not in brief
    assert "CPU time" not in brief
