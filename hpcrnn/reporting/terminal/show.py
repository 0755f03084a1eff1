"""The terminal view: what ``hpcrnn show`` prints.

A terminal gets colour and a rule under the headings; a pipe or a batch log gets the same words in plain
columns.  The case table holds to 80 characters; what needs more room stands in lines of its own below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hpcrnn.records.record import Record
from hpcrnn.reporting.analysis.accounting import account_all
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.analysis.learning import rank_all
from hpcrnn.reporting.analysis.scaling import Base, SerialRuns, describe_base, make_point
from hpcrnn.reporting.describe import (
    case_names,
    command_line,
    cpu_text,
    describe_problem,
    git_text,
    host_names,
    hosts_text,
    mpi_text,
    section,
    shortfalls,
    source_name,
)
from hpcrnn.reporting.terminal.console import fit, plain_table, print_rows, say, wrap
from hpcrnn.reporting.terminal.details import CASES_IN_FULL, CELLS, Manner, details, steps_cell
from hpcrnn.reporting.units import (
    MISSING,
    format_gflops,
    format_interval,
    format_ratio,
    format_seconds,
    in_two,
    printable,
    shorten,
)

if TYPE_CHECKING:
    from rich.console import Console

OTHER_COLUMNS = 58
"""Characters that a row of the case table takes beside the case's name and the digits of n, the rate with it."""
RATE_COLUMN = 9
"""Of them the rate: the first to give way to long names."""


def show(records: Sequence[Record], console: Console, *, verbose: bool = False) -> None:
    """Print records as tables: one header a file, one table a problem.

    Parameters
    ----------
    records : sequence of Record
    console : rich.console.Console
        Where to; its width and whether it is a terminal decide the form.
    verbose : bool
        Say percentiles, what each rank was busy and where the ranks' time went, the checks, and of GPUs how long they
        took of each phase and how kernels are laid out.
    """
    entries = make_entries(records)
    serial = SerialRuns(entries)
    accounts = {account.entry.number: account for account in account_all(entries)} if verbose else {}
    ranked = rank_all(entries)
    problems: dict[int, dict[str, list[Entry]]] = {}
    for entry in entries:
        problems.setdefault(entry.file, {}).setdefault(entry.case.problem_id, []).append(entry)
    for file, record in enumerate(records, 1):
        if file > 1:
            console.print()
        _print_header(record, console)
        if file not in problems:
            say(console, "  no case was recorded")
        brief = len(record.cases) > CASES_IN_FULL and not verbose
        manner = Manner(verbose=verbose, brief=brief, accounts=accounts, ranked=ranked)
        for members in problems.get(file, {}).values():
            console.print()
            _print_problem(members, serial, console, manner)
        if brief:
            say(console, "\n  phases, losses and more of each case: hpcrnn show --verbose", style="dim")


def show_runs(records: Sequence[Record], console: Console) -> None:
    """Print one row a run: when, where and from which commit it was measured."""
    columns = (("file", True), ("run", True), ("measured, UTC", True), ("host", True), ("git", True), ("cases", False))
    rest = [
        (
            printable(record.uuid)[:8],
            printable(record.created_utc).replace("T", " ")[:16],
            shorten(next(iter(host_names(record)), MISSING), 16),
            printable(section(record, "git").get("commit") or MISSING)[:7],
            f"{len(record.cases)}",
        )
        for record in records
    ]
    widths = [max(map(len, cells)) for cells in zip([name for name, _ in columns[1:]], *rest, strict=True)]
    room = max(12, console.width - sum(widths) - 2 * len(widths))
    rows = [
        (shorten(printable(record.origin) or source_name(record), room), *cells)
        for record, cells in zip(records, rest, strict=True)
    ]
    print_rows(console, columns, [(row, [""] * len(row)) for row in rows])


