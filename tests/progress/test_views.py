"""What is drawn and written: every width, cases without an interval yet, only ASCII; and when it is."""

import sys
import threading
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pseudo_terminal import COLOURS, ESCAPE, MOVES, as_stderr

from hpcrnn.benchmarks.progress.estimates import State, TimeLeft
from hpcrnn.benchmarks.progress.items import Items
from hpcrnn.benchmarks.progress.measuring import CaseProgress, Progress, run_line, run_view
from hpcrnn.benchmarks.progress.screen import Screen
from hpcrnn.execution.measurement import Samples
from hpcrnn.spec import MeasureSpec

CASES = (
    CaseProgress("numpy serial", 14, 0.39251, 0.071, 0.5, (0.39, 0.4, 0.39, 0.41, 0.39, 0.9)),
    CaseProgress("numpy data=2", 14, 0.22812, 0.049, 1.0, (0.22, 0.23, 0.22, 0.24, 0.22, 0.23)),
)
LEFT = TimeLeft(31.0)


def texts(lines):
    return ["".join(text for text, _ in line) for line in lines]


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_run_at_80_columns():
    assert texts(run_view(CASES, LEFT, 12.3, 0.05, 80, in_ascii=False)) == [
        "measuring · step 14 · 12 s · about 31 s left",
        "               median  width  towards 5.0 %             last steps",
        "numpy serial   393 ms  7.1 %  ━━━━━━━━━━━━────────────  ▁▃▁▅▁▲",
        "numpy data=2   228 ms  4.9 %  ━━━━━━━━━━━━━━━━━━━━━━━━  ▁▄▁█▁▄",
    ]


def test_a_run_in_ascii_at_60_columns():
    lines = texts(run_view(CASES, LEFT, 12.3, 0.05, 60, in_ascii=True))
    assert all(line.isascii() for line in lines)
    assert lines[0] == "measuring - step 14 - 12 s - about 31 s left"
    assert lines[2].rstrip() == "numpy serial   393 ms  7.1 %  #######........  _._=_^"


def test_columns_go_where_there_is_no_room():
    lines = texts(run_view(CASES, LEFT, 12.3, 0.05, 30, in_ascii=False))
    assert [line.rstrip() for line in lines] == [
        "measuring · step 14 · 12 s · …",
        "             median  width",
        "numpy ser…   393 ms  7.1 %",
        "numpy dat…   228 ms  4.9 %",
    ]


