"""An acceptance test: whether results hold against a reference, on evidence.

A limit is broken only where the whole interval of what was measured lies beyond it, the reference's own interval
included where it has one; where it cannot be told, the result is *undecided*, which fails under ``strict`` only.
What fails without any statistics: a case that is missing, one whose numbers are INVALID, whether the reference names
it or not, one that has not the verdict that was asked for, and a speedup without a base.

:func:`to_json` gives the outcome to programs; NaN is ``null`` there::

    {"schema": "hpcrnn-gate", "version": 1, "passed": bool, "strict": bool, "n_checks": int, "n_failed": int,
     "n_undecided": int, "files": [str], "unreadable": [str], "reference": str, "notes": [str],
     "checks": [{"name": of the expectation, "case": null | {"file", "id", "label", "kernel", "status"},
                 "metric": "step_s" | "speedup" | "efficiency" | "gflops" | "verdict" | "case",
                 "better": "lower" | "higher" | "",
                 "reference": null | {"n", "median", "low", "high"}, "tolerance": number, "limit": number | null,
                 "measured": null | {"n", "median", "low", "high"},
                 "result": "pass" | "fail" | "undecided", "reason": str}]}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hpcrnn.errors import EXIT_GATE_FAILED, EXIT_VALID, EXIT_WRONG_USE
from hpcrnn.records.record import Record
from hpcrnn.records.statistics import Interval, dependence
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.analysis.finding import Better
from hpcrnn.reporting.analysis.scaling import find_base, make_point
from hpcrnn.reporting.comparison.compare import case_json, environment_differences, interval_json
from hpcrnn.reporting.comparison.gate_reference import BETTER, Expectation, Limit, Reference
from hpcrnn.reporting.comparison.matching import disagreements, has, value_text
from hpcrnn.reporting.describe import case_name, source_name
from hpcrnn.reporting.tables.samples import dependence_sentence
from hpcrnn.reporting.units import GIGA, has_bounds, plural

Result = Literal["pass", "fail", "undecided"]

NO_BASE = "no VALID serial run to compare with"


@dataclass(frozen=True)
class Check:
    """One thing that was asked, and what came out.

    Attributes
    ----------
    name : str
        Of the expectation.
    entry : Entry or None
        The case; None where it is missing.
    metric : str
        One of :data:`hpcrnn.reporting.comparison.gate_reference.BETTER`, ``verdict``, or ``case`` where one is missing.
    limit : Limit or None
        None of a verdict.
    measured : Interval or None
        In the metric's unit; None where nothing was measured.
    result : {"pass", "fail", "undecided"}
    reason : str
        Why it is no pass; empty where the numbers say it.
    """

    name: str
    entry: Entry | None
    metric: str
    limit: Limit | None
    measured: Interval | None
    result: Result
    reason: str = ""

    @property
    def better(self) -> Better | Literal[""]:
        """Which way is better; empty of what is no number."""
        return BETTER.get(self.metric, "")


@dataclass(frozen=True)
class Outcome:
    """What a gate says.

    Attributes
    ----------
    checks : tuple of Check
    strict : bool
        Whether what is undecided fails.
    files : tuple of str
    reference : str
        Where the reference came from.
    notes : tuple of str
        What of the reference was not taken, and why; on what else it ran, where it was a run.
    unreadable : tuple of str
        A line for each file that could not be read: with one, nothing is passed.
    """

    checks: tuple[Check, ...]
    strict: bool
    files: tuple[str, ...]
    reference: str
    notes: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all that was asked holds, of every file that was given."""
        return not self.failed and not self.unreadable

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that fall short."""
        return tuple(c for c in self.checks if c.result == "fail" or (self.strict and c.result == "undecided"))

    @property
    def undecided(self) -> tuple[Check, ...]:
        """The checks that the samples do not decide."""
        return tuple(c for c in self.checks if c.result == "undecided")

    @property
    def exit_code(self) -> int:
        """What the command ends with: an answer that is not complete is none, whatever the files that were read say."""
        if self.unreadable:
            return EXIT_WRONG_USE
        return EXIT_GATE_FAILED if self.failed else EXIT_VALID

    @property
    def last_line(self) -> str:
        """``PASS``, ``FAIL 2 of 5``, or that a file cannot be read."""
        answer = f"FAIL {len(self.failed)} of {len(self.checks)}" if self.failed else "PASS"
        if not self.unreadable:
            return answer
        missing = f"{plural(len(self.unreadable), 'file')} cannot be read"
        return f"{answer}; {missing}" if self.failed else f"NOT PASSED: {missing}"


def judge(
    records: Sequence[Record], reference: Reference, *, strict: bool = False, unreadable: Sequence[str] = ()
) -> Outcome:
    """Hold results against a reference.

    Parameters
    ----------
    records : sequence of Record
        The runs under test; one given twice counts once.
    reference : Reference
    strict : bool
        Fail what the samples do not decide.
    unreadable : sequence of str
        A line for each file under test that could not be read.
    """
    entries = make_entries(list({record.uuid: record for record in records}.values()))
    checks = [check for expected in reference.expectations for check in _checks(expected, entries)]
    named = {c.entry.number for c in checks if c.entry is not None and c.result == "fail" and c.metric == "verdict"}
    checks += [_unfit(case_name(e.case), e) for e in entries if not e.included and e.number not in named]
    files = tuple(dict.fromkeys(source_name(record) for record in records))
    apart = environment_differences(reference.records, records) if reference.records else ()
    notes = [f"differs: {d.key}: {value_text(d.a)} in the reference, {value_text(d.b)} here" for d in apart]
    judged = {c.entry.number: c.entry for c in checks if c.entry is not None and c.measured is not None}
    cautions = {entry: dependence_sentence(dependence(entry.case.step_s())) for entry in judged.values()}
    notes += [f"{case_name(entry.case)}: {caution}" for entry, caution in cautions.items() if caution]
    return Outcome(tuple(checks), strict, files, reference.source, (*reference.notes, *notes), tuple(unreadable))


def decide(measured: Interval, limit: Limit, better: Better) -> Result:
    """Say whether a limit holds, as far as the samples tell.

    Parameters
    ----------
    measured : Interval
    limit : Limit
        An exact one has an interval of no width; a measured one its own, scaled by the tolerance.
    better : {"lower", "higher"}
        Of the metric.
    """
    bounds = limit.bounds(better)
    if not (has_bounds(measured) and has_bounds(bounds)):
        return "undecided"
    if better == "higher":  # mirrored, so that lower is better
        measured, bounds = _mirrored(measured), _mirrored(bounds)
    if measured.low > bounds.high:
        return "fail"
    return "pass" if measured.high <= bounds.low else "undecided"


def measure(entry: Entry, metric: str, entries: Sequence[Entry]) -> Interval | None:
    """Measure a case; None of a speedup or an efficiency without a base.

    Parameters
    ----------
    entry : Entry
        An included one.
    metric : {"step_s", "speedup", "efficiency", "gflops"}
    entries : sequence of Entry
        Where the base is looked for.
    """
    if metric == "step_s":
        return entry.step
    if metric == "gflops":
        rate, step = entry.case.flops / GIGA, entry.step
        return Interval(step.n, rate / step.median, rate / step.high, rate / step.low)
    point = make_point(entry, find_base(entry, entries))
    return point.speedup if metric == "speedup" else point.efficiency


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return plain values; the module's docstring says which."""
    return {
        "schema": "hpcrnn-gate",
        "version": 1,
        "passed": outcome.passed,
        "strict": outcome.strict,
        "n_checks": len(outcome.checks),
        "n_failed": len(outcome.failed),
        "n_undecided": len(outcome.undecided),
        "files": list(outcome.files),
        "unreadable": list(outcome.unreadable),
        "reference": outcome.reference,
        "notes": list(outcome.notes),
        "checks": [_check_json(check) for check in outcome.checks],
    }


