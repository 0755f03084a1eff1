"""The strategy map in words: a row a cell, and the sentences that the picture and the table share."""

from __future__ import annotations

from collections.abc import Sequence

from hpcrnn.records.split import CHAIN
from hpcrnn.reporting.analysis.strategy_map import HOSTS, QUANTITIES, RANKS, SERIAL, Cell, Contender, StrategyMap
from hpcrnn.reporting.describe import common_problem, threads_of
from hpcrnn.reporting.tables.table import Table
from hpcrnn.reporting.units import (
    MISSING,
    format_ratio,
    format_ratio_interval,
    format_seconds,
    plural,
    printable,
    shorten,
)

HEADINGS = {RANKS: "Ranks", "hidden": "Hidden", "seq": "Time steps", "batch": "Batch", "layers": "Layers"}


def map_subtitle(found: StrategyMap) -> str:
    """Name what all cells of a map have in common: the problem, what computed it, and where."""
    cases = found.cases
    first = cases[0]
    threads = [f"{threads_of(first)} threads a rank"] if threads_of(first) > 1 else []
    counts = sorted({cell.n_ranks for cell in found.cells})
    ranks = [plural(counts[0], "rank")] if len(counts) == 1 else []
    simulated = ["simulated"] if first.simulated else []
    parts = [common_problem(cases), f"{printable(first.backend)}, {shorten(printable(first.kernel), 32)}"]
    return " · ".join(filter(None, [*parts, *ranks, *threads, *simulated, shorten(found.machine, 80)]))


def way_text(contender: Contender) -> str:
    """Name the variant: grid, order, pieces and method."""
    return printable(contender.entry.case.split.name)


def verdict_text(cell: Cell) -> str:
    """Say in a few words what a cell found: ``data 1.12× over tensor, undecided``."""
    if not cell.ranking:
        return "no exact way measured"
    if not cell.contested or cell.gain is None:
        return f"{cell.ranking[0].strategy} only, no contest"
    undecided = ", undecided" if cell.undecided else ""
    return f"{cell.leader} {format_ratio(cell.gain.median)} over {cell.runner_up}{undecided}"


def remarks(cell: Cell) -> list[str]:
    """Say what else must be known of a cell, a few words each."""
    found = []
    if cell.pays == "no":
        found.append("parallel does not pay")
    elif cell.pays == "undecided":
        found.append("may not pay")
    if cell.inexact is not None:
        inexact = cell.inexact.entry
        name = inexact.case.method if inexact.case.method != CHAIN else cell.inexact.strategy
        faster = ""
        if cell.ranking:
            ratio = cell.ranking[0].entry.step.median / inexact.step.median
            faster = f" {format_ratio(ratio)}"
        found.append(f"inexact: {printable(name)}{faster}")
    if cell.oversubscribed:
        found.append("CPUs shared")
    return found


def map_tables(maps: Sequence[StrategyMap]) -> list[Table]:
    """State who wins each cell of each map, over whom, and whether that is decided."""
    return [_map_table(found) for found in maps]


def _map_table(found: StrategyMap) -> Table:
    varying = [RANKS, *(q for q in QUANTITIES if q in (found.x, found.y, *found.facets))]
    with_hosts = HOSTS in found.facets
    rows = [
        [
            *(str(cell.place[name]) for name in varying),
            *([printable(cell.place[HOSTS]) or MISSING] if with_hosts else []),
            *_row(cell),
        ]
        for cell in found.cells
    ]
    columns = [HEADINGS[name] for name in varying] + (["Hosts"] if with_hosts else [])
    numbers = len(varying)
    columns += ["Fastest", "Median step", "Runner-up", "Ratio", "95 % interval", "Decided", "Over serial"]
    columns += ["95 % interval", "Remarks"]
    texts = tuple(k for k, c in enumerate(columns) if k >= numbers and c in _TEXTS)
    return Table(f"Which strategy wins: {map_subtitle(found)}", columns, rows, text_columns=texts, note=map_note(found))


_TEXTS = ("Hosts", "Fastest", "Runner-up", "Decided", "Remarks")


def _row(cell: Cell) -> list[str]:
    """Write a cell from the name of the fastest on."""
    serial = cell.serial.ratio if cell.serial is not None else None
    over_serial = [MISSING, MISSING] if serial is None else [format_ratio(serial.median), format_ratio_interval(serial)]
    if not cell.ranking:
        return [MISSING] * 5 + ["no exact way", *over_serial, "; ".join(remarks(cell))]
    names = {c.strategy: _named(c) for c in cell.ranking}
    times = {c.strategy: c.entry.step.median for c in cell.ranking}
    if cell.serial is not None:
        alone = cell.serial.rival
        names[SERIAL] = way_text(alone)
        times[SERIAL] = alone.beside(cell.ranking[0].entry.file).step.median
    leader = cell.leader
    gain = cell.gain
    against = [MISSING] * 3 if gain is None else [
        names[cell.runner_up], format_ratio(gain.median), format_ratio_interval(gain)
    ]  # fmt: skip
    return [names[leader], format_seconds(times[leader]), *against, _decided(cell), *over_serial, _remark(cell)]


def _named(contender: Contender) -> str:
    best = f" (best of {contender.n_variants})" if contender.n_variants > 1 else ""
    return way_text(contender) + best


def _decided(cell: Cell) -> str:
    if not cell.contested:
        return "no contest"
    reasons: dict[str, list[str]] = {}
    for strategy, reason in cell.undecided:
        reasons.setdefault(reason, []).append(strategy)
    return "no: " + "; ".join(f"{reason} ({', '.join(who)})" for reason, who in reasons.items()) if reasons else "yes"


def _remark(cell: Cell) -> str:
    return "; ".join(remarks(cell)) or MISSING


def map_note(found: StrategyMap) -> str:
    """Say how the map is to be read."""
    note = (
        "Fastest: the lowest median step of the exact ways on these ranks, and of the serial run on one. Of each "
        "strategy its best variant competes; the best of many looks better than it is, and no interval knows that. "
        "Ratio: step of the runner-up over that of the fastest, with the interval that follows from both medians' "
        "95 % intervals. Decided: that interval lies above 1 against every other strategy; and, where two cases are of "
        "different files, so does that of their speedups over each file's own serial run. Over serial: speedup of "
        "the fastest way of splitting over one rank, of the same file where it holds one."
    )
    if any(cell.inexact for cell in found.cells):
        note += " Inexact ways compete with none; one that is faster still is named, with by how much."
    if any(cell.oversubscribed for cell in found.cells):
        note += " CPUs shared: more threads than the host gave CPUs; that says little of a machine with enough."
    return note
