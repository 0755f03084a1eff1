"""What a gate holds results against: limits from a TOML file, or the times of an earlier result.

::

    tolerance = 0.05                          # of every reference below that has none of its own

    [[expect]]
    name = "two ranks, half the batch each"   # for the table; optional
    step_s = { reference = 0.228, interval = [0.216, 0.234] }      # measured: may be 5 % longer
    speedup = { reference = 1.7, tolerance = 0.1 }                 # may be smaller by a factor of 1.1
    efficiency = { at_least = 0.8 }           # in [0, 1], against the best serial run of the same file
    verdict = "VALID"                         # INVALID fails in any case
    [expect.case]                             # every case that agrees in these is checked, and there must be one
    cell = "lstm"
    hidden = [256, 512]                       # one of these
    ranks = 2

Metrics: ``step_s`` in seconds and ``at_most``; ``speedup``, ``efficiency`` and ``gflops`` (GFLOP/s) and ``at_least``.
A tolerance of 0.05 allows a time 1.05 times as long, a rate 1.05 times as small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hpcrnn.errors import SpecError
from hpcrnn.records.hdf5 import read_records
from hpcrnn.records.record import Record
from hpcrnn.records.statistics import Interval
from hpcrnn.records.whole_file import check_output, write_output
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.analysis.finding import Better
from hpcrnn.reporting.analysis.scaling import find_base, make_point
from hpcrnn.reporting.comparison.matching import KERNEL, Facts, defaults, facts, matchers, read_wanted, value_text
from hpcrnn.reporting.describe import case_name, source_name
from hpcrnn.reporting.units import format_seconds, has_bounds, printable
from hpcrnn.spec import convert, read_toml

BETTER: dict[str, Better] = {"step_s": "lower", "speedup": "higher", "efficiency": "higher", "gflops": "higher"}
"""The metrics that are numbers, and which way each is better: a time is a cost, the others are rates."""

Positive = Annotated[float, Meta(gt=0, le=1e15)]
Tolerance = Annotated[float, Meta(ge=0, le=100)]

_ALWAYS_WRITTEN = (
    *("cell", "hidden", "layers", "batch", "seq", "workload", "mode", "precision", "strategy", "ranks", "backend"),
    *("threads", "grid", "order", "microbatches", "chunks", "method", "fold"),
)
"""What a written reference says of a case even where it is the default: a later case that differs in it is another."""
_NEVER_WRITTEN = (KERNEL, "id", "simulated", "dtype")


@dataclass(frozen=True)
class Limit:
    """How far a number may go.

    Attributes
    ----------
    reference : Interval
        In the metric's unit; of no width where it is exact.
    tolerance : float
        How far beyond: 0.05 for a twentieth more time, or a rate 1.05 times as small.
    is_reference : bool
        Whether the limit follows from a reference value; False where it was set itself.
    """

    reference: Interval
    tolerance: float = 0.0
    is_reference: bool = True

    def bounds(self, better: Better) -> Interval:
        """Return the limit itself, with the reference's uncertainty."""
        factor = 1.0 + self.tolerance if better == "lower" else 1.0 / (1.0 + self.tolerance)
        r = self.reference
        return Interval(r.n, factor * r.median, factor * r.low, factor * r.high)


@dataclass(frozen=True)
class Expectation:
    """What is asked of the cases that agree with some facts.

    Attributes
    ----------
    name : str
        What it is called; empty where the cases' own names do.
    case : dict
        What a case must be (:func:`hpcrnn.reporting.comparison.matching.has`).
    limits : dict of str to Limit
        By metric, a key of :data:`BETTER`.
    verdict : str
        The verdict it must have; empty where it must only not be INVALID.
    """

    name: str
    case: Facts
    limits: Mapping[str, Limit]
    verdict: str = ""

    @property
    def words(self) -> str:
        """What it is called where there is no case: its name, or what was asked."""
        return self.name or printable(" ".join(f"{key}={value_text(value)}" for key, value in self.case.items()))


@dataclass(frozen=True)
class Reference:
    """All that is asked.

    Attributes
    ----------
    source : str
    expectations : tuple of Expectation
    notes : tuple of str
        Cases of a result file that are no reference, and why; which of repeated measurements is.
    records : tuple of Record
        What was read of a result file.
    """

    source: str
    expectations: tuple[Expectation, ...]
    notes: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()


class _Limit(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    at_most: Positive | None = None
    at_least: Positive | None = None
    reference: Positive | None = None
    interval: Annotated[list[Positive], Meta(min_length=2, max_length=2)] | None = None
    tolerance: Tolerance | None = None


class _Expect(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1)] | None = None
    case: dict[str, Any] = {}
    verdict: Literal["VALID", "APPROXIMATE"] | None = None
    step_s: _Limit | None = None
    speedup: _Limit | None = None
    efficiency: _Limit | None = None
    gflops: _Limit | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    tolerance: Tolerance | None = None
    expect: list[dict[str, Any]]


DEFAULT_TOLERANCE = 0.05
"""What a written reference allows where nothing was said."""


