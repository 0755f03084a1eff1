"""Tables of where the time goes, serial against parallel: one a strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hpcrnn.records.record import Case
from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.accounting import Account, Part, cpu_time
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import (
    MISSING,
    format_bytes,
    format_percent,
    format_ratio,
    format_ratio_interval,
    format_seconds,
    has_bounds,
    printable,
)

PART_NAMES: dict[Part, str] = {
    "communication": "communication",
    "waiting": "waiting",
    "work": "extra work",
    "not_given": "CPU not given",
    "other": "other",
}
"""What lost time is lost to, in the order in which it is shown."""

STRATEGY_NAMES = {
    "data": "data parallel",
    "pipeline": "layer pipeline",
    "time": "time segments",
    "tensor": "tensor split",
    "hybrid": "hybrid grids",
}


def accounting_tables(accounts: Sequence[Account], called: Mapping[int, str]) -> list[Table]:
    """Tabulate every strategy beside its serial runs; cases go by these names."""
    strategies: dict[str, list[Account]] = {}
    for account in accounts:
        strategies.setdefault(strategy_name(account.entry.case), []).append(account)
    order = list(STRATEGY_NAMES)
    tables = sorted(strategies.items(), key=lambda item: order.index(item[1][0].entry.case.strategy))
    return [_table(name, members, called) for name, members in tables]


def strategy_name(case: Case) -> str:
    """Name how a case was split, and what its replicas exchange where that is more than sums of gradients."""
    return ", ".join(filter(None, (STRATEGY_NAMES[case.strategy], printable(case.split.data_method))))


def lost_text(account: Account) -> str:
    """Say in a line what the ranks' time went to, without parts of less than a thousandth."""
    parts = {PART_NAMES[part]: account.lost[part] for part in PART_NAMES if part in account.lost}
    lost = [f"{name} {_share(share)}" for name, share in parts.items() if abs(share) >= _LEAST]
    useful = f"of the ranks' time {format_percent(account.useful)} are the serial run's"
    return f"{useful}; lost to {', '.join(lost)}" if lost else f"{useful}; nothing lost"


def account_lines(account: Account) -> list[str]:
    """Say in lines where the ranks' time went, and what must be known of that."""
    unknown = [] if "not_given" in account.lost or cpu_time(account.entry.case) is None else [_UNKNOWN]
    return [lost_text(account), *unknown, *account.remarks]


def cpu_text(case: Case) -> str:
    """Say in a line what CPU time the ranks had in a step; empty where that was not measured."""
    cpu = cpu_time(case)
    if cpu is None:
        return ""
    most = f", at most {format_seconds(cpu.step.max())}" if case.n_ranks > 1 else ""
    step = f"{format_seconds(float(np.median(cpu.step)))}{most}"
    return f"CPU time a rank {step}; at work {format_seconds(float(np.median(cpu.work)))}"


TERMS = {
    "Useful": "A parallel run has ranks times the step of time: this share of it is what the serial run on the same "
    "hardware takes for the same work. The rest is lost; the columns that follow say to what, each beyond what the "
    "serial run has of it, so that a row adds up to 100 %.",
    "Communication": "Posts of messages and, of sums, as much as the rank that was in them the shortest.",
    "Waiting": "For messages, their way included; the rest of the sums; for the slowest rank to end.",
    "Extra work": "Forward, backward, weight gradient and update of all ranks beyond the serial run's: smaller "
    "products, caches, work done more than once, and what ranks exchange inside a task; below zero where it is less.",
    "CPU not given": "Time of ranks at work in which their process had no core, or slept.",
    "Statistic": "Speedup, with its 95 % interval, and efficiency, speedup over ranks, are of medians. Useful and what "
    "follows are of the mean over the steps between the quartiles, for medians of parts do not add up.",
    "CPU a rank": "CPU seconds of a step: of the middle rank, of the one with the most, and of the middle one at work. "
    "An MPI that waits busily has CPU time in its waits too. Memory and bytes are the largest of any rank.",
}
"""What stands beside the tables."""

_UNKNOWN = "what CPU was not given is not known, and counts as extra work"


def _table(name: str, accounts: Sequence[Account], called: Mapping[int, str]) -> Table:
    shown: set[int] = set()
    rows = []
    for account in sorted(accounts, key=lambda account: (account.base.entry.number, account.entry.number)):
        entry, base = account.entry, account.base.entry
        if base.number not in shown:
            shown.add(base.number)
            compared = ["base", *[MISSING] * (2 + len(PART_NAMES))]
            rows.append([*_who(base, called), *compared, *_resources(base.case)])
        compared = [
            _with_interval(account.speedup, format_ratio, format_ratio_interval),
            format_percent(account.efficiency.median),
            _share(account.useful),
            *(_share(account.lost[part]) if part in account.lost else MISSING for part in PART_NAMES),
        ]
        rows.append([*_who(entry, called), *compared, *_resources(entry.case)])
    columns = ["No.", "Case", "Median step", "Speedup", "Efficiency", "Useful"]
    columns += [heading[0].upper() + heading[1:] for heading in PART_NAMES.values()]
    columns += ["CPU a rank", "At most", "At work", "Peak memory", "Engine memory", "Sent a rank"]
    return Table(f"Serial against {name}", columns, rows, text_columns=(1,), note=_note(accounts))


_LEAST = 0.0005
"""The least share that is written as other than nought."""


def _share(share: float) -> str:
    return format_percent(share if abs(share) >= _LEAST else 0.0)


def _who(entry: Entry, called: Mapping[int, str]) -> list[str]:
    return [str(entry.number), called[entry.number], format_seconds(entry.step.median)]


def _resources(case: Case) -> list[str]:
    """Return what a rank takes: CPU time, memory, and bytes that it sends."""
    cpu = cpu_time(case)
    return [
        format_seconds(float(np.median(cpu.step))) if cpu else MISSING,
        format_seconds(float(cpu.step.max())) if cpu else MISSING,
        format_seconds(float(np.median(cpu.work))) if cpu else MISSING,
        format_bytes(float(case.peak_memory_bytes.max())),
        format_bytes(float(case.memory_bytes.max())) if case.memory_known else MISSING,
        format_bytes(float(case.bytes_sent.max())),
    ]


def _with_interval(interval: Interval, value: Callable[[float], str], bounds: Callable[[Interval], str]) -> str:
    """Write a median, and in brackets its interval where there is one."""
    return f"{value(interval.median)} ({bounds(interval)})" if has_bounds(interval) else value(interval.median)


def _note(accounts: Sequence[Account]) -> str:
    """Say what must be known of single rows; empty where there is nothing."""
    said: dict[str, list[int]] = {}
    for account in accounts:
        unknown = [] if "not_given" in account.lost else [_UNKNOWN]
        for remark in (*unknown, *account.remarks):
            said.setdefault(remark, []).append(account.entry.number)
    return " ".join(f"No. {spans(sorted(numbers))}: {remark}." for remark, numbers in said.items())
