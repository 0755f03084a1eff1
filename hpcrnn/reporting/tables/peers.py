"""Ours over theirs: the numpy backend beside torch, on the same problem, in the same file.

The one place where ratios are summarised over problems, and then only as a geometric mean that says so: a
ratio of ratios does not depend on which side is the base (Fleming & Wallace, CACM 1986), and no other mean
of normalised numbers can claim that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from hpcrnn.records.record import Record
from hpcrnn.records.statistics import Interval, ratio_interval
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.finding import Finding, finding_of
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.describe import describe_problem, short_source, threads_of
from hpcrnn.reporting.tables.table import Table, markdown_table
from hpcrnn.reporting.units import (
    format_interval,
    format_ratio,
    format_ratio_interval,
    format_seconds,
    plural,
    printable,
    shorten,
)

OURS, THEIRS = "numpy", "torch"


@dataclass(frozen=True)
class PeerRow:
    """One problem that both backends ran the same way in the same file.

    Attributes
    ----------
    ours, theirs : Entry
    ratio : Interval
        Median time of theirs over ours: above 1 we are faster.
    """

    ours: Entry
    theirs: Entry
    ratio: Interval

    @property
    def way(self) -> str:
        """Strategy, ranks and threads: ``data, 2 ranks``."""
        case = self.ours.case
        threads = f", {threads_of(case)} threads a rank" if threads_of(case) > 1 else ""
        return f"{case.split.series_name}, {plural(case.n_ranks, 'rank')}{threads}"

    @property
    def finding(self) -> Finding:
        """Whether ours is faster: decided only where the whole interval lies on one side of 1."""
        return finding_of(self.ratio, "higher")


def peer_table(records: Sequence[Record]) -> list[PeerRow]:
    """Pair every VALID numpy case with every VALID torch case of the same file, problem and way of running.

    Parameters
    ----------
    records : sequence of Record

    Returns
    -------
    list of PeerRow
        In the order of the numpy cases; empty where nothing can be paired.
    """
    return pair_peers(analyse(records).included)


def pair_peers(included: Iterable[Entry]) -> list[PeerRow]:
    """Pair cases as :func:`peer_table` does, from entries already made."""
    ours: list[Entry] = []
    theirs: dict[tuple[object, ...], list[Entry]] = {}
    for entry in included:
        if entry.case.backend == OURS:
            ours.append(entry)
        elif entry.case.backend == THEIRS:
            theirs.setdefault(_key(entry), []).append(entry)
    return [
        PeerRow(mine, peer, ratio_interval(peer.step, mine.step))
        for mine in ours
        for peer in theirs.get(_key(mine), ())
    ]


def geometric_means(rows: Sequence[PeerRow]) -> list[tuple[str, int, float]]:
    """Summarise the ratios over problems, for each way of running and each recurrent product apart.

    Parameters
    ----------
    rows : sequence of PeerRow

    Returns
    -------
    list of (str, int, float)
        Way, number of problems, geometric mean of the ratios. Every problem weighs the same however often
        it was measured. A way with a single problem has nothing to summarise and is left out.
    """
    means = []
    for way, group in groupby(sorted(rows, key=_way_and_kernel), key=_way_and_kernel):
        by_problem: dict[str, list[float]] = {}
        for row in group:
            by_problem.setdefault(row.ours.case.problem_id, []).append(math.log(row.ratio.median))
        if len(by_problem) > 1:
            logs = [sum(values) / len(values) for values in by_problem.values()]
            means.append((way, len(logs), math.exp(sum(logs) / len(logs))))
    return means


def _way_and_kernel(row: PeerRow) -> str:
    return f"{row.way} · {printable(row.ours.case.kernel)}"


def peer_content(rows: Sequence[PeerRow]) -> Table:
    """Lay the comparison out as a table; its note holds the labelled geometric means."""
    files = {row.ours.file for row in rows}
    columns = ["Problem", "Run as", "n", "numpy", "95 % interval", "torch", "95 % interval"]
    columns += ["torch / numpy", "95 % interval", "numpy is"]
    cells = [
        [
            describe_problem(row.ours.case) + (f" ({short_source(row.ours.record)})" if len(files) > 1 else ""),
            f"{row.way} · {shorten(printable(row.ours.case.kernel), 32)}",
            str(row.ratio.n),
            format_seconds(row.ours.step.median),
            format_interval(row.ours.step),
            format_seconds(row.theirs.step.median),
            format_interval(row.theirs.step),
            format_ratio(row.ratio.median),
            format_ratio_interval(row.ratio),
            row.finding,
        ]
        for row in rows
    ]
    note = "Median time of torch over median time of numpy, same file: above 1× numpy is faster."
    for way, count, mean in geometric_means(rows):
        note += f" Geometric mean over {count} problems ({way}): {format_ratio(mean)}."
    return Table("numpy beside torch", columns, cells, text_columns=(0, 1, 9), note=note)


def peer_markdown(rows: Sequence[PeerRow]) -> str:
    """Render the comparison as a Markdown table with its note; empty where there are no rows."""
    if not rows:
        return ""
    table = peer_content(rows)
    return f"{markdown_table(table)}\n\n{table.note}\n"


def _key(entry: Entry) -> tuple[object, ...]:
    case = entry.case
    return (entry.file, case.problem_id, case.strategy, case.n_ranks, str(case.how), case.simulated)
