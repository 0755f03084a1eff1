"""Two result files beside one another: what became faster, what slower, and what cannot be told.

Nothing is pooled and nothing averaged: each pair of cases is one comparison of medians.  It is decided only where
the whole interval of the ratio lies on one side of 1.  That interval follows from both medians' 95 % intervals, so it
covers the ratio with at least 90 %; it knows how samples scatter within a run, not what changes between runs.

:func:`to_json` gives it to programs; NaN is ``null`` there::

    {"schema": "hpcrnn-compare", "version": 1, "across": bool,
     "a": [{"file", "uuid", "created_utc", "hpcrnn_version"}], "b": likewise,     the runs of each file
     "environment": [{"what", "a", "b"}],                      what the runs ran on, where it differs
     "pairs": [{"a": {"id", "label", "kernel", "status"}, "b": likewise,
                "problem": text of A's, "differences": [{"key", "a", "b", "of_problem": bool}],
                "reason": why it is not compared, "" where it is,
                "cautions": {"A" | "B": why the interval of its step may be too narrow},
                "metrics": [{"name": "step" | a phase | "rate" | "time to target" | "steps to target",
                             "unit": "s" | "FLOP/s" | "steps", "better": "lower" | "higher",
                             "a": {"n", "median", "low", "high"}, "b": likewise, "ratio": likewise, of B over A,
                             "verdict": "faster" | "slower" | "undecided", of B, "n_too_small": bool}]}],
     "unmatched": [{"side": "A" | "B", "id", "label", "reason"}]}

What was trained to a target is compared by that too, over seeds (:mod:`hpcrnn.reporting.analysis.learning`); where half
of them did not reach it there is no median, and where an interval is open no upper end: ``null`` too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hpcrnn.errors import SpecError
from hpcrnn.records.record import STEP, Case, Record
from hpcrnn.records.statistics import Interval, dependence, median_interval, ratio_interval
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.analysis.finding import Better, Finding, finding_of
from hpcrnn.reporting.analysis.learning import Outcome, needed_ratio, outcome_of, same_target
from hpcrnn.reporting.comparison.matching import (
    Difference,
    Lone,
    Match,
    Wanted,
    facts,
    free_keys,
    has,
    match,
    problem_keys,
)
from hpcrnn.reporting.describe import (
    case_name,
    cpu_text,
    describe_problem,
    first_of,
    git_text,
    host_dicts,
    hosts_text,
    mpi_text,
    section,
    source_name,
)
from hpcrnn.reporting.tables.samples import dependence_sentence
from hpcrnn.reporting.units import printable

RATE = "rate"
"""The metric that is a rate: operations a second."""
TO_TARGET = {"time to target": "time", "steps to target": "steps"}
"""The metrics of what was trained to a target, and what of an outcome each is."""


@dataclass(frozen=True)
class Metric:
    """One number of two cases.

    Attributes
    ----------
    name : str
        ``step``, a phase, ``rate``, or one of :data:`TO_TARGET`, whose samples are seeds.
    unit : {"s", "FLOP/s", "steps"}
    better : {"lower", "higher"}
    a, b : Interval
        In the unit; without samples where a case does not have it.
    ratio : Interval
        B over A; NaN where it means nothing.
    """

    name: str
    unit: Literal["s", "FLOP/s", "steps"]
    better: Better
    a: Interval
    b: Interval
    ratio: Interval

    @property
    def finding(self) -> Finding:
        """What B is: decided only where the whole interval of the ratio lies on one side of 1."""
        return finding_of(self.ratio, self.better)

    @property
    def n_too_small(self) -> bool:
        """Whether there were too few samples for an interval."""
        return math.isnan(self.ratio.low) and (math.isnan(self.a.low) or math.isnan(self.b.low))


@dataclass(frozen=True)
class Pair:
    """Two cases beside one another.

    Attributes
    ----------
    match : Match
    reason : str
        Why they are not compared; empty where they are.
    metrics : tuple of Metric
        The step first, then every phase; the rate too where the two do not compute the same. Empty with a reason.
    """

    match: Match
    reason: str
    metrics: tuple[Metric, ...]

    @property
    def cautions(self) -> dict[str, str]:
        """Of ``A`` and ``B``, why the interval of its step may be too narrow; empty where nothing says so."""
        sides = {"A": self.match.a, "B": self.match.b} if self.metrics else {}
        found = {side: dependence_sentence(dependence(entry.case.step_s())) for side, entry in sides.items()}
        return {side: text for side, text in found.items() if text}

    @property
    def loud(self) -> tuple[Difference, ...]:
        """Differences in what is computed."""
        return tuple(d for d in self.match.differences if d.key in problem_keys())


@dataclass(frozen=True)
class Comparison:
    """All that ``hpcrnn compare`` says.

    Attributes
    ----------
    a, b : tuple of Record
        The runs of each file.
    across : bool
        Whether problems and precisions were allowed to differ.
    environment : tuple of Difference
        What the two ran on, where it differs.
    pairs : tuple of Pair
    lone : tuple of Lone
    """

    a: tuple[Record, ...]
    b: tuple[Record, ...]
    across: bool
    environment: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    lone: tuple[Lone, ...]

    @property
    def same_run(self) -> bool:
        """Whether both come from the same runs."""
        return _uuids(self.a) == _uuids(self.b)


def compare(
    a: Sequence[Record],
    b: Sequence[Record],
    *,
    of_a: Wanted | None = None,
    of_b: Wanted | None = None,
    across: bool = False,
) -> Comparison:
    """Compare the cases of two files, or of one.

    Parameters
    ----------
    a, b : sequence of Record
        The runs of each.
    of_a, of_b : mapping, optional
        Which cases to take (:func:`hpcrnn.reporting.comparison.matching.read_wanted`). Where that leaves one on each
        side they are compared however they were run; where it leaves more, keys chosen differently need not agree.
    across : bool
        Compare different problems and precisions too.

    Raises
    ------
    SpecError
        Nothing can be compared; the message says what is nearest.
    """
    of_a, of_b = of_a or {}, of_b or {}
    if _uuids(a) == _uuids(b) and of_a == of_b:
        raise SpecError("B", _sources(b), "another run than A, or choose cases: --a KEY=VALUE --b KEY=VALUE")
    entries = make_entries([*a, *b])
    mine = _chosen([e for e in entries if e.file <= len(a)], of_a, "--a")
    theirs = _chosen([e for e in entries if e.file > len(a)], of_b, "--b")
    free = free_keys(of_a, of_b)
    if len(mine) == len(theirs) == 1 and of_a and of_b:
        free = frozenset({*facts(mine[0].case), *facts(theirs[0].case)} - problem_keys())
    matches, lone = match(mine, theirs, free, across=across)
    if not matches:
        hint = "--across compares different problems and precisions too"
        if across or not match(mine, theirs, free, across=True)[0]:
            hint = "--a KEY=VALUE --b KEY=VALUE choose cases that were run in different ways"
        raise SpecError("B", _sources(b), f"a file with a case to compare: {_nearest(lone)}; {hint}")
    pairs = tuple(_pair(m) for m in matches)
    return Comparison(tuple(a), tuple(b), across, environment_differences(a, b), pairs, tuple(lone))


def _uuids(records: Sequence[Record]) -> set[str]:
    return {record.uuid for record in records}


def _sources(records: Sequence[Record]) -> str:
    return ", ".join(dict.fromkeys(source_name(record) for record in records))


def environment_differences(a: Sequence[Record], b: Sequence[Record]) -> tuple[Difference, ...]:
    """Return what two files' runs ran on, where it differs: machines, libraries, versions, threads, data."""
    first, second = _facts_of_all(a), _facts_of_all(b)
    return tuple(
        Difference(what, first.get(what, ""), second.get(what, ""))
        for what in dict.fromkeys([*first, *second])
        if first.get(what, "") != second.get(what, "")
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return plain values; the module's docstring says which."""
    return {
        "schema": "hpcrnn-compare",
        "version": 1,
        "across": comparison.across,
        "a": [_record_json(record) for record in comparison.a],
        "b": [_record_json(record) for record in comparison.b],
        "environment": [{"what": d.key, "a": d.a, "b": d.b} for d in comparison.environment],
        "pairs": [_pair_json(pair) for pair in comparison.pairs],
        "unmatched": [
            {"side": x.side, "id": x.entry.case.id, "label": case_name(x.entry.case), "reason": x.reason}
            for x in comparison.lone
        ],
    }


def interval_json(interval: Interval) -> dict[str, Any]:
    """Return an interval as plain values, NaN as None."""
    values = {"median": interval.median, "low": interval.low, "high": interval.high}
    return {"n": interval.n} | {name: value if math.isfinite(value) else None for name, value in values.items()}


def _chosen(entries: Sequence[Entry], wanted: Wanted, flag: str) -> list[Entry]:
    if not wanted:
        return list(entries)
    found = [e for e in entries if has(e.case, wanted)]
    if not found:
        words = " ".join(f"{key}={value}" for key, value in wanted.items())
        there = "; ".join(dict.fromkeys(case_name(e.case) for e in entries)) or "no case at all"
        raise SpecError(flag, words, f"what a case of the file has; there is {there}")
    return found


def _nearest(lone: Sequence[Lone]) -> str:
    """Say of one case why it has no partner: of the first of A, where it has one."""
    return next((f"{case_name(x.entry.case)}: {x.reason}" for x in lone), "neither has one")


def _pair(matched: Match) -> Pair:
    sides = (("A", matched.a), ("B", matched.b))
    reason = "; ".join(f"{side}: {entry.exclusion}" for side, entry in sides if not entry.included)
    return Pair(matched, reason, () if reason else tuple(_metrics(matched.a, matched.b)))


def _metrics(a: Entry, b: Entry) -> Iterator[Metric]:
    yield _metric(STEP, a.step, b.step)
    yield from _to_target(outcome_of(a), outcome_of(b))
    if a.case.flops != b.case.flops:
        yield Metric(RATE, "FLOP/s", "higher", _rate(a), _rate(b), ratio_interval(_rate(b), _rate(a)))
    for phase in dict.fromkeys([*a.case.phases, *b.case.phases]):
        if phase != STEP:
            yield _metric(printable(phase), _phase(a.case, phase), _phase(b.case, phase))


def _to_target(a: Outcome | None, b: Outcome | None) -> Iterator[Metric]:
    """Compare what two cases needed to come to one target; nothing where their targets differ, or one has none."""
    if a is None or b is None or not same_target(a.learning, b.learning):
        return
    for name, what in TO_TARGET.items():
        x, y = getattr(a, what), getattr(b, what)
        yield Metric(name, "s" if what == "time" else "steps", "lower", x.interval, y.interval, needed_ratio(y, x))


def _metric(name: str, a: Interval, b: Interval) -> Metric:
    meaningful = a.median > 0 and b.median > 0
    ratio = ratio_interval(b, a) if meaningful else Interval(min(a.n, b.n), math.nan, math.nan, math.nan)
    return Metric(name, "s", "lower", a, b, ratio)


def _phase(case: Case, phase: str) -> Interval:
    """Seconds of a phase, the mean over ranks; no samples where a case has no such phase."""
    return median_interval(case.phase_s(phase).mean(axis=1) if phase in case.phases else [])


def _rate(entry: Entry) -> Interval:
    """Operations a second; the slowest step is the lowest rate."""
    flops, step = entry.case.flops, entry.step
    return Interval(step.n, flops / step.median, flops / step.high, flops / step.low)


def _facts_of_all(records: Sequence[Record]) -> dict[str, str]:
    """Join what several runs ran on: each text once."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for what, text in _facts_of(record):
            found.setdefault(what, {})[printable(text)] = None
    return {what: "; ".join(filter(None, texts)) for what, texts in found.items()}


def _facts_of(record: Record) -> Iterator[tuple[str, str]]:
    """Name what a record ran on and with, one text each."""
    hosts = host_dicts(record)
    mpi, blas, packages = (section(record, name) for name in ("mpi", "blas", "packages"))
    yield "hosts", hosts_text(record)
    yield "CPU", cpu_text(record)
    yield "GPUs", _each(_gpu(gpu) for host in hosts for gpu in _dicts(host.get("gpus")))
    yield "system", _each(f"{host.get('system', '')} {host.get('kernel', '')}".strip() for host in hosts)
    yield "CPUs of a rank", _each(str(host.get("n_cpus", "")) for host in hosts)
    yield "governor", _each(str(host.get("governor", "")) for host in hosts)
    yield "MPI", mpi_text(record)
    yield "MPI thread level", str(mpi.get("thread_level", ""))
    yield "BLAS", _each(sorted(_library(entry) for entry in _dicts(blas.get("libraries"))))
    yield "hpcrnn", record.hpcrnn_version
    yield "source", git_text(record)
    # The package of this very name says the same as the version above.
    yield from (
        (str(name), str(version)) for name, version in packages.items() if name not in ("hpcrnn", "mpi4py_from")
    )
    yield from ((str(name), str(value)) for name, value in section(record, "variables").items())
    data = section(record, "workload")
    yield "data", str(first_of(data, "sha256", "name") or "")


def _each(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def _gpu(gpu: dict[str, Any]) -> str:
    driver = gpu.get("driver")
    return f"{gpu.get('name', 'GPU')}" + (f" (driver {driver})" if driver else "")


def _library(library: dict[str, Any]) -> str:
    name = f"{library.get('internal_api', '')} {library.get('version', '')}".strip()
    return f"{name}, {library.get('num_threads', '?')} thread(s)"


def _record_json(record: Record) -> dict[str, Any]:
    return {
        "file": record.source,
        "uuid": record.uuid,
        "created_utc": record.created_utc,
        "hpcrnn_version": record.hpcrnn_version,
    }


def case_json(case: Case) -> dict[str, Any]:
    """Return what names a case, as plain values."""
    return {"id": case.id, "label": case_name(case), "kernel": case.kernel, "status": case.verdict.status}


def _pair_json(pair: Pair) -> dict[str, Any]:
    loud = pair.loud
    return {
        "a": case_json(pair.match.a.case),
        "b": case_json(pair.match.b.case),
        "problem": describe_problem(pair.match.a.case),
        "differences": [{"key": d.key, "a": d.a, "b": d.b, "of_problem": d in loud} for d in pair.match.differences],
        "reason": pair.reason,
        "cautions": pair.cautions,
        "metrics": [
            {
                "name": m.name,
                "unit": m.unit,
                "better": m.better,
                "a": interval_json(m.a),
                "b": interval_json(m.b),
                "ratio": interval_json(m.ratio),
                "verdict": m.finding,
                "n_too_small": m.n_too_small,
            }
            for m in pair.metrics
        ],
    }
