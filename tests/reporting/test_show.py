from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from factory import make_case, make_record, many_cases, quick_cases, strategy_cases
from rich.console import Console

from hpcrnn.reporting.terminal.show import show


def shown(records, width=80, *, terminal=False, encoding="utf-8"):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    colors = {"color_system": "standard"} if terminal else {}
    show(records, Console(file=stream, width=width, force_terminal=terminal, **colors))
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("terminal", [False, True])
def test_every_line_fits(width, terminal):
    bad = make_case(2, 64, 0.33, backend="torch", hidden=512, valid=False)
    text = shown([make_record([*quick_cases(), bad])], width, terminal=terminal)
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
    assert "incomplete: written while cases were still to come" in text
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