@given(
    st.integers(20, 200),
    st.booleans(),
    st.lists(
        st.builds(
            CaseProgress,
            name=st.text("ab=,· ", min_size=1, max_size=60),
            n=st.integers(1, 10_000),
            median_s=st.floats(1e-9, 1e5),
            width=st.floats(0, 1e3) | st.just(nan),
            share=st.floats(0, 2) | st.just(nan),
            last_s=st.lists(st.floats(1e-9, 1e5), min_size=1, max_size=40).map(tuple),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_no_line_of_a_run_is_too_long(columns, in_ascii, cases):
    lines = texts(run_view(cases, LEFT, 12.3, 0.05, columns, in_ascii=in_ascii))
    assert len(lines) == len(cases) + 2
    assert all(len(line) <= columns for line in lines)
    assert "\n" not in run_line(cases, LEFT, 12.3, 0.05)


def test_a_plain_line_says_everything():
    assert run_line(CASES, LEFT, 12.3, 0.05) == (
        "step 14, 12 s so far, about 31 s left: numpy serial 393 ms (7.1 %), numpy data=2 228 ms (4.9 %); "
        "intervals of 5.0 % wanted"
    )


def measured(n, seed=0):
    rng = np.random.default_rng(seed)
    return Samples(time_s=[0.1 + 0.01 * rng.random((2, 3)) for _ in range(n)])


def test_plain_lines_are_few_and_whole(capsys):
    clock = Clock()
    progress = Progress(enabled=True, screen=Screen(enabled=True, clock=clock))
    limits = MeasureSpec(max_time=5000.0, warmup=2)
    with progress:
        progress.say("warning: uneven")
        begin = progress.verifying(["numpy serial", "numpy data=2"])
        begin("numpy serial")
        watch = progress.watcher(["numpy serial", "numpy data=2"], limits)
        for step in range(5000):
            clock.now = float(step)
            watch(step - limits.warmup, clock.now, [measured(min(step, 20)), measured(min(step, 20), seed=1)])
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[:2] == ["hpcrnn: warning: uneven", "hpcrnn: verifying numpy serial, numpy data=2"]
    assert all(" so far, " in line and " left" in line for line in lines[2:])
    assert 20 < len(lines) < 60
    assert not ESCAPE.search(err)
    assert "\r" not in err


def test_other_ranks_say_nothing(capsys):
    with Progress(enabled=False) as progress:
        progress.say("warning")
        progress.verifying(["a"])("a")
        progress.watcher(["a"], MeasureSpec())(0, 100.0, [measured(3)])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_is_drawn_over_without_a_thread(monkeypatch, columns):
    clock = Clock()
    before = threading.active_count()
    with as_stderr(columns, monkeypatch) as written:
        with Progress(enabled=True, screen=Screen(enabled=True, clock=clock)) as progress:
            progress.verifying(["numpy serial"])("numpy serial")
            watch = progress.watcher(["numpy serial"], MeasureSpec())
            written()
            drawn = 0
            for step in range(100):
                clock.now += 0.125
                watch(step, clock.now, [measured(step + 1)])
                drawn += "numpy serial" in (last := written())
                assert threading.active_count() == before
                assert all(len(ESCAPE.sub("", line)) <= columns for line in last.splitlines())
            progress.say("warning: stays")
        end = written()
    assert drawn == 25  # twice a second
    assert MOVES.search(last + end)
    assert "warning: stays" in end


def test_the_cursor_stays_in_sight_while_steps_are_timed(monkeypatch):
    with as_stderr(80, monkeypatch) as written, Progress(enabled=True):
        text = written()
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_draw_gets_plain_lines(monkeypatch, term):
    with as_stderr(80, monkeypatch, term) as written:
        with Progress(enabled=True) as progress:
            progress.verifying(["numpy serial"])
        assert written() == "hpcrnn: verifying numpy serial\r\n"  # the terminal's own line end


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_has_no_colours(monkeypatch, no_color, coloured):
    clock = Clock()
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("COLORTERM", "truecolor")
    with (
        as_stderr(80, monkeypatch) as written,
        Progress(enabled=True, screen=Screen(enabled=True, clock=clock)) as progress,
    ):
        watch = progress.watcher(["a"], MeasureSpec())
        clock.now = 5.0
        watch(30, 5.0, [measured(30)])
        text = written()
    assert "last steps" in text
    assert bool(COLOURS.search(text)) == coloured


def test_a_terminal_that_goes_away_ends_nothing(monkeypatch):
    clock = Clock()
    with as_stderr(80, monkeypatch) as written:
        with Progress(enabled=True, screen=Screen(enabled=True, clock=clock)) as progress:
            watch = progress.watcher(["a"], MeasureSpec())
            assert "warming up" in written()
            sys.stderr.close()
            clock.now = 5.0
            watch(30, 5.0, [measured(30)])
            progress.say("warning")
        assert written() == ""


# --- lists of work ----------------------------------------------------------------------------------


def test_points_on_a_terminal(monkeypatch):
    clock = Clock()
    with as_stderr(80, monkeypatch) as written:
        kinds = ["on 1 rank", "on 1 rank", "on 2 ranks", "on 2 ranks", "on 2 ranks"]
        with Items("sweep quick", kinds, "point", has_lines=True, screen=Screen(enabled=True, clock=clock)) as items:
            assert items.is_live
            items.end(State.DONE_BEFORE, 0)
            items.begin(1, "first")
            clock.now = 20.0
            items.note("step 3 of something long " + "x" * 100)
            assert items.end(State.DONE) == 20.0
            items.begin(2, "second")
            clock.now = 30.0
            assert items.end(State.FAILED) == 10.0
            items.begin(3, "third")
            text = ESCAPE.sub("", written())
    assert "[2/5] first · since " in text
    assert "step 3 of something long" in text
    final = text[text.rindex("sweep quick") :].split("\r\n")
    assert final[0] == "sweep quick · 1 done · 1 done before · 1 failed · 2 to go"
    assert final[1] == "━" * 36 + "─" * 24
    assert final[2] == "30 s so far, about 40 s left, by the one point done, none on 2 ranks"
    assert final[3].startswith("[4/5] third · since ")


@given(
    st.lists(st.sampled_from(State), max_size=30),
    st.integers(20, 130),
    st.booleans(),
    st.text("ab·", max_size=200),
)
def test_no_line_of_points_is_too_long(states, columns, in_ascii, note):
    items = Items("sweep quick", ["on 2 ranks"] * len(states), "point", screen=Screen(enabled=False))
    for index, state in enumerate(states):
        items.begin(index, "lstm-H256-B64-n2-d88ff92c")
        items.note(note)
        lines = texts(items._view(columns, in_ascii))
        assert all(len(line) <= columns for line in lines)
        if state is not State.TO_GO:
            items.end(state)
    bar = texts(items._view(60, in_ascii))[1]
    assert len(bar) == 60
    empty = "." if in_ascii else "─"
    assert (empty in bar) == (State.TO_GO in states or not states)


def test_work_without_lines_of_its_own_is_told_now_and_then(capsys):
    clock = Clock()
    with Items("rows", ["of speedup"] * 100, "row", screen=Screen(enabled=True, clock=clock)) as items:
        for index in range(100):
            items.begin(index, f"row {index}")
            clock.now += 2.0
            items.end(State.DONE)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "hpcrnn: rows: 5 of 100 rows, 10 s so far, about 3 min 10 s left, by the 5 rows done"
    assert 5 < len(lines) < 20


def test_items_that_are_made_one_by_one(capsys):
    clock = Clock()

    def made(n):
        for k in range(n):
            clock.now += 6.0
            yield k

    with Items("study", ["of a", "of a", "of b", "of b"], "row", screen=Screen(enabled=True, clock=clock)) as items:
        assert list(items.each(made(2), "a")) == [0, 1]
        assert list(items.each(made(3), "b")) == [0, 1, 2]  # one more than was thought ends nothing
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "hpcrnn: study: 2 of 4 rows, 12 s so far, about 12 s left, by the 2 rows done, none of b"
    assert lines[-1] == "hpcrnn: study: 4 of 4 rows, 30 s so far"


def test_a_limit_of_time_is_said(capsys):
    clock = Clock()
    with Items("layers", [""] * 10, "case", most_s=30.0, screen=Screen(enabled=True, clock=clock)) as items:
        items.begin(0, "lstm")
        clock.now = 20.0
        items.end(State.DONE)
        items.result("a result\n")
    out, err = capsys.readouterr()
    assert out == "a result\n"
    assert err == "hpcrnn: layers: 1 of 10 cases, 20 s so far, about 10 s left, then no case begins any more\n"


def test_results_stand_above_the_view(monkeypatch, capsys):
    with as_stderr(80, monkeypatch) as written, Items("layers", [""] * 2, "case") as items:
        written()
        items.result("a result\n")
        before, after = written(), capsys.readouterr().out
    assert after == "a result\n"
    # The view was taken away, and drawn again.
    assert MOVES.search(before)
    assert "2 to go" in before
