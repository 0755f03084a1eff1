"""The terminal view of a gate: a row a check, the reasons below, ``PASS`` or ``FAIL n of m`` last."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.comparison.gate import Check, Outcome
from hpcrnn.reporting.describe import case_name, distinctions, source_name
from hpcrnn.reporting.terminal.console import print_rows, say
from hpcrnn.reporting.units import (
    MISSING,
    TOO_FEW,
    format_interval,
    format_percent,
    format_percent_interval,
    format_ratio,
    format_ratio_interval,
    format_seconds,
    has_bounds,
    plural,
    printable,
    significant,
)

if TYPE_CHECKING:
    from rich.console import Console

OTHER_COLUMNS = 61
"""Characters that a row takes beside the case's name and the reference."""
REFERENCE_COLUMN = 11
WIDE = 96
"""Columns from which the reference stands beside the limit that follows from it."""
NAMES = {"step_s": "step", "gflops": "GFLOP/s"}
STYLES = {"pass": "green", "fail": "bold red", "undecided": "yellow"}


def show_outcome(outcome: Outcome, console: Console) -> None:
    """Print what a gate says.

    Parameters
    ----------
    outcome : Outcome
    console : rich.console.Console
    """
    if len(outcome.files) > 1:
        for number, file in enumerate(outcome.files, 1):
            say(console, f"{number}  {file}", style="bold")
        say(console, f"against {printable(outcome.reference)}", style="bold")
    else:
        say(console, f"{', '.join(outcome.files)} against {printable(outcome.reference)}", style="bold")
    for note in outcome.notes:
        _wrapped(console, f"  {note}", style="yellow")
    wide = console.width >= WIDE
    names = _names(outcome)
    room = max(12, console.width - OTHER_COLUMNS - (REFERENCE_COLUMN if wide else 0))
    headings = ["case", "metric", *(["reference"] if wide else []), "limit", "measured", "95 % interval", "result"]
    rows = [
        (_cells(check, name, room, wide=wide), [*[""] * (len(headings) - 1), STYLES[check.result]])
        for check, name in zip(outcome.checks, names, strict=True)
    ]
    print_rows(console, [(text, k in (0, 1, len(headings) - 1)) for k, text in enumerate(headings)], rows)
    for check, name in zip(outcome.checks, names, strict=True):
        if check.reason:
            _wrapped(console, f"  {name}: {check.reason}", style=STYLES[check.result])
    if undecided := outcome.undecided:
        held = "which fails under --strict" if outcome.strict else "which passes without --strict"
        say(console, f"{plural(len(undecided), 'check')} undecided: the samples do not tell, {held}")
    say(console, outcome.last_line, style="bold green" if outcome.passed else "bold red")


def _names(outcome: Outcome) -> list[str]:
    """Name the case of each check: as the reference does, as the file does, what sets it apart, which file."""
    entries = {check.entry.number: check.entry for check in outcome.checks if check.entry}
    extras = dict(zip(entries, distinctions([e.case for e in entries.values()]), strict=True))
    names = []
    for check in outcome.checks:
        parts = [check.name]
        if check.entry:
            parts += [case_name(check.entry.case), extras[check.entry.number]]
        if check.entry and len(outcome.files) > 1:
            parts.append(f"file {outcome.files.index(source_name(check.entry.record)) + 1}")
        names.append(" · ".join(dict.fromkeys(filter(None, parts))))
    return names


def _cells(check: Check, full_name: str, room: int, *, wide: bool) -> list[str]:
    name = "\n".join(textwrap.wrap(full_name, room, subsequent_indent=" ", break_on_hyphens=False))
    status = check.entry.case.verdict.status if check.entry and check.metric == "verdict" else MISSING
    reference, limit, measured, interval = MISSING, MISSING, printable(status), ""
    if check.limit is not None and check.better:
        sign = "≤" if check.better == "lower" else "≥"
        limit = f"{sign} {_value(check.metric, check.limit.bounds(check.better))}"
        reference = _value(check.metric, check.limit.reference) if check.limit.is_reference else MISSING
        measured = _value(check.metric, check.measured) if check.measured else MISSING
        interval = _bounds(check.metric, check.measured) if check.measured else ""
    result = check.result.upper() if check.result == "fail" else check.result
    metric = NAMES.get(check.metric, check.metric)
    return [name, metric, *([reference] if wide else []), limit, measured, interval, result]


def _value(metric: str, interval: Interval) -> str:
    if metric == "step_s":
        return format_seconds(interval.median)
    if metric == "gflops":
        return significant(interval.median)
    return format_percent(interval.median) if metric == "efficiency" else format_ratio(interval.median)


def _bounds(metric: str, interval: Interval) -> str:
    if metric == "gflops":
        known = has_bounds(interval)
        return f"{significant(interval.low)}–{significant(interval.high)}" if known else TOO_FEW
    write = {"step_s": format_interval, "efficiency": format_percent_interval}.get(metric, format_ratio_interval)
    return write(interval)


def _wrapped(console: Console, text: str, style: str = "") -> None:
    for line in textwrap.wrap(text, max(30, console.width), subsequent_indent="    ", break_on_hyphens=False):
        say(console, line, style=style)
