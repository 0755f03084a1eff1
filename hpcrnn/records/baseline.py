"""The base of every speedup: absolute, named, and the best there is (Hoefler & Belli, SC'15, rule 1)."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from hpcrnn.records.record import Baseline, Case
from hpcrnn.records.statistics import median_interval


def by_problem(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Group cases by their problem's id, in order: a look at each case, however many problems there are."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.problem_id, []).append(case)
    return groups


def best_serial(cases: Iterable[Case]) -> Baseline | None:
    """Find the serial run with the smallest median step.

    Only runs that were measured, and whose numbers were found right, are taken; one rank that runs segments of time
    at once is no serial run.

    Parameters
    ----------
    cases : iterable of Case
        Of one problem.

    Returns
    -------
    Baseline or None
        None where no case qualifies.

    Raises
    ------
    ValueError
        The serial cases are of several problems: no one of them is the base of them all.
    """
    serial = [case for case in cases if case.is_serial_base and case.verdict.status == "VALID" and not case.simulated]
    if len({case.problem_id for case in serial}) > 1:
        message = "best_serial takes the cases of one problem: group them by problem_id"
        raise ValueError(message)
    medians = [(median_interval(case.step_s()).median, case.id) for case in serial]
    finite = [(time_s, case_id) for time_s, case_id in medians if isfinite(time_s)]
    if not finite:
        return None
    time_s, case_id = min(finite)
    return Baseline(case_id, time_s)
