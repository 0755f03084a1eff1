"""The terminal view of a screening: a row a node, slowest first, and the nodes to look at last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcrnn.reporting.comparison.screening import Screened, Screening
from hpcrnn.reporting.describe import case_name, describe_problem, distinctions
from hpcrnn.reporting.terminal.console import print_rows, say
from hpcrnn.reporting.units import (
    MISSING,
    format_interval,
    format_percent,
    format_ratio,
    format_ratio_interval,
    format_seconds,
    plural,
    printable,
    shorten,
)

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"ok": "green", "fast": "yellow", "undecided": "yellow", "slow": "bold red", "wrong": "bold red"}
COLUMNS = [("node", True), ("n", False), ("median step", False), ("95 % interval", False), ("of the others", False)]
COLUMNS += [("interval", False), ("result", True)]
LONGEST_NODE = 24


def show_screening(screening: Screening, console: Console) -> None:
    """Print what was seen of the nodes."""
    groups: dict[str, list[Screened]] = {}
    for row in screening.rows:
        groups.setdefault(row.entry.case.id, []).append(row)
    firsts = [rows[0].entry.case for rows in groups.values()]
    for case, extra, rows in zip(firsts, distinctions(firsts), groups.values(), strict=True):
        say(console, " · ".join(filter(None, (describe_problem(case), case_name(case), extra))), style="bold")
        print_rows(console, COLUMNS, [(_cells(row), [*[""] * (len(COLUMNS) - 1), STYLES[row.result]]) for row in rows])
        for row in rows:
            if row.entry.exclusion:
                say(console, f"  {printable(row.node)}: {row.entry.exclusion}", style="red")
    allowed = f"{plural(len(screening.nodes), 'node')}, {format_percent(screening.tolerance)} allowed"
    found = {
        "computes wrong": screening.named("wrong"),
        "slow": screening.named("slow"),
        "cannot be told": screening.named("undecided"),
    }
    parts = [f"{text}: {', '.join(map(printable, nodes))}" for text, nodes in found.items() if nodes]
    style = "bold red" if screening.exit_code else "bold green"
    say(console, f"{allowed}; {'; '.join(parts) or 'none stands out'}", style=style)


def _cells(row: Screened) -> list[str]:
    step = row.entry.step
    ratio = (format_ratio(row.ratio.median), format_ratio_interval(row.ratio)) if row.ratio else (MISSING, MISSING)
    times = (format_seconds(step.median), format_interval(step)) if step.n else (MISSING, MISSING)
    result = row.result.upper() if row.result in ("slow", "wrong") else row.result
    return [shorten(printable(row.node), LONGEST_NODE), str(step.n), *times, *ratio, result]
