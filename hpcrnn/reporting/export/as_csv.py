"""Results as CSV (RFC 4180, UTF-8): a row a raw sample, a row a case, or a row an evaluation on held-out data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from math import isnan

import numpy as np

from hpcrnn.records.record import FloatArray
from hpcrnn.records.statistics import CONFIDENCE, Interval, is_outlier
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import Outcome, Ranked, outcome_of, rank_all
from hpcrnn.reporting.analysis.scaling import SerialRuns
from hpcrnn.reporting.analysis.standing import finite, standing
from hpcrnn.reporting.describe import case_name, describe_problem, source_name, threads_of
from hpcrnn.reporting.export.learning import Cell, curve_rows
from hpcrnn.reporting.units import printable

Row = dict[str, Cell]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula, which may start programs."""


def to_csv(rows: Iterable[Row]) -> bytes:
    """Write rows under the names of their columns.

    Numbers are written so that they read back as the same bits; what is not known is an empty cell. A text that a
    spreadsheet would compute gets an apostrophe in front.

    Parameters
    ----------
    rows : iterable of dict
        All with the keys of the first.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow([_cell(value) for value in row.values()])
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_STARTS) else value
    return repr(value)


def sample_rows(entries: Sequence[Entry]) -> Iterator[Row]:
    """Make a row of every raw sample: warm-ups and outliers, of excluded cases too.

    A device's own time of a phase, and its CPU time, are samples of their own, told by the clock.
    """
    for entry in entries:
        case, labels = entry.case, _labels(entry)
        outlier = is_outlier(case.step_s()) if case.time_s.size else np.empty(0, dtype=np.bool_)
        yield from _rows_of(labels, case.phases, case.warmup_s, "host", None)
        yield from _rows_of(labels, case.phases, case.time_s, "host", outlier.tolist())
        if case.device_time_s is not None:
            yield from _rows_of(labels, case.phases, case.device_time_s, "device", outlier.tolist())
        if case.cpu_time_s is not None:
            yield from _rows_of(labels, case.phases, case.cpu_time_s, "cpu", outlier.tolist())


def _rows_of(
    labels: Row, phases: Sequence[str], time_s: FloatArray, clock: str, outlier: Sequence[bool] | None
) -> Iterator[Row]:
    """Make the rows of one array of times (n, n_ranks, n_phases); warm-ups have no marks of outliers."""
    names = [printable(phase) for phase in phases]
    for repetition, of_ranks in enumerate(time_s.tolist()):
        for rank, of_phases in enumerate(of_ranks):
            for phase, seconds in zip(names, of_phases, strict=True):
                if clock != "host" and isnan(seconds):  # not measured, as in a phase that no device is busy in
                    continue
                yield labels | {
                    "clock": clock,
                    "warm_up": outlier is None,
                    "repetition": repetition,
                    "rank": rank,
                    "phase": phase,
                    "seconds": seconds,
                    "outlier": None if outlier is None else outlier[repetition],
                }


def learning_rows(entries: Sequence[Entry]) -> Iterator[Row]:
    """Make a row of every evaluation on held-out data, of excluded cases too."""
    for entry in entries:
        labels = _labels(entry)
        yield from (labels | row for row in curve_rows(entry))


def summary_rows(entries: Sequence[Entry]) -> Iterator[Row]:
    """Make a row of every case: medians, intervals, and how it stands to its base."""
    serial, ranked = SerialRuns(entries), rank_all(entries)
    for entry in entries:
        case, found = entry.case, standing(entry, serial)
        rated = entry.included and entry.step.median > 0
        yield _labels(entry) | {
            "n": entry.step.n,
            "n_warm_up": len(case.warmup_s),
            "n_outliers": entry.n_outliers,
            **_interval("seconds", entry.step),
            "confidence": CONFIDENCE,
            "base_number": found.base.entry.number if found else None,
            "base_case_id": found.base.entry.case.id if found else None,
            "base_same_run": found.base.same_file if found else None,
            "against_base": found.finding if found else None,
            **_interval("speedup", found.speedup if found else None),
            **_interval("efficiency", found.efficiency if found else None),
            "flop": finite(case.flops),
            "flop_per_second": finite(case.flops / entry.step.median) if rated else None,
            "stop_reason": printable(case.stop_reason),
            **_to_target(outcome_of(entry), ranked.get(entry.number)),
        }


def _to_target(outcome: Outcome | None, ranked: Ranked | None) -> Row:
    """Return what a case that was trained to a target needed: cells are empty of any other, or where it never did."""
    return {
        "target_loss": outcome.learning.target_loss if outcome else None,
        "n_seeds": outcome.n_seeds if outcome else None,
        "n_seeds_reached": outcome.learning.n_reached if outcome else None,
        **_interval("target_seconds", outcome.time.interval if outcome else None),
        "target_seconds_at_least": finite(outcome.time.median_at_least) if outcome else None,
        "target_steps": finite(outcome.steps.interval.median) if outcome else None,
        "target_bytes_sent": finite(outcome.sent.interval.median) if outcome else None,
        "target_joules": finite(outcome.energy.interval.median) if outcome else None,
        "target_base_number": ranked.base.entry.number if ranked and ranked.base else None,
        "target_against_base": ranked.finding if ranked and ranked.base else None,
        **_interval("target_speedup", ranked.speedup if ranked and ranked.base else None),
    }


def _labels(entry: Entry) -> Row:
    """Return what names a case: the first columns of either table."""
    case = entry.case
    return {
        "number": entry.number,
        "case_id": case.id,
        "case": case_name(case),
        "problem_id": case.problem_id,
        "problem": describe_problem(case),
        "strategy": case.strategy,
        "method": printable(case.method),
        "backend": printable(case.backend),
        "kernel": printable(case.kernel),
        "n_ranks": case.n_ranks,
        "n_threads": threads_of(case),
        "batch": int(case.spec["problem"]["batch"]),
        "verdict": case.verdict.status,
        "excluded": entry.exclusion or None,
        "simulated": case.simulated,
        "file": source_name(entry.record),
        "run": printable(entry.record.uuid),
    }


def _interval(name: str, interval: Interval | None) -> Row:
    """Return a median and its bounds as three cells; those too few samples cannot give are empty."""
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    ends = (interval.median, interval.low, interval.high)
    return {key: finite(end) for key, end in zip((name, f"{name}_low", f"{name}_high"), ends, strict=True)}