def _checks(expected: Expectation, entries: Sequence[Entry]) -> Iterator[Check]:
    """Check every case that an expectation names: several where several agree with it."""
    found = [e for e in entries if has(e.case, expected.case)]
    if not found:
        yield Check(expected.words, None, "case", None, None, "fail", _why_missing(expected, entries))
    for entry in found:
        name = expected.name or case_name(entry.case)
        if not entry.included:
            yield _unfit(name, entry)
            continue
        if expected.verdict:
            right = entry.case.verdict.status == expected.verdict
            reason = "" if right else f"it is {entry.case.verdict.status}, asked for was {expected.verdict}"
            yield Check(name, entry, "verdict", None, None, "pass" if right else "fail", reason)
        for metric, limit in expected.limits.items():
            yield _check(name, entry, metric, limit, measure(entry, metric, entries))


def _why_missing(expected: Expectation, entries: Sequence[Entry]) -> str:
    """Name what the nearest case has otherwise."""
    apart = [disagreements(e.case, expected.case) for e in entries]
    nearest = min(filter(None, apart), key=len, default={})
    named = [
        f"{key} = {value_text(value)} where {value_text(expected.case[key])} is asked" for key, value in nearest.items()
    ]
    more = f", and {len(named) - 3} more" if len(named) > 3 else ""
    return "the case is missing" + (f"; the nearest has {', '.join(named[:3])}{more}" if named else "")


def _check(name: str, entry: Entry, metric: str, limit: Limit, measured: Interval | None) -> Check:
    if measured is None:
        return Check(name, entry, metric, limit, None, "fail", NO_BASE)
    result = decide(measured, limit, BETTER[metric])
    few = "" if has_bounds(measured) else f"n = {measured.n} is too small for an interval"
    few = few or ("" if has_bounds(limit.reference) else "the reference has too few samples for an interval")
    return Check(name, entry, metric, limit, measured, result, few)


def _unfit(name: str, entry: Entry) -> Check:
    return Check(name, entry, "verdict", None, None, "fail", entry.exclusion)


def _mirrored(interval: Interval) -> Interval:
    return Interval(interval.n, -interval.median, -interval.high, -interval.low)


def _check_json(check: Check) -> dict[str, Any]:
    limit, entry = check.limit, check.entry
    value = limit.bounds(check.better).median if limit and check.better else math.nan
    return {
        "name": check.name,
        "case": None if entry is None else {"file": source_name(entry.record), **case_json(entry.case)},
        "metric": check.metric,
        "better": check.better,
        "reference": interval_json(limit.reference) if limit else None,
        "tolerance": limit.tolerance if limit else 0.0,
        "limit": value if math.isfinite(value) else None,
        "measured": interval_json(check.measured) if check.measured else None,
        "result": check.result,
        "reason": check.reason,
    }
