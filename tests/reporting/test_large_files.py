"""Large files: what a thousand cases cost grows with the cases, not with their square, and a report stays readable."""

from __future__ import annotations

import io
import sys
import tracemalloc

import pytest
from factory import make_case, make_record
from rich.console import Console

from hpcrnn.cli import main
from hpcrnn.records.hdf5 import read_record, read_stored, write_record
from hpcrnn.records.invariants import examine
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.comparison.compare import compare
from hpcrnn.reporting.export.export import export
from hpcrnn.reporting.figures.plan import MOST_FIGURES, choose, plan_all
from hpcrnn.reporting.report.sections import make_page
from hpcrnn.reporting.report.write import write_report
from hpcrnn.reporting.tables.peers import peer_table
from hpcrnn.reporting.terminal.comparison import show_comparison
from hpcrnn.reporting.terminal.show import show


def sweep(n_problems, seed=0):
    """Make a sweep of problems, each run serially and in five other ways."""
    ways = [(1, {}), (2, {}), (4, {}), (2, {"grid": {"pipeline": 2}}), (4, {"grid": {"pipeline": 4}})]
    ways.append((1, {"backend": "torch"}))
    cases = [
        make_case(n, 64, 0.4 / n, hidden=16 * (p + 1), n=6, n_warmup=1, bubble_bound=0.1, **how)
        for p in range(n_problems)
        for n, how in ways
    ]
    return make_record(cases, seed=seed)


def calls_of(action):
    """Count the calls of Python functions: the same on every machine, however busy it is."""
    count = 0

    def look(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def _show(path):
    show([read_record(path)], Console(file=io.StringIO(), width=100))


def _tables(path):
    analysis = analyse([read_record(path)])
    make_page(analysis, [])
    choose(plan_all(analysis), None)


def _compare(path):
    record = read_record(path)
    other = make_record(record.cases, seed=9)
    show_comparison(compare([record], [other]), Console(file=io.StringIO(), width=100))


COMMANDS = {
    "read": read_record,
    "show": _show,
    "tables of a report": _tables,
    "peers": lambda path: peer_table([read_record(path)]),
    "csv": lambda path: export([read_record(path)], "csv", summary=True),
    "json": lambda path: export([read_record(path)], "json"),
    "compare": _compare,
    "verify": lambda path: examine(read_stored(path)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files, the second of twice as many problems."""
    paths = [tmp_path_factory.mktemp("large") / f"{n}.h5" for n in (6, 12)]
    for path, n_problems in zip(paths, (6, 12), strict=True):
        write_record(sweep(n_problems), path)
    return paths


@pytest.mark.parametrize("command", COMMANDS)
def test_twice_the_cases_cost_twice_the_work(files, command):
    run = COMMANDS[command]
    run(files[0])  # imports and caches
    once, twice = (calls_of(lambda path=path: run(path)) for path in files)
    # Work that grew with the square would be four times as much.
    assert once < twice < 2.3 * once


def test_writing_twice_the_cases_costs_twice_the_work(tmp_path):
    small, large = (sweep(n) for n in (6, 12))
    write_record(small, tmp_path / "first.h5")
    once = calls_of(lambda: write_record(small, tmp_path / "small.h5"))
    assert calls_of(lambda: write_record(large, tmp_path / "large.h5")) < 2.3 * once


def test_a_file_is_never_in_memory_besides_its_arrays(tmp_path):
    path = tmp_path / "wide.h5"
    write_record(make_record([make_case(64, 64, 0.1, n=200, hidden=16 * k) for k in range(1, 9)]), path)
    read_record(path)
    tracemalloc.start()
    try:
        record = read_record(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    held = sum(case.time_s.nbytes + case.warmup_s.nbytes for case in record.cases)
    assert path.stat().st_size > 2**22
    assert peak < 1.5 * held


def test_a_report_of_many_cases_has_some_figures_of_each_kind_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcrnn.reporting.figures.canvas.PNG_DPI", 20)
    record = sweep(14)
    sheets = list(plan_all(analyse([record])))
    kinds = {sheet.kind for sheet in sheets}
    assert len(sheets) > MOST_FIGURES
    written = write_report([record], tmp_path)
    assert len([path for path in written if path.suffix == ".png"]) == len(kinds)
    for page in ("report.html", "report.md"):
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert f"{len(sheets) - len(kinds)} of {len(sheets)} were left out" in text
        assert "strategies 1 of 14" in text
        assert "Figure 1 of 14." in text
        assert "report --figures 14" in text.replace("\\", "")
        # Every case is there all the same.
        assert "H16 " in text
        assert "H224 " in text


def test_figures_are_chosen_by_kind():
    sheets = list(plan_all(analyse([sweep(14)])))
    chosen, cut = choose(sheets, 2)
    assert all(sum(s.kind == kind for s in chosen) == 2 < total for kind, total in cut.items())
    assert choose(sheets, 14) == (sheets, {})
    assert choose(sheets[:MOST_FIGURES], None) == (sheets[:MOST_FIGURES], {})


@pytest.mark.parametrize("number", ["0", "-3", "all", ""])
def test_a_number_of_figures_is_positive(number, capsys):
    assert main(["report", "results.h5", f"--figures={number}"]) == 1
    error = capsys.readouterr().err
    assert "--figures" in error
    assert "positive number" in error


def test_as_many_figures_of_each_kind_are_drawn_as_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcrnn.reporting.figures.canvas.PNG_DPI", 20)
    write_record(sweep(2), tmp_path / "two.h5")
    assert main(["report", str(tmp_path / "two.h5"), "-o", str(tmp_path / "report"), "--figures", "1"]) == 0
    assert "strategies 1 of 2" in (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert len(list((tmp_path / "report").glob("strategies*.png"))) == 1
