from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from factory import make_case, make_record, many_cases, quick_cases, strategy_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_samples import ranked_case
from rich.console import Console

from hpcrnn.records.sparkline import ABOVE, BARS, sparkline
from hpcrnn.reporting.terminal.console import wrap
from hpcrnn.reporting.terminal.details import CASES_IN_FULL
from hpcrnn.reporting.terminal.show import show


def shown(records, width=80, *, terminal=False, encoding="utf-8", verbose=False):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    colors = {"color_system": "standard"} if terminal else {}
    show(records, Console(file=stream, width=width, force_terminal=terminal, **colors), verbose=verbose)
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("verbose", [False, True])
def test_every_line_fits(width, terminal, verbose):
    bad = make_case(2, 64, 0.33, backend="torch", hidden=512, valid=False)
    text = shown([make_record([*quick_cases(), bad])], width, terminal=terminal, verbose=verbose)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(len(line.rstrip()) <= width for line in plain.splitlines())
    assert ("\x1b" in text) == terminal
    # A case is one row, not wrapped.
    assert re.search(r"data 2 · numpy +VALID +32 +218 ms +217–221 ms +1\.89× +472", plain)
    assert re.search(r"data 2 · torch +INVALID +32 +\d+ ms +\S+ ms +— +—", plain)


def test_it_says_all_that_is_asked_for():
    text = shown([make_record(quick_cases())], 120)
    for part in (
        "results/quick.h5",
        "2025-11-20 15:42:11 UTC · hpcrnn 0.1.0 · git c63209c0f1e2",
        "node01 (2 ranks) · MPICH Version: 5.0.2",
        "$ mpirun -n 2 hpcrnn run --hidden 512 --workload stdlib",
        "lstm H512 L2 D512 · B64 T64 · float32 · stdlib · train",
        "base: serial · numpy, 1 rank, 412 ms",
        "forward 28, backward 30, weight gradient 22, allreduce 11, update 7, other 2",
        "loss 5.55 → 2.44 nats per byte",
        "1 outlier kept",
        "stopped: interval within 5 % of the median",
    ):
        assert part in text


def test_no_terminal_gets_no_box():
    assert not re.search("[─━│┃┌└├]", shown([make_record(quick_cases())]))


def test_an_invalid_case_says_why():
    text = " ".join(shown([make_record([make_case(valid=False)])]).split())
    assert "INVALID: gradient layer0.R is off by 3.0e-2 (relative), allowed is 2.0e-6" in text


def test_few_samples_missing_facts_and_no_cases():
    few = make_record([make_case(n=3)], environment={}, argv=(), complete=False)
    text = shown([few, make_record([], seed=1)])
    assert "n too small" in text
    assert "host not recorded · MPI library not recorded" in text
    assert "git commit not recorded" in text
    assert "incomplete: written before the run had come to its end" in text
    assert "no case was recorded" in text


def test_forty_cases_fit_too():
    lines = shown([make_record(many_cases())]).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert sum(" VALID " in line for line in lines) == 40


def test_a_terminal_without_unicode_gets_ascii():
    text = shown([make_record(quick_cases())], terminal=True, encoding="ascii")
    assert "data 2 | numpy" in text


def test_hostile_text_is_shown_as_it_is():
    case = replace(make_case(), stop_reason="[red]\x1b[2J:smile:")
    text = shown([make_record([case], source="[bold]x.h5", argv=("hpcrnn", "\x1b]0;title\x07[/]"))], terminal=True)
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    assert "[bold]x.h5" in text
    assert "[/]" in text
    assert ":smile:" in text


def test_a_command_line_is_never_wrapped():
    argv = ("hpcrnn", "run", *(f"--flag-{k}" for k in range(40)))
    assert f"$ {' '.join(argv)}" in shown([make_record([make_case()], argv=argv)])


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("width", [80, 100, 120])
def test_strategies_fit_and_are_broken_between_their_parts(width, terminal):
    text = shown([make_record(strategy_cases())], width, terminal=terminal)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(len(line.rstrip()) <= width for line in plain.splitlines())
    assert len(re.findall(r"\d+ ms +\d+–\d+ ms +(?:base|\d\.\d\d×)", plain)) == 14
    assert ("GFLOP/s" in plain) == (width >= 100)
    if width == 80:
        assert re.search(r"^pipeline 2 +VALID .*\n fill_drain M4 · numpy *$", plain, re.MULTILINE)
    else:
        assert re.search(r"^data 2 × pipeline 2 · 1f1b M4 · numpy +VALID", plain, re.MULTILINE)
    joined = " ".join(plain.split())
    assert "bubble 32 %, bound 27 %; at most 167 MiB a rank" in joined
    assert "wait recv 11" in joined