def load_reference(path: Path, tolerance: float | None = None) -> Reference:
    """Read a reference: TOML where the name ends so, else a result file.

    Raises
    ------
    FileError, SpecError
        It cannot be read, or says what is not allowed.
    """
    if path.suffix.lower() == ".toml":
        return read_reference(path, tolerance)
    return reference_of(read_records([path]), tolerance)


def write_reference(
    records: Sequence[Record], path: Path, tolerance: float | None, *, inputs: Iterable[Path], overwrite: bool
) -> None:
    """Write a reference from results, in one piece.

    Parameters
    ----------
    records : sequence of Record
    path : Path
    tolerance : float or None
        General tolerance that is written; None for the default.
    inputs : iterable of Path
        Files that are never overwritten.
    overwrite : bool
        Whether another file of the name may be.

    Raises
    ------
    FileError, SpecError
        The name is not free or no name of a TOML file, or no case can be a reference.
    """
    if path.suffix.lower() != ".toml":
        raise SpecError("--write-ref", str(path), "a name that ends in .toml: by that --ref knows it")
    check_output(path, inputs, overwrite=overwrite)
    text = write_text(records, DEFAULT_TOLERANCE if tolerance is None else check_tolerance(tolerance))
    write_output(path, text.encode(), inputs=inputs, overwrite=overwrite)


def read_reference(path: Path, tolerance: float | None = None) -> Reference:
    """Read a reference in TOML.

    Parameters
    ----------
    path : Path
    tolerance : float, optional
        Wins over the file's own general one.

    Raises
    ------
    FileError
        It cannot be read as TOML.
    SpecError
        A key or a value is not allowed.
    """
    raw = read_toml(path)
    expect = raw.get("expect")
    if not isinstance(expect, list) or not expect or not all(isinstance(item, dict) for item in expect):
        raise SpecError("expect", expect, "one table [[expect]] or more")
    general = convert(raw, _File).tolerance
    if general is not None:
        _require_finite("tolerance", general)
    general = general if tolerance is None else check_tolerance(tolerance)
    found = (_expectation(item, k, general) for k, item in enumerate(expect, 1))
    return Reference(str(path), tuple(found))


def reference_of(records: Sequence[Record], tolerance: float | None) -> Reference:
    """Take the step times of an earlier result as reference, each with its own interval.

    Of a case that was measured several times the slowest is taken: none of them may fall short of itself.

    Parameters
    ----------
    records : sequence of Record
    tolerance : float or None
        None is refused: what may be worse must be said.
    """
    if tolerance is None:
        raise SpecError("--tolerance", None, "a number >= 0 (0.05: a twentieth), where the reference is a result file")
    check_tolerance(tolerance)
    entries = make_entries(records)
    groups = _repeated([e for e in entries if e.included])
    expectations = tuple(
        Expectation(case_name(group[0].case), _all_of(group[0]), {"step_s": Limit(_slowest(group).step, tolerance)})
        for group in groups
    )
    notes = tuple(f"no reference: {case_name(e.case)}: {e.exclusion}" for e in entries if not e.included)
    notes += tuple(f"{case_name(group[0].case)}: {text}" for group in groups if (text := _choice(group)))
    source = ", ".join(dict.fromkeys(source_name(record) for record in records))
    if not expectations:
        raise SpecError("--ref", source, f"a file with a VALID case ({'; '.join(notes) or 'it has none at all'})")
    return Reference(source, expectations, notes, tuple(records))


def check_tolerance(tolerance: float) -> float:
    """Refuse a tolerance that is none.

    Raises
    ------
    SpecError
    """
    if not 0 <= tolerance <= 100:
        raise SpecError("--tolerance", tolerance, "a number >= 0 and <= 100")
    return tolerance


def write_text(records: Sequence[Record], tolerance: float) -> str:
    """Write a reference from results, as TOML: step times, and the efficiency of what has a base.

    Of a case that was measured several times the longest step and the smallest efficiency are taken.

    Raises
    ------
    SpecError
        No case can be a reference.
    """
    entries = make_entries(records)
    included = [e for e in entries if e.included]
    if not included:
        raise SpecError("FILE", ", ".join(source_name(r) for r in records), "a file with a VALID case")
    lines = [f"# from {', '.join(dict.fromkeys(source_name(r) for r in records))}"]
    lines += [f"# left out: {printable(case_name(e.case))}: {e.exclusion}" for e in entries if not e.included]
    lines += [f"tolerance = {tolerance!r}"]
    varying = _varying(included)
    for group in _repeated(included):
        lines += ["", *_expect_lines(group, included, varying)]
    return "\n".join(lines) + "\n"


