"""Cases on GPUs: layouts of kernels, time on the device, and whose memory is whose."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from factory import gpu_cases, make_case, make_record, on_device, quick_cases, strategy_cases
from rich.console import Console

from hpcrnn.reporting.analysis.contest import contests
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.strategies import draw_memory
from hpcrnn.reporting.report.write import write_report
from hpcrnn.reporting.tables.cases import names, result_table
from hpcrnn.reporting.tables.devices import device_line, device_table, held_text, kernel_table, layout_lines, layouts
from hpcrnn.reporting.tables.splits import contest_table
from hpcrnn.reporting.terminal.show import show

GPU = {"backend": "cupy"}


@pytest.fixture(scope="module")
def entries():
    return make_entries([make_record(gpu_cases())])


def timed(host_s, device_s, n_ranks=2):
    """A case whose forward phase takes these seconds on each rank by each clock, the same in all repetitions."""
    case = make_case(n_ranks, samples=[4.0] * 8, **GPU)
    at, device = case.phases.index("forward"), np.full(case.time_s.shape, np.nan)
    case.time_s[:, :, at], device[:, :, at] = host_s, device_s
    return replace(case, device_time_s=device)


# --- layouts ----------------------------------------------------------------------------------------


def test_a_layout_is_said_once_for_all_ranks_that_have_it():
    case = on_device(make_case(4, **GPU), layouts=("a", "b\x1b", "a", "a"))
    assert layouts(case) == [("0, 2–3", "a"), ("1", "b")]
    assert layout_lines(case) == ["kernel on rank 0, 2–3: a", "kernel on rank 1: b"]
    assert layout_lines(on_device(case, layouts=("a",) * 4)) == ["kernel: a"]
    assert layout_lines(on_device(case, layouts=("a", "", "a", ""))) == ["kernel on rank 0, 2: a"]
    assert layout_lines(make_case(4)) == []


def test_one_curve_joins_cases_whose_kernels_are_laid_out_in_different_ways(entries):
    analysis = analyse([make_record(gpu_cases())])
    data = next(series for series in analysis.strong if series.strategy == "data" and series.backend == "cupy")
    assert [p.n_ranks for p in data.points] == [1, 2, 4]
    assert len({p.entry.case.kernel_details[0] for p in data.points}) == 3


def test_the_table_of_kernels(entries):
    table = kernel_table(entries)
    assert [row[:3] for row in table.rows] == [
        ["2", "cupy bfloat16 persistent", "0"],
        ["3", "cupy bfloat16 persistent", "0–1"],
        ["4", "cupy bfloat16 persistent", "0–3"],
        ["5", "cupy bfloat16 persistent", "0"],
        ["5", "cupy bfloat16 persistent", "1"],
    ]
    assert table.rows[-1][3] == "NVIDIA H200; stepwise forward (too wide)"
    twice = make_entries([make_record([gpu_cases()[1]] * 2)])
    assert [row[0] for row in kernel_table(twice).rows] == ["1–2"]
    assert kernel_table(make_entries([make_record(quick_cases())])) is None


# --- time on the device -----------------------------------------------------------------------------


def test_time_on_the_gpu_by_hand():
    (entry,) = make_entries([make_record([timed([1.0, 3.0], [0.5, 1.0])])])
    table = device_table([entry])
    assert table.columns == ["No.", "Case", "forward", "together", "not on the GPU", "of the step"]
    step = entry.case.time_s[:, :, 0].mean(axis=1)
    of_the_step = f"{100 * 0.75 / np.median(step):.0f} %"
    assert table.rows[0][2:] == ["750 ms (38 %)", "750 ms (38 %)", "1.25 s", of_the_step]
    assert device_line(entry.case) == "on the GPU in % of the phase: forward 38"


def test_a_rank_that_measured_nothing_beside_others_had_nothing_to_do():
    (entry,) = make_entries([make_record([timed([0.0, 3.0], [np.nan, 1.0])])])
    assert device_table([entry]).rows[0][2] == "500 ms (33 %)"


def test_phases_that_only_some_cases_measured(entries):
    table = device_table([*entries, *make_entries([make_record([timed(1.0, 0.5)])])])
    assert [row[0] for row in table.rows] == ["2", "3", "4", "5", "1"]
    assert table.rows[0][2] == "8.63 ms (80 %)"
    assert table.rows[-1][3:6] == ["—", "—", "—"]
    assert all(len(row) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize("nothing", [timed(1.0, np.nan), timed(0.0, 0.0), make_case()])
def test_nothing_measured_and_no_time_spent_is_no_table(nothing):
    assert device_table(make_entries([make_record([nothing])])) is None
    assert device_line(nothing) == ""


# --- memory -----------------------------------------------------------------------------------------


def test_memory_of_host_and_gpu_are_told_apart(entries):
    table = result_table(entries)
    columns = [table.columns.index(name) for name in ("Peak memory, host", "GPU pool")]
    assert [[row[k] for k in columns] for row in table.rows] == [
        ["512 MiB", "—"],
        *[["512 MiB", "1.50 GiB"]] * 3,
        ["512 MiB", "900 MiB"],
    ]
    assert "GPU pool: " in table.note
    on_host = result_table(make_entries([make_record(quick_cases())]))
    assert "Peak memory" in on_host.columns
    assert "GPU" not in " ".join([*on_host.columns, on_host.note])
    assert all(len(row) == len(one.columns) for one in (table, on_host) for row in one.rows)


def test_memory_in_words():
    on_gpu, serial = on_device(make_case(2, **GPU)), on_device(make_case(1, **GPU))
    assert held_text(on_gpu) == "at most 256 MiB a rank on the GPU; GPU memory pool of all cases 1.50 GiB"
    assert held_text(serial) == "256 MiB on the GPU; GPU memory pool of all cases 1.50 GiB"
    assert held_text(make_case(2)) == "at most 256 MiB a rank"
    assert held_text(replace(make_case(2), memory_bytes=np.zeros(2, dtype=np.int64))) == ""


@pytest.mark.parametrize(("cases", "says"), [(gpu_cases(), True), (strategy_cases((2,)), False)])
def test_tables_and_figures_of_strategies_say_where_the_memory_is(cases, says):
    analysis = analyse([make_record(cases)])
    (contest,) = contests(analysis.included)
    with drawing_style():
        drawing = draw_memory("memory", contest)
    assert ("on its GPU where it has one" in drawing.caption) == says
    assert ("on its GPU where it has one" in contest_table(contest, names(analysis.entries)).note) == says


# --- pages ------------------------------------------------------------------------------------------


def test_the_report_holds_it_and_reports_without_gpus_do_not(tmp_path):
    for folder, cases, there in (("gpu", gpu_cases()[1:3], True), ("host", quick_cases()[:1], False)):
        write_report([make_record(cases)], tmp_path / folder)
        for name in ("report.html", "report.md"):
            text = (tmp_path / folder / name).read_text("utf-8")
            for part in ("How kernels are laid out", "Phases on the GPU", "Peak memory, host"):
                assert (part in text) == there


@pytest.mark.parametrize("verbose", [True, False])
def test_the_terminal_says_it_when_asked(verbose):
    stream = io.StringIO()
    show([make_record(gpu_cases())], Console(file=stream, width=80), verbose=verbose)
    lines = stream.getvalue().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "256 MiB on the GPU; GPU memory pool of all cases 1.50 GiB" in text
    assert ("on the GPU in % of the phase: forward 80, backward 80, weight gradient 80, update 80" in text) == verbose
    assert ("kernel on rank 1: NVIDIA H200; stepwise forward (too wide)" in text) == verbose
