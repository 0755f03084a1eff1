"""Results as JSON: medians with their intervals, verdicts, environments; every sample where it is asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcrnn.records.record import Case, Record
from hpcrnn.records.statistics import CONFIDENCE, Interval, is_outlier, median_interval
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import Ranked, rank_all
from hpcrnn.reporting.analysis.scaling import SerialRuns
from hpcrnn.reporting.analysis.standing import standing
from hpcrnn.reporting.describe import case_name, describe_problem
from hpcrnn.reporting.export.learning import learning_plain

SCHEMA = "hpcrnn-export"
VERSION = 1


def json_export(records: Sequence[Record], entries: Sequence[Entry], *, raw: bool) -> dict[str, Any]:
    """Bring records into the plain values of JSON.

    Parameters
    ----------
    records : sequence of Record
    entries : sequence of Entry
        Their cases.
    raw : bool
        Keep every sample.

    Returns
    -------
    dict
        What is not known, or not a finite number, is None.
    """
    serial, ranked = SerialRuns(entries), rank_all(entries)
    plain: dict[str, Any] = _plain(
        {
            "schema": SCHEMA,
            "version": VERSION,
            "confidence": CONFIDENCE,
            "runs": [_run(record) for record in records],
            "cases": [_case(entry, serial, ranked.get(entry.number), raw=raw) for entry in entries],
        }
    )
    return plain


def _run(record: Record) -> dict[str, Any]:
    return {
        "uuid": record.uuid,
        "file": record.source,
        "merged_from": record.origin or None,
        "created_utc": record.created_utc,
        "hpcrnn_version": record.hpcrnn_version,
        "argv": record.argv,
        "complete": record.complete,
        "environment": record.environment,
    }


def _case(entry: Entry, serial: SerialRuns, ranked: Ranked | None, *, raw: bool) -> dict[str, Any]:
    case, found = entry.case, standing(entry, serial)
    phases = {phase: median_interval(case.phase_s(phase).mean(axis=1)) for phase in case.phases}
    return {
        "number": entry.number,
        "run": entry.file - 1,
        "id": case.id,
        "name": case_name(case),
        "problem_id": case.problem_id,
        "problem": describe_problem(case),
        "strategy": case.strategy,
        "method": case.method,
        "backend": case.backend,
        "kernel": case.kernel,
        "n_ranks": case.n_ranks,
        "simulated": case.simulated,
        "spec": case.spec,
        "verdict": dataclasses.asdict(case.verdict),
        "excluded": entry.exclusion or None,
        "stop_reason": case.stop_reason,
        "n_warm_up": len(case.warmup_s),
        "n_outliers": entry.n_outliers,
        "step_s": _interval(entry.step),
        "mean_rank_s": {phase: _interval(interval) for phase, interval in phases.items()},
        "base": {
            "number": found.base.entry.number,
            "same_run": found.base.same_file,
            "finding": found.finding,
            "speedup": _interval(found.speedup),
            "efficiency": _interval(found.efficiency),
        }
        if found
        else None,
        "flop": case.flops,
        "bytes_sent": case.bytes_sent,
        "peak_memory_bytes": case.peak_memory_bytes,
        "memory_bytes": case.memory_bytes if case.memory_known else None,
        "bubble_bound": case.bubble_bound,
        "staleness": case.staleness,
        "work": dataclasses.asdict(case.work) if case.work else None,
        "compression": dataclasses.asdict(case.compression) if case.compression else None,
        "learning": learning_plain(entry, ranked),
        **({"raw": _raw(case)} if raw else {}),
    }


def _raw(case: Case) -> dict[str, Any]:
    return {
        "phases": case.phases,
        "time_s": case.time_s,
        "warmup_s": case.warmup_s,
        "outlier": is_outlier(case.step_s()) if case.time_s.size else [],
        "device_time_s": case.device_time_s,
        "cpu_time_s": case.cpu_time_s,
        "loss": case.loss,
        "gradient_norm": case.gradient_norm,
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return dataclasses.asdict(interval)


def _plain(value: Any) -> Any:
    """Return what JSON has a form for."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int) else str(value)
