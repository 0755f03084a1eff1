"""The terminal view of a comparison: what ``hpcrnn compare`` prints.

A table a pair: the step, then every phase.  On a narrow terminal the intervals stand below the medians.
"""

from __future__ import annotations

import sys
import textwrap
from math import isinf, isnan
from typing import TYPE_CHECKING

from hpcrnn.records.record import STEP, Record
from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.comparison.compare import RATE, TO_TARGET, Comparison, Metric, Pair
from hpcrnn.reporting.comparison.matching import KERNEL, value_text
from hpcrnn.reporting.describe import case_name, describe_problem, git_text, source_name
from hpcrnn.reporting.tables.learning import ends_text, format_steps, ratio_ends_text
from hpcrnn.reporting.terminal.console import print_rows, say
from hpcrnn.reporting.units import (
    GIGA,
    MISSING,
    TOO_FEW,
    format_interval,
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

WIDE = 104
"""Columns from which each interval has a column of its own."""
SHOWN = 40
"""Runs, pairs and lone cases that are shown unless all are asked for."""
STYLES = {"faster": "green", "slower": "bold red", "undecided": "yellow"}


def show_comparison(comparison: Comparison, console: Console, *, every: bool = False) -> None:
    """Print a comparison.

    Parameters
    ----------
    comparison : Comparison
    console : rich.console.Console
        Its width decides where intervals stand.
    every : bool
        Show all there is; else the first :data:`SHOWN` runs, pairs and cases without a partner.
    """
    most = sys.maxsize if every else SHOWN
    for side, records in (("A", comparison.a), ("B", comparison.b)):
        for record in records[:most]:
            _print_record(side, record, console)
        _print_rest("run", len(records) - most, console)
    for difference in comparison.environment:
        a, b = (value_text(printable(value)) for value in (difference.a, difference.b))
        _hang(console, f"  differs: {difference.key}: ", f"{a} | {b}")
    for pair in comparison.pairs[:most]:
        console.print()
        _print_pair(pair, console)
    _print_rest("pair", len(comparison.pairs) - most, console)
    if comparison.lone:
        console.print()
        say(console, "compared with nothing", style="bold")
        for lone in comparison.lone[:most]:
            _hang(console, f"  {lone.side}: ", f"{case_name(lone.entry.case)}: {lone.reason}")
        _print_rest("case", len(comparison.lone) - most, console)
    console.print()
    _hang(console, "", "Times: lower is better; a B / A below 1 means that B is faster. " + _caution(comparison))


def _print_rest(what: str, count: int, console: Console) -> None:
    """Say how many are not shown, and how to get them."""
    if count > 0:
        _hang(console, "", f"{plural(count, f'more {what}')} not shown: --all shows, --json gives all", style="yellow")


def _caution(comparison: Comparison) -> str:
    text = (
        "Phases: mean over ranks; those that take no time in either are left out. Decided only where the whole "
        "interval of the ratio (both medians' 95\xa0% intervals: at least 90\xa0%) lies on one side of 1."
    )
    if any(m.name in TO_TARGET for pair in comparison.pairs for m in pair.metrics):
        text = f"To a target: medians over n seeds; it takes four of each to decide. {text}"
    if any(m.name == RATE for pair in comparison.pairs for m in pair.metrics):
        text = f"Rates: higher is better. {text}"
    return text if comparison.same_run else f"{text} What changes from run to run is not in it."


def _print_record(side: str, record: Record, console: Console) -> None:
    say(console, f"{side}  {source_name(record)}", style="bold")
    created = f"{printable(record.created_utc).replace('T', ' ')[:19]} UTC"
    say(console, f"   {created} · hpcrnn {printable(record.hpcrnn_version)} · {git_text(record)}")
    if not record.complete:
        say(console, "   incomplete: written before the run had come to its end", style="yellow")


def _print_pair(pair: Pair, console: Console) -> None:
    a, b = pair.match.a.case, pair.match.b.case
    names = [case_name(a), *([case_name(b)] if case_name(a) != case_name(b) else [])]
    say(console, " | ".join([describe_problem(a), *([describe_problem(b)] if pair.loud else [])]), style="bold")
    say(console, " | ".join(names), style="bold")
    for difference in pair.loud:
        _hang(console, "  NOT THE SAME PROBLEM: ", difference.text, style="bold red")
    for difference in pair.match.differences:
        if difference not in pair.loud:
            plain = "kernel" if difference.key == KERNEL else printable(difference.key)
            _hang(console, f"  differs: {plain}: ", f"{value_text(difference.a)} | {value_text(difference.b)}")
    if pair.reason:
        _hang(console, "  not compared: ", pair.reason, style="red")
        return
    _print_metrics(pair, console)
    for side, text in pair.cautions.items():
        _hang(console, f"  {side}: ", text, style="yellow")


def _print_metrics(pair: Pair, console: Console) -> None:
    a, b = pair.match.a.step.n, pair.match.b.step.n
    wide = console.width >= WIDE
    if wide:
        headings = ["", f"A, n={a}", "95 % interval", f"B, n={b}", "95 % interval", "B / A", "interval", "B is"]
    else:
        headings = ["", f"A, n={a}", f"B, n={b}", "B / A", "B is"]
    last = len(headings) - 1
    rows = []
    for metric in pair.metrics:
        if metric.a.high == metric.b.high == 0.0 and metric.name not in TO_TARGET:
            continue  # a phase that neither has
        cells = _cells(metric, wide=wide)
        rows.append((cells, ["bold" if metric.name == STEP else "", *[""] * (last - 1), STYLES[metric.finding]]))
    print_rows(console, [(text, k in (0, last)) for k, text in enumerate(headings)], rows)


def _cells(metric: Metric, *, wide: bool) -> list[str]:
    name = "GFLOP/s" if metric.name == RATE else metric.name.replace("_", " ")
    if metric.name in TO_TARGET and metric.unit == "s":
        name += f", n={'|'.join(dict.fromkeys((str(metric.a.n), str(metric.b.n))))}"
    pairs = [(_value(metric, i), _bounds(metric, i)) for i in (metric.a, metric.b)]
    pairs.append((format_ratio(metric.ratio.median), _ratio_bounds(metric)))
    numbers = [text for pair in pairs for text in pair] if wide else ["\n".join(filter(None, pair)) for pair in pairs]
    silent = isnan(metric.ratio.median) and metric.finding == "undecided"
    return [name, *numbers, MISSING if silent else metric.finding]


def _value(metric: Metric, interval: Interval) -> str:
    if isinf(interval.median):
        return "not reached"
    if metric.unit == "steps":
        return format_steps(interval.median)
    return significant(interval.median / GIGA) if metric.name == RATE else format_seconds(interval.median)


def _bounds(metric: Metric, interval: Interval) -> str:
    if interval.n == 0:
        return ""
    if metric.name in TO_TARGET:
        return ends_text(interval, format_steps if metric.unit == "steps" else format_seconds)
    if metric.name != RATE or not has_bounds(interval):
        return format_interval(interval)
    return f"{significant(interval.low / GIGA)}–{significant(interval.high / GIGA)}"


def _ratio_bounds(metric: Metric) -> str:
    if metric.name in TO_TARGET:
        return ratio_ends_text(metric.ratio)
    if isnan(metric.ratio.median):
        return ""
    return TOO_FEW if metric.n_too_small else format_ratio_interval(metric.ratio)


def _hang(console: Console, lead: str, text: str, style: str = "") -> None:
    """Print a line, its continuations indented below the text."""
    indent = " " * min(len(lead), 12)
    width = max(30, console.width)
    for line in textwrap.wrap(lead + text, width, subsequent_indent=indent, break_on_hyphens=False) or [lead]:
        say(console, line, style=style)