def _expectation(raw: dict[str, Any], number: int, general: float | None) -> Expectation:
    where = f"expect {number}: "
    try:
        parsed = convert(raw, _Expect)
    except SpecError as error:
        raise SpecError(where + error.key, error.value, error.allowed) from None
    limits = {
        metric: _limit(getattr(parsed, metric), f"{where}{metric}", better, general)
        for metric, better in BETTER.items()
        if getattr(parsed, metric) is not None
    }
    if not limits and parsed.verdict is None:
        raise SpecError(where + "keys", ", ".join(raw), f"at least one of {', '.join(BETTER)}, verdict")
    if not parsed.case:
        raise SpecError(where + "case", parsed.case, "keys that name the cases, e.g. { strategy = 'data', ranks = 2 }")
    case = read_wanted(parsed.case, f"{where}case.")
    return Expectation(printable(parsed.name or ""), case, limits, parsed.verdict or "")


def _limit(raw: _Limit, name: str, better: Better, general: float | None) -> Limit:
    """Turn what was written into a limit; exactly one of a limit and a reference."""
    right, wrong = ("at_most", "at_least") if better == "lower" else ("at_least", "at_most")
    for key in ("at_most", "at_least", "reference", "tolerance"):
        if getattr(raw, key) is not None:
            _require_finite(f"{name}.{key}", getattr(raw, key))
    if getattr(raw, wrong) is not None:
        raise SpecError(f"{name}.{wrong}", getattr(raw, wrong), f"{right}: {better} is better")
    exact = getattr(raw, right)
    if (exact is None) == (raw.reference is None):
        given = [key for key in raw.__struct_fields__ if getattr(raw, key) is not None]
        raise SpecError(name, ", ".join(given) or "nothing", f"either {right} or reference")
    if exact is not None:
        for key in ("interval", "tolerance"):
            if getattr(raw, key) is not None:
                raise SpecError(f"{name}.{key}", getattr(raw, key), f"nothing beside {right}, which is exact")
        return Limit(Interval(0, exact, exact, exact), is_reference=False)
    tolerance = raw.tolerance if raw.tolerance is not None else general
    if tolerance is None:
        raise SpecError(f"{name}.tolerance", None, "a number >= 0, here, at the top of the file or as --tolerance")
    value = float(raw.reference or 0.0)
    low, high = raw.interval or (value, value)
    if not (math.isfinite(high) and low <= value <= high):
        raise SpecError(f"{name}.interval", raw.interval, f"[low, high] around the reference {value:g}")
    return Limit(Interval(0, value, low, high), tolerance)


def _require_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise SpecError(name, value, "a finite number")


def _all_of(entry: Entry) -> Facts:
    """Everything a case is, but for its kernel, which may be a new one."""
    return {key: value for key, value in facts(entry.case).items() if key not in (KERNEL, "id")}


def _varying(entries: Sequence[Entry]) -> set[str]:
    every = [facts(e.case) for e in entries]
    return {key for known in every for key in known if any(other.get(key) != known[key] for other in every)}


def _repeated(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group the measurements of one case."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(json.dumps(_all_of(entry), sort_keys=True), []).append(entry)
    return list(groups.values())


def _slowest(group: Sequence[Entry]) -> Entry:
    return max(group, key=lambda e: e.step.median)


def _choice(group: Sequence[Entry]) -> str:
    """Say which of several measurements is the reference; empty where there is one."""
    times = sorted(e.step.median for e in group)
    span = f"{format_seconds(times[0])} to {format_seconds(times[-1])}"
    return f"measured {len(times)} times, {span}: the slowest is the reference" if len(times) > 1 else ""


def _expect_lines(group: Sequence[Entry], included: Sequence[Entry], varying: set[str]) -> Iterator[str]:
    entry = group[0]
    yield "[[expect]]"
    yield f"name = {_toml(case_name(entry.case))}"
    if choice := _choice(group):
        yield f"# {choice}"
    yield from _metric_lines("step_s", _slowest(group).step)
    efficiencies = [found for e in group if (found := _efficiency(e, included)) is not None]
    if efficiencies:
        yield from _metric_lines("efficiency", min(efficiencies, key=lambda i: i.median))
    yield "[expect.case]"
    for key, value in facts(entry.case).items():
        if value is None or value == "" or key in _NEVER_WRITTEN or key not in matchers():
            continue
        plain = defaults().get(key, None) == value or (key == "embed" and value == facts(entry.case)["hidden"])
        if key in _ALWAYS_WRITTEN or key in varying or not plain:
            yield f"{key} = {_toml(value)}"


def _efficiency(entry: Entry, included: Sequence[Entry]) -> Interval | None:
    """Measure the efficiency of a case; None without a base, and of the base itself."""
    base = find_base(entry, included)
    return None if base is None or base.entry.number == entry.number else make_point(entry, base).efficiency


def _metric_lines(metric: str, measured: Interval) -> Iterator[str]:
    if has_bounds(measured):
        ends = f", interval = [{measured.low!r}, {measured.high!r}]"
    else:
        yield f"# n = {measured.n} is too small for an interval: this median counts as exact"
        ends = ""
    yield f"{metric} = {{ reference = {measured.median!r}{ends} }}"


def _toml(value: object) -> str:
    """Write a plain value; JSON's text is TOML's but for what does not print."""
    return json.dumps(printable(value) if isinstance(value, str) else value, ensure_ascii=False)
