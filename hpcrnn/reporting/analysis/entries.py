"""The cases of a report: numbered, summarised, and each either plotted or excluded with a reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcrnn.records.record import Case, Record
from hpcrnn.records.statistics import Interval, is_outlier, median_interval
from hpcrnn.reporting.describe import worst_check
from hpcrnn.reporting.units import plural, printable, scientific

_LONGEST_S = 1e12
"""No step takes as long; sums and ratios of what is shorter are numbers."""


@dataclass(frozen=True)
class Entry:
    """A case of a report, with what every table asks of it.

    Attributes
    ----------
    number : int
        From 1, over all records in the order given: how tables and figures refer to it.
    file : int
        From 1: which of the records holds it.
    record : Record
    case : Case
    step : Interval
        Seconds of a step, the slowest rank's.
    n_outliers : int
        Repetitions beyond Tukey's outer fences.
    exclusion : str
        Why it is on no plot; empty where it is.
    """

    number: int
    file: int
    record: Record
    case: Case
    step: Interval
    n_outliers: int
    exclusion: str

    @property
    def included(self) -> bool:
        """Whether the case may be plotted and compared."""
        return not self.exclusion

    @property
    def contends(self) -> bool:
        """Whether it may be set beside other results: ranks that were slowed down on purpose give none."""
        return self.included and not self.case.handicap


def make_entries(records: Sequence[Record]) -> tuple[Entry, ...]:
    """Give the cases of all records their numbers, and say which are excluded, and why."""
    pairs = [(file, record, case) for file, record in enumerate(records, 1) for case in record.cases]
    return tuple(
        Entry(
            number=number,
            file=file,
            record=record,
            case=case,
            step=median_interval(case.step_s()),
            n_outliers=int(is_outlier(case.step_s()).sum()),
            exclusion=exclusion_reason(case),
        )
        for number, (file, record, case) in enumerate(pairs, 1)
    )


def exclusion_reason(case: Case) -> str:
    """Say why a case may not be plotted; empty where it may.

    The recorded verdict is believed only where its own checks agree with it: a proof that is missing or
    contradicts its verdict is none.
    """
    if fault := _verdict_fault(case):
        return fault
    step = case.step_s() if case.time_s.size else np.empty(0)
    if step.size == 0:
        return "no counted repetition" + (": every seed diverged in its first leg" if _diverged_at_once(case) else "")
    if not (np.isfinite(step).all() and (step > 0).all()):
        return "a step time is not a positive finite number"
    return _number_fault(case)


def _number_fault(case: Case) -> str:
    """Say which other number of a case none could have measured or counted; empty where there is none.

    A loss or an error that is NaN is none of these: a computation may come to it.
    """
    device, cpu = case.device_time_s, case.cpu_time_s
    faults = {
        "a time is not a finite number >= 0": not (_are_times(case.time_s) and _are_times(case.warmup_s)),
        "a device's time is not a finite number >= 0": device is not None and not _are_times(device[~np.isnan(device)]),
        "a CPU time is not a finite number >= 0": cpu is not None and not _are_times(cpu[~np.isnan(cpu)]),
        "its operations are not a finite number >= 0": not 0 <= case.flops < math.inf,
        "it counts bytes below zero": any((n < 0).any() for n in (case.bytes_sent, case.memory_bytes)),
    }
    return next((fault for fault, found in faults.items() if found), "")


def _diverged_at_once(case: Case) -> bool:
    return case.learning is not None and all(curve.ending == "diverged" for curve in case.learning.curves)


def _are_times(seconds: npt.NDArray[np.float64]) -> bool:
    return bool(((seconds >= 0) & (seconds <= _LONGEST_S)).all())


def _verdict_fault(case: Case) -> str:
    """Say why a verdict keeps its case from every plot; empty where it does not."""
    status, checks, worst = case.verdict.status, case.verdict.checks, worst_check(case.verdict)
    if worst is None:
        return (
            "recorded as VALID without a single check" if status == "VALID" else f"{status}, and no check was recorded"
        )
    if status == "APPROXIMATE":
        # Its errors are beyond the tolerance of an exact method; that they are known is what is asked.
        known = all(math.isfinite(check.error) for check in checks)
        return "" if known else "APPROXIMATE, and an error is not a finite number"
    failed = sum(not check.passed for check in checks)
    if status == "VALID" and not failed:
        return ""
    detail = (
        f"{printable(worst.quantity)} is off by {scientific(worst.error)} (relative), "
        f"allowed is {scientific(worst.tolerance)}"
    )
    count = f"; {failed} of {plural(len(checks), 'check')} failed" if failed else ""
    prefix = "INVALID" if status != "VALID" else "recorded as VALID, but its checks say otherwise"
    return f"{prefix}: {detail}{count}"
