"""Tables of how the work is split: what each way is, what it achieves beside its bounds, and who waits for whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpcrnn.records.bubble import account_waits
from hpcrnn.records.split import CHAIN
from hpcrnn.records.timeline import BUSY_KINDS
from hpcrnn.reporting.analysis.contest import Contest
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import (
    MISSING,
    format_bytes,
    format_percent,
    format_percent_interval,
    format_ratio,
    format_ratio_interval,
    format_seconds,
    printable,
)

MOST_RANKS = 64
"""Rows of a case in the table of waits."""


def split_table(entries: Sequence[Entry]) -> Table | None:
    """List the ways of splitting, a row each; None where nothing is split."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        split = entry.case.split
        sizes = dict(split.axes)
        grid = [str(sizes.get(axis, 1)) for axis in ("data", "pipeline", "time", "tensor")]
        pieces = [split.virtual_stages, split.microbatches, split.chunks]
        order = split.order if split.order in split.pieces else MISSING
        recurrence = [split.method, split.fold]
        key = (split.name, *grid, order, *map(str, (*pieces, *recurrence)))
        groups.setdefault(tuple(map(printable, key)), []).append(entry)
    if all(e.case.n_ranks == 1 for e in entries) and len(groups) < 2:
        return None
    rows = [[spans([e.number for e in members]), *key] for key, members in groups.items()]
    columns = ["No.", "Split", "Data", "Pipeline", "Time", "Tensor", "Order", "Virtual stages"]
    columns += ["Micro-batches", "Chunks", "Method", "Fold"]
    plain = {"Virtual stages": "1", "Method": CHAIN, "Fold": "1"}
    kept = [k for k, name in enumerate(columns) if name not in plain or any(row[k] != plain[name] for row in rows)]
    columns, rows = [columns[k] for k in kept], [[row[k] for k in kept] for row in rows]
    note = (
        "Data to tensor: ranks along each axis of the grid; their product is the number of ranks. Micro-batches cut a "
        "rank's sequences, chunks its time steps."
    )
    if "Method" in columns:
        note += " Method: how segments of time come to their start states; fold: segments a time rank runs together."
    texts = tuple(k for k, name in enumerate(columns) if name in ("Split", "Order", "Method"))
    return Table("How the work is split", columns, rows, text_columns=texts, note=note)


def contest_table(contest: Contest, called: Mapping[int, str]) -> Table:
    """State what each way of splitting a problem achieved, beside what it could have; cases go by these names."""
    rows = []
    for c in contest.contenders:
        speedup, case = c.point.speedup, c.entry.case
        rows.append(
            [
                str(c.entry.number),
                called[c.entry.number],
                str(c.point.n_ranks),
                format_seconds(c.point.time.median),
                format_ratio(speedup.median) if speedup else MISSING,
                format_ratio_interval(speedup) if speedup else MISSING,
                format_ratio(c.speedup_bound),
                format_percent(c.share_of_bound),
                format_percent(c.bubble.median),
                MISSING if math.isnan(c.bubble.median) else format_percent_interval(c.bubble),
                format_percent(c.bubble_bound),
                format_bytes(float(case.memory_bytes.max())) if case.memory_known else MISSING,
            ]
        )
    columns = ["No.", "Case", "Ranks", "Median step", "Speedup", "95 % interval", "Bound", "Of the bound"]
    columns += ["Bubble", "95 % interval", "Bubble bound", "Memory a rank"]
    on_gpu = ", on its GPU where it has one" if any(c.entry.case.on_gpu for c in contest.contenders) else ""
    note = (
        "Bound: ranks times what the schedule need not idle. Bubble: the share of the ranks' time that is no work. "
        f"Memory: what the engine of the rank with the most allocated{on_gpu}."
    )
    return Table("Ways of splitting, by ranks", columns, rows, text_columns=(1,), note=note)


def wait_table(entries: Sequence[Entry]) -> Table | None:
    """Account the waits of each timeline, a row a rank; None where there is no timeline."""
    called = names(entries)
    rows = []
    for entry in entries:
        case, timeline = entry.case, entry.case.timeline
        if timeline is None or case.n_ranks == 1:
            continue
        account = account_waits(case, timeline)
        work = np.where(np.isin(timeline.kinds, BUSY_KINDS), timeline.end_s - timeline.start_s, 0.0)
        busy = np.bincount(timeline.rank, weights=work, minlength=case.n_ranks)
        columns = (
            account.late_sender,
            account.late_receiver,
            account.late_rank,
            account.transfer,
            account.reduction,
        )
        for rank in range(min(case.n_ranks, MOST_RANKS)):
            cells = [format_seconds(float(column[rank])) for column in (busy, *columns)]
            rows.append([str(entry.number), called[entry.number], str(rank), *cells])
    if not rows:
        return None
    headings = ["No.", "Case", "Rank", "Working", "Late to send", "Late to receive", "Late to a sum"]
    headings += ["In transfer", "In a sum"]
    note = (
        "Of the step of the timeline. Late: how long other ranks waited for this one, until it posted the message or "
        "joined the sum. In transfer, in a sum: how long this rank waited after all others were ready."
    )
    return Table("Who waits for whom", headings, rows, text_columns=(1,), note=note)