def _print_header(record: Record, console: Console) -> None:
    say(console, source_name(record), style="bold")
    if record.origin:
        say(console, f"  run {printable(record.uuid)}")
    created = f"{printable(record.created_utc).replace('T', ' ')[:19]} UTC"
    say(console, f"  {created} · hpcrnn {printable(record.hpcrnn_version)} · {git_text(record)}")
    say(console, f"  {hosts_text(record)} · {mpi_text(record)}")
    if cpu := cpu_text(record):
        say(console, f"  {cpu}")
    if command := command_line(record):
        # On one line, however long: it is there to be copied.
        say(console, f"  $ {command}", style="dim", wrap=False)
    if not record.complete:
        say(console, "  incomplete: written before the run had come to its end", style="yellow")


def _print_problem(entries: Sequence[Entry], serial: SerialRuns, console: Console, manner: Manner) -> None:
    from rich.text import Text

    say(console, describe_problem(entries[0].case), style="bold")
    table = plain_table(console)
    table.add_column("case", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    names = case_names([entry.case for entry in entries])
    room = console.width - OTHER_COLUMNS - max(len(str(entry.step.n)) for entry in entries)
    room -= max(len(entry.case.verdict.status) for entry in entries) - len("INVALID")
    longest = max(map(len, names))
    rated, drawn = longest <= room, longest <= room - CELLS - 2
    room += 0 if rated else RATE_COLUMN
    for heading in ("n", "median step", "95 % interval", "speedup", *(["GFLOP/s"] if rated else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    if drawn:
        table.add_column("steps", no_wrap=True)
    bases: dict[str, Base] = {}
    for entry, name in zip(entries, names, strict=True):
        cells = _cells(entry, "\n ".join(in_two(name, room)), serial, bases)
        cells = [*(cells if rated else cells[:-1]), *([steps_cell(entry, console)] if drawn else [])]
        styles = ("", _verdict_style(entry), *[""] * (len(cells) - 2))
        table.add_row(*(Text(fit(c, console), style=s) for c, s in zip(cells, styles, strict=True)))
    console.print(table)
    for text in bases:
        say(console, f"  base: {text}")
    _print_details(console, names, entries, replace(manner, steps=not drawn))


def _verdict_style(entry: Entry) -> str:
    """Return the colour of a verdict: nothing less than the chain's own numbers is green."""
    if not entry.included:
        return "bold red"
    return "bold yellow" if shortfalls(entry.case) else "green"


def _cells(entry: Entry, name: str, serial: SerialRuns, bases: dict[str, Base]) -> list[str]:
    """Return the row of a case, and add its base to those named below the table."""
    speedup, rate = MISSING, MISSING
    if entry.included:
        rate = format_gflops(entry.case.flops, entry.step.median)
        base = serial.base_of(entry)
        if base is not None:
            bases.setdefault(describe_base(base), base)
            ratio = make_point(entry, base).speedup
            itself = base.entry.number == entry.number
            speedup = "base" if itself else format_ratio(ratio.median) if ratio else MISSING
    status = printable(entry.case.verdict.status)
    times = [str(entry.step.n), format_seconds(entry.step.median), format_interval(entry.step)]
    return [name, status, *times, speedup, rate]


def _print_details(console: Console, names: Sequence[str], entries: Sequence[Entry], manner: Manner) -> None:
    """Print the details beside their cases' names; on a narrow terminal, below them."""
    width = max(map(len, names))
    beside = width <= console.width // 3
    indent = 2 + (width + 2 if beside else 2)
    for entry, name in zip(entries, names, strict=True):
        lines = [
            (piece, style)
            for line, style in details(entry, console, manner)
            for piece in wrap(line, max(20, console.width - indent))
        ]
        if beside:
            lines = [(f"  {name if k == 0 else '':{width}}  {line}", style) for k, (line, style) in enumerate(lines)]
        elif lines:
            lines = [(f"  {name}", ""), *((" " * indent + line, style) for line, style in lines)]
        for line, style in lines:
            say(console, line, style=style)