def rows_of(text):
    """The rows of the case table."""
    return [line for line in text.splitlines() if re.search(r" (VALID|INVALID) +\d+ ", line)]


@pytest.mark.parametrize(("width", "in_table"), [(60, False), (80, False), (120, True), (200, True)])
def test_the_steps_are_drawn_once_in_the_table_or_below_it(width, in_table):
    cases = [make_case(1, samples=[1, 1.2, 1.1, 1.3, 1.2, 9.0]), make_case(2, n=100)]
    text = shown([make_record(cases)], width)
    for case in cases:
        line = sparkline(case.step_s(), 24)
        assert text.count(line) == 1
        assert any(line in row for row in rows_of(text)) == in_table
    assert ABOVE in text
    assert ("1.00 s to 9.00 s" in " ".join(text.split())) == (not in_table)
    if in_table:
        starts = {re.search(f"[{BARS}{ABOVE}]", row).start() for row in rows_of(text)}
        assert len(starts) == 1


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_columns_stand_below_their_headings(width):
    text = shown([make_record(many_cases())], width)
    for heading in re.findall(r"^case .*$", text, re.MULTILINE):
        end = heading.index("median step") + len("median step")
        assert all(row[end - 1 : end + 1] == "s " for row in rows_of(text))


def test_ascii_has_a_sparkline_too():
    case = make_case(1, samples=[1, 1.2, 1.1, 1.3, 1.2, 9.0])
    text = shown([make_record([case])], encoding="ascii")
    assert f"steps {sparkline(case.step_s(), 24, ascii_only=True)} 1.00 s to 9.00 s" in text
    assert text.isascii()


def test_many_cases_are_brief_and_verbose_is_not():
    few, many = make_record(many_cases()[:CASES_IN_FULL]), make_record(many_cases())
    assert "share of the step" in shown([few])
    brief = shown([many])
    assert "share of the step" not in brief
    assert "hpcrnn show --verbose" in brief
    assert shown([many], verbose=True).count("share of the step") == 40


def test_what_is_loud_is_said_of_many_cases_too():
    cases = [*many_cases()[:20], make_case(2, valid=False), ranked_case(8, 40, {3: 1.3}, noise=0.01)]
    text = " ".join(shown([make_record(cases)]).split())
    assert "INVALID: gradient layer0.R is off" in text
    assert re.search(r"rank 3 on node01 is slow: 1\.3\d?× the others' busy time, beyond 5 % in 40 of 40 steps", text)


def test_samples_that_are_not_independent_are_said_to_be():
    drifting = [0.1 + 0.002 * k for k in range(30)]
    text = " ".join(shown([make_record([make_case(1, samples=drifting)])]).split())
    assert "samples drift: the second half is 26 % slower; the interval may be too narrow" in text
    assert "samples" not in shown([make_record(quick_cases())])


def test_verbose_says_tails_ranks_and_checks():
    case = ranked_case(4, 120, batch=5, per_row=True, noise=0.01)
    text = " ".join(shown([make_record([case, make_case(3, n=5)])], verbose=True).split())
    assert re.search(r"steps \S+ \d+ ms to \d+ ms; p90 \d+ ms \(\d+–\d+ ms\); p99 \d+ ms ", text)
    assert "p90 n too small; p99 n too small" in text
    assert re.search(r"busy \+ waiting: rank 0 \d+ ms \+ [\d.]+ ms, rank 1 ", text)
    assert "rank 0 on node01 has more work, not a slower pace" in text
    assert "stragglers were not looked for: n too small to tell 3 ranks apart" in text
    assert "3 of 3 checks passed; worst: gradient layer0.R, error 4.0e-7, allowed 2.0e-6, serial error 2.2e-7" in text


def test_of_many_ranks_verbose_names_three():
    text = " ".join(shown([make_record([ranked_case(64, 20, {37: 1.3, 5: 0.8})])], verbose=True).split())
    found = re.search(r"busy \+ waiting of the least, the middle and the most busy: (.*?) checked on", text)
    assert re.findall(r"rank (\d+) \d", found[1])[::2] == ["5", "37"]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(words=st.lists(st.sampled_from(["steps", "9.70 ms", "12 %", "of", "1.5 MiB", "loss"]), min_size=1, max_size=30))
def test_a_number_is_never_parted_from_its_unit(words):
    lines = wrap(" ".join(words), 20)
    assert " ".join(lines) == " ".join(words)
    assert all(len(line) <= 20 for line in lines)
    assert not any(re.match(r"(ms|%|MiB)\b|%", line) for line in lines)
