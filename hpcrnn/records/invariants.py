"""What must hold in every result file, as small checks with names: what ``hpcrnn verify`` looks at.

A checksum says that a file is what was written; these say that what was written can be true. Each check takes one case
(or the whole record) with what its file says besides, and yields what is wrong; nothing is an error that a run of any
version could have written. What a check means for a reader is in ``docs/file_format.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isclose, isfinite, isnan, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.baseline import best_serial, by_problem
from hpcrnn.records.bubble import measured_bubble
from hpcrnn.records.certificate import QUANTILES, SETTLED, UNMET, Certificate
from hpcrnn.records.layout_case import DIMENSIONS, UNITS, shape_fault
from hpcrnn.records.layout_stored import Stored, StoredCase, StoredFile
from hpcrnn.records.record import BUSY_PHASES, OTHER, RANKS_AGREE, STEP, Baseline, Case, Record, strategy_of
from hpcrnn.records.split import CHAIN
from hpcrnn.records.statistics import Interval, is_outlier, median_interval, ratio_interval
from hpcrnn.records.timeline import Kind, Message, Timeline, awaited, kind_of, read_post
from hpcrnn.recurrence import INEXACT

CLOSE = 1e-9
"""Relative difference that sums of nanoseconds kept as float64 may have."""
_TICK_S = 1e-8
"""Seconds that rounding may add up to where the readings of a clock are subtracted from one another."""


@dataclass(frozen=True)
class Wrong:
    """One thing that does not hold.

    Attributes
    ----------
    quantity : str
        What and where, e.g. ``time[rep 3, rank 0, forward]``.
    found, expected : str
    """

    quantity: str
    found: str
    expected: str


@dataclass(frozen=True)
class Violation:
    """A check that fails.

    Attributes
    ----------
    check : str
        Its name, a key of :data:`CASE_CHECKS`, :data:`RUN_CHECKS` or :data:`MERGED_CHECKS`.
    wrong : Wrong
    case_id, label : str
        The case by its group in the file and by its name; empty where it is about more than one.
    run : int or None
        Of a merged file, which of its runs; None where it is about more than one.
    """

    check: str
    wrong: Wrong
    case_id: str = ""
    label: str = ""
    run: int | None = None


@dataclass(frozen=True)
class Examination:
    """What was looked at in one file, and what was found.

    Attributes
    ----------
    n_cases, n_checks : int
        A check counts once for each case it was made of; the checksum is one.
    violations : tuple of Violation
    """

    n_cases: int
    n_checks: int
    violations: tuple[Violation, ...]


def examine(file: StoredFile) -> Examination:
    """Make every check of a file whose checksum was right.

    A case whose arrays do not fit each other cannot be looked at any further, nor can the bases of its file.
    """
    merged = file.merged_baselines is not None
    found: list[Violation] = []
    n_checks, fits = 1, True
    for number, (record, stored) in enumerate(file.runs):
        n, whole, violations = _examine_run(record, stored)
        n_checks, fits = n_checks + n, fits and whole
        found += [replace(violation, run=number if merged else None) for violation in violations]
    if merged and fits:
        for name, check in MERGED_CHECKS.items():
            found += [Violation(name, wrong) for wrong in _made(name, check, file)]
        n_checks += len(MERGED_CHECKS)
    return Examination(sum(len(record.cases) for record, _ in file.runs), n_checks, tuple(found))


def _examine_run(record: Record, stored: Stored) -> tuple[int, bool, list[Violation]]:
    """Return how many checks were made of a run, whether the arrays of all its cases fit, and what is wrong."""
    found: list[Violation] = []
    n_checks, all_fit = 0, True
    for case, beside in zip(record.cases, stored.cases, strict=True):
        fits = not _misfit(case)
        checks = CASE_CHECKS if fits else {name: CASE_CHECKS[name] for name in ("shapes", "id")}
        for name, check in checks.items():
            faults = _made(name, check, case, beside)
            found += [Violation(name, wrong, beside.name, case.label) for wrong in faults]
        n_checks, all_fit = n_checks + len(checks), all_fit and fits
    if all_fit:
        for name, check_run in RUN_CHECKS.items():
            found += [Violation(name, wrong) for wrong in _made(name, check_run, record, stored)]
        n_checks += len(RUN_CHECKS)
    return n_checks, all_fit, found


def _made(name: str, check: Callable[..., Iterable[Wrong]], *of: object) -> list[Wrong]:
    """Make a check; that it cannot be made is wrong too: a specification, being JSON, may hold anything."""
    try:
        return list(check(*of))
    except Exception as error:  # noqa: BLE001 - whatever a file holds, the other checks and files are looked at
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return [Wrong(name, reason, "values that can be looked at")]


def _misfit(case: Case) -> str:
    """What keeps the arrays of a case from fitting each other; empty where nothing does."""
    try:
        return shape_fault(case)
    except (TypeError, ValueError, IndexError) as error:  # an array without an axis
        return str(error)


# --- how a case is stored ---------------------------------------------------------------------------


def check_shapes(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Arrays have the lengths that ranks, phases and repetitions give them; the rows of a timeline can be."""
    if fault := _misfit(case):
        yield Wrong("arrays", fault, "arrays that fit each other")


def check_id(case: Case, stored: StoredCase) -> Iterator[Wrong]:
    """A case lies under the identity that follows from what it ran."""
    if stored.name.partition("-")[0] != case.id:
        yield Wrong("id", stored.name, case.id)


def check_scales(_: Case, stored: StoredCase) -> Iterator[Wrong]:
    """Every axis has the dimension scale it should have, and is as long as that."""
    for path, array in stored.arrays.items():
        if (names := DIMENSIONS.get(path)) is None:
            continue  # of a later hpcrnn, which may add datasets
        found = [f"{name or 'none'} of {length}" for name, length in array.scales]
        wanted = [f"{name} of {length}" for name, length in zip(names, array.shape, strict=False)]
        if found != wanted:
            yield Wrong(f"dimension scales of {path}", ", ".join(found), ", ".join(wanted))


def check_units(_: Case, stored: StoredCase) -> Iterator[Wrong]:
    """Every dataset has the unit it should have, and the measure is a cost: lower is better."""
    for path, array in stored.arrays.items():
        if path in DIMENSIONS and array.unit != UNITS.get(path, ""):
            yield Wrong(f"units of {path}", repr(array.unit), repr(UNITS.get(path, "")))
    if stored.metric_kind != "cost":
        yield Wrong("metric_kind", repr(stored.metric_kind), "'cost'")


# --- what was measured ------------------------------------------------------------------------------


def check_times(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Times are finite; a step takes some, a phase may take none."""
    for name, times, rep in (("time", case.time_s, "rep"), ("warmup", case.warmup_s, "warmup_rep")):
        least = np.where(np.array(case.phases) == STEP, np.finfo(np.float64).tiny, 0.0)
        wrong = ~(np.isfinite(times) & (times >= least))
        yield from _first(name, times, wrong, "a finite time > 0 (step) or >= 0", (rep, "rank", case.phases))


def check_phase_sums(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """The phases of a rank add up to its step; without the phase ``other`` to no more than it."""
    step = case.phases.index(STEP)
    parts = [k for k in range(len(case.phases)) if k != step]
    whole = OTHER in case.phases
    for name, times, rep in (("time", case.time_s, "rep"), ("warmup", case.warmup_s, "warmup_rep")):
        sums, steps = times[:, :, parts].sum(axis=2), times[:, :, step]
        excess = np.abs(sums - steps) if whole else sums - steps
        wrong = excess > CLOSE * np.abs(steps) + CLOSE * _TICK_S
        expected = f"their step, {_at(steps, wrong):.9g} s" if wrong.any() else ""
        yield from _first(f"sum of phases of {name}", sums, wrong, expected, (rep, "rank"))


def check_losses(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """The loss of every step is finite; so is a gradient's norm where there is training."""
    expected = "a finite number: a run stops at any other"
    yield from _first("loss", case.loss, ~np.isfinite(case.loss), expected, ("training_step",))
    norm = case.gradient_norm
    trains = case.spec["training"].get("mode") == "train"
    wrong = ~(np.isfinite(norm) & (norm >= 0)) if trains else norm < 0
    expected = "a finite number >= 0" if trains else "no negative number"
    yield from _first("gradient_norm", norm, wrong, expected, ("training_step",))


def check_counts(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Operations and bytes are no negative numbers."""
    if not (isfinite(case.flops) and case.flops >= 0):
        yield Wrong("flops", f"{case.flops:g}", "a finite number >= 0")
    for name in ("bytes_sent", "peak_memory_bytes", "memory_bytes"):
        counts = getattr(case, name)
        yield from _first(name, counts, counts < 0, "bytes >= 0", ("rank",))


def check_outliers(case: Case, stored: StoredCase) -> Iterator[Wrong]:
    """The repetitions that are marked are those that the rule marks."""
    wanted = is_outlier(case.step_s())
    found = stored.is_outlier
    if found is None or found.shape != wanted.shape:
        yield Wrong("is_outlier", "no mark for each repetition", f"{len(wanted)} marks")
    elif (found != wanted).any():
        yield Wrong("is_outlier", _marked(found), f"{_marked(wanted)} (Tukey's outer fences)")


def check_derived(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """The median lies within its interval and is positive; the bubble is a share."""
    if not len(case.time_s):
        return
    step, bubble = median_interval(case.step_s()), median_interval(measured_bubble(case))
    if not (isfinite(step.median) and step.median > 0) or not _ordered(step):
        yield Wrong("median step", _shown(step), "a positive median within its interval")
    if not isnan(bubble.median) and not (-CLOSE <= bubble.median <= 1 and _ordered(bubble)):
        yield Wrong("bubble", _shown(bubble), "a share of the step, 0 to 1")


# --- what is said of it -----------------------------------------------------------------------------


def check_verdict(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A verdict is what its checks say."""
    verdict, n = case.verdict, len(case.verdict.checks)
    failed = [check for check in verdict.checks if not check.passed]
    unknown = [check for check in verdict.checks if not isfinite(check.error)]
    apart = [check for check in failed if check.quantity == RANKS_AGREE]
    if not n:
        yield Wrong("verdict", f"{verdict.status} without a check", "at least one check")
    elif verdict.status == "VALID" and failed:
        first = failed[0]
        what = f"{first.quantity} is off by {first.error:.3g}, allowed is {first.tolerance:.3g}"
        yield Wrong("verdict", f"VALID, and {len(failed)} of {n} checks failed: {what}", "no failed check")
    elif verdict.status == "VALID" and case.method in INEXACT:
        yield Wrong("verdict", f"VALID with method {case.method}", "APPROXIMATE or INVALID: it is inexact by nature")
    elif verdict.status == "INVALID" and not failed:
        yield Wrong("verdict", f"INVALID, and all {n} checks passed", "a failed check")
    elif verdict.status == "APPROXIMATE" and case.method == CHAIN:
        yield Wrong("verdict", "APPROXIMATE with method chain", "VALID or INVALID: the chain is exact")
    elif verdict.status == "APPROXIMATE" and (unknown or apart):
        first = (unknown or apart)[0]
        yield Wrong(
            "verdict", f"APPROXIMATE, and {first.quantity} is off by {first.error:.3g}", "errors that are known"
        )


def check_untimed(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """What is not right is not timed."""
    n = len(case.time_s) + len(case.warmup_s)
    if case.verdict.status == "INVALID" and n:
        yield Wrong("time and warmup", f"{n} timed steps of an INVALID case", "none: what is not right is not timed")


def check_split(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """The grid has as many places as there are ranks, and the strategy is the grid's."""
    grid = case.spec["parallel"].get("grid")
    if not isinstance(grid, Mapping):
        return
    if prod(grid.values()) != case.n_ranks:
        yield Wrong("n_ranks", str(case.n_ranks), f"{prod(grid.values())}, the places of the grid")
    if strategy_of(grid) != case.strategy:
        yield Wrong("strategy", case.strategy, f"{strategy_of(grid)}, which the grid is")


def check_bubble_bound(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """What a schedule must idle is a share of the step that is not all of it, or unknown."""
    if not isnan(case.bubble_bound) and not 0 <= case.bubble_bound < 1:
        yield Wrong("bubble_bound", f"{case.bubble_bound:g}", "a share in [0, 1), or NaN")


def check_device(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A device's own times are of the phases that are work, and not negative; its memory is not negative."""
    if (peaks := case.device_peak_bytes) is not None:
        yield from _first("device_peak_bytes", peaks, peaks < 0, "bytes >= 0", ("rank",))
    if (times := case.device_time_s) is None:
        return
    work = np.isin(case.phases, BUSY_PHASES)
    wrong = ~np.isnan(times) & ~(work & np.isfinite(times) & (times >= 0))
    expected = f"a finite time >= 0 of {', '.join(BUSY_PHASES)}, NaN elsewhere"
    yield from _first("device_time", times, wrong, expected, ("rep", "rank", case.phases))


# --- the timeline -----------------------------------------------------------------------------------

_PHASE_OF_WORK: dict[Kind, str] = {
    "forward": "forward",
    "backward": "backward",
    "weight gradient": "weight_gradient",
    "update": "update",
}


def phase_of(instruction: str) -> str:
    """Return the phase to which the time of an instruction was counted."""
    if (kind := kind_of(instruction)) in _PHASE_OF_WORK:
        return "post" if instruction == "Carry" else _PHASE_OF_WORK[kind]
    if kind == "waiting":
        what = awaited(instruction).partition(" ")[0]
        return f"wait_{what}" if what in ("recv", "send") else "allreduce"
    return "post" if isinstance(read_post(instruction), Message) else "allreduce"


def check_timeline_repetition(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A timeline shows the repetition that is nearest to the median."""
    if case.timeline is None:
        return
    away = np.abs(case.step_s() - np.median(case.step_s()))
    shown = case.timeline.repetition
    if away[shown] > away.min() + _TICK_S:
        yield Wrong("timeline/@repetition", str(shown), f"{int(away.argmin())}, the nearest to the median step")


def check_timeline_times(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A rank's instructions fit into its step, and those of a phase take what the phase took."""
    if (timeline := case.timeline) is None:
        return
    phase_of_row = np.array([phase_of(text) for text in timeline.instruction], dtype=object)
    step, times = case.phases.index(STEP), case.time_s[timeline.repetition]
    for rank in range(case.n_ranks):
        rows = timeline.rows_of(rank)
        if not len(rows):
            yield Wrong(f"timeline of rank {rank}", "no instruction", "at least one")
            continue
        yield from _fault_of_span(timeline, rows, float(times[rank, step]), rank)
        lasted = (timeline.end_s - timeline.start_s)[rows]
        for k, phase in enumerate(case.phases):
            if phase in (STEP, OTHER):
                continue
            spent, wanted = float(lasted[phase_of_row[rows] == phase].sum()), float(times[rank, k])
            if abs(spent - wanted) > CLOSE * wanted + _TICK_S:
                yield Wrong(f"timeline of rank {rank}, {phase}", f"{spent:.9g} s", f"{wanted:.9g} s, as in time")


def _fault_of_span(timeline: Timeline, rows: npt.NDArray[np.int64], step_s: float, rank: int) -> Iterator[Wrong]:
    span = float(timeline.end_s[rows].max() - timeline.start_s[rows].min())
    if span > step_s + CLOSE * step_s + _TICK_S:
        yield Wrong(f"timeline of rank {rank}", f"{span:.9g} s long", f"at most its step, {step_s:.9g} s")


# --- the certificate --------------------------------------------------------------------------------


def check_certificate_presence(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Solves have a certificate where steps were run; a chain has none."""
    wanted = case.method != CHAIN and len(case.loss) > 0
    if (case.certificate is not None) != wanted:
        found = "there" if case.certificate is not None else "not there"
        expected = f"{'one' if wanted else 'none'}: method {case.method}, {len(case.loss)} steps"
        yield Wrong("certificate", found, expected)


def check_certificate_shape(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A certificate is of the case's layers, directions, segments and rows."""
    if (certificate := case.certificate) is None:
        return
    grid, problem = dict(case.split.axes), case.spec["problem"]
    n_directions = 1 if case.spec["training"].get("mode") == "forward" else 2
    for name, found, wanted in (
        ("layer", len(certificate.layers), case.spec["model"].get("layers")),
        ("direction", len(certificate.directions), n_directions),
        ("segment", certificate.n_segments, grid.get("time", 1) * case.fold),
        ("row", certificate.meeting.shape[3], problem.get("batch")),
    ):
        if found != wanted:
            yield Wrong(f"certificate: {name}s", str(found), str(wanted))


def check_certificate_numbers(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Counts are not negative, work is no less than its critical path, a converged residual is in the tolerance."""
    if (certificate := case.certificate) is None:
        return
    axes = ("training_step", certificate.layers, certificate.directions)
    for name in ("rounds", "critical_steps", "row_steps", "n_unmet", "residual"):
        numbers = getattr(certificate, name)
        yield from _first(f"certificate/{name}", numbers, numbers < 0, "no negative number", axes)
    work, path = certificate.row_steps, certificate.critical_steps
    yield from _first("certificate/row_steps", work, work < path, "at least critical_steps", axes)
    tolerance = case.spec["recurrence"].get("tolerance")
    if isinstance(tolerance, float) and case.spec["recurrence"].get("halo_codec", "none") == "none":
        wrong = certificate.converged & ~(certificate.residual <= tolerance)
        expected = f"at most the tolerance {tolerance:g}, for it converged"
        yield from _first("certificate/residual", certificate.residual, wrong, expected, axes)


def check_meeting(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Unmet segments and quantiles of the last step are those of its meeting lengths."""
    certificate = case.certificate
    if certificate is None or not len(certificate.rounds):
        return
    lengths, axes = certificate.meeting, (certificate.layers, certificate.directions)
    wrong = (lengths < UNMET) | (lengths > case.spec["problem"].get("seq", np.inf))
    yield from _first(
        "certificate/meeting", lengths, wrong, "-1 to the steps of the sequence", (*axes, "segment", "row")
    )
    counts, unmet = certificate.n_unmet[-1], (lengths == UNMET).sum(axis=(2, 3))
    expected = f"{_at(unmet, counts != unmet):.0f}, as in meeting" if (counts != unmet).any() else ""
    yield from _first("certificate/n_unmet of the last step", counts, counts != unmet, expected, axes)
    stored, wanted = certificate.meeting_quantiles[-1], _quantiles(certificate)
    wrong = ~np.isclose(stored, wanted, rtol=CLOSE, atol=0, equal_nan=True)
    expected = f"{_at(wanted, wrong):g}, as in meeting" if wrong.any() else ""
    levels = tuple(f"quantile {q:g}" for q in QUANTILES)
    yield from _first("certificate/meeting_quantiles of the last step", stored, wrong, expected, (*axes, levels))


def _quantiles(certificate: Certificate) -> npt.NDArray[np.float64]:
    """Quantiles of the meeting lengths of those that met, shape (L, D, 6)."""
    found = np.full((*certificate.meeting.shape[:2], len(QUANTILES)), np.nan)
    for at in np.ndindex(found.shape[:2]):
        met = certificate.meeting[at][certificate.meeting[at] > SETTLED]
        if met.size:
            found[at] = np.quantile(met, QUANTILES)
    return found


# --- a run, and a whole file ------------------------------------------------------------------------


def check_order(_: Record, stored: Stored) -> Iterator[Wrong]:
    """Cases are numbered from 0, each number once."""
    indexes = [case.index for case in stored.cases]
    if indexes != list(range(len(indexes))):
        yield Wrong("cases/*/@index", _listed(indexes), f"0 to {len(indexes) - 1}, each once")


def check_bases(record: Record, stored: Stored) -> Iterator[Wrong]:
    """The base of each problem is its best serial run, and the speedups over it are positive numbers."""
    problems = by_problem(record.cases)
    for problem in dict.fromkeys([*problems, *stored.baselines]):
        cases = problems.get(problem, [])
        found, wanted = stored.baselines.get(problem), best_serial(cases)
        if not _same(found, wanted):
            yield Wrong(f"baseline/{problem}", _named(found), _named(wanted))
        if wanted is not None:
            yield from _faults_of_speedups(cases, wanted.case_id)


def _faults_of_speedups(cases: Iterable[Case], base_id: str) -> Iterator[Wrong]:
    timed = [(case, median_interval(case.step_s())) for case in cases if len(case.time_s)]
    base = min((step for case, step in timed if case.id == base_id), key=lambda step: step.median)
    for case, step in timed:
        speedup = ratio_interval(base, step)
        if case.verdict.status != "INVALID" and not (isfinite(speedup.median) and speedup.median > 0):
            yield Wrong(f"speedup of {case.label} ({case.id})", f"{speedup.median:g}", "a finite number > 0")


def check_merged_bases(file: StoredFile) -> Iterator[Wrong]:
    """The base of each problem of a merged file is the best serial run of all its runs, and the run named has it."""
    problems = by_problem(case for record, _ in file.runs for case in record.cases)
    stored = file.merged_baselines or {}
    for problem in dict.fromkeys([*problems, *stored]):
        found, run = stored.get(problem, (None, -1))
        wanted = best_serial(problems.get(problem, []))
        quantity = f"baseline/{problem}"
        if not _same(found, wanted):
            yield Wrong(quantity, _named(found), _named(wanted))
        elif found is not None:
            own = best_serial(_cases_of(file, run, problem))
            if not _same(own, found):
                yield Wrong(f"{quantity}/@run", f"run {run}, which has {_named(own)}", f"the run of {_named(found)}")


def _cases_of(file: StoredFile, run: int, problem: str) -> list[Case]:
    """Return the cases of a problem in a run; none where there is no such run."""
    records = [record for number, (record, _) in enumerate(file.runs) if number == run]
    return [case for record in records for case in record.cases if case.problem_id == problem]


def _same(one: Baseline | None, other: Baseline | None) -> bool:
    if one is None or other is None:
        return one is other
    same = (one.case_id, one.kind) == (other.case_id, other.kind)
    return same and isclose(one.time_s, other.time_s, rel_tol=CLOSE)


CaseCheck = Callable[[Case, StoredCase], Iterator[Wrong]]
RunCheck = Callable[[Record, Stored], Iterator[Wrong]]
MergedCheck = Callable[[StoredFile], Iterator[Wrong]]

CASE_CHECKS: dict[str, CaseCheck] = {
    "shapes": check_shapes,
    "id": check_id,
    "scales": check_scales,
    "units": check_units,
    "times": check_times,
    "phase sums": check_phase_sums,
    "losses": check_losses,
    "counts": check_counts,
    "outliers": check_outliers,
    "derived": check_derived,
    "verdict": check_verdict,
    "untimed": check_untimed,
    "split": check_split,
    "bubble bound": check_bubble_bound,
    "device": check_device,
    "timeline repetition": check_timeline_repetition,
    "timeline times": check_timeline_times,
    "certificate presence": check_certificate_presence,
    "certificate shape": check_certificate_shape,
    "certificate numbers": check_certificate_numbers,
    "meeting": check_meeting,
}
RUN_CHECKS: dict[str, RunCheck] = {"order": check_order, "bases": check_bases}
MERGED_CHECKS: dict[str, MergedCheck] = {"merged bases": check_merged_bases}


# --- words ------------------------------------------------------------------------------------------

Axis = str | tuple[str, ...]
"""How the places along an axis are called: a word before the number, or their own names."""


def _first(
    quantity: str, values: npt.NDArray[Any], wrong: npt.NDArray[np.bool_], expected: str, axes: tuple[Axis, ...]
) -> Iterator[Wrong]:
    """Name the first place where something is wrong, and say how many more there are."""
    if not wrong.any():
        return
    place = [axis[k] if isinstance(axis, tuple) else f"{axis} {k}" for axis, k in zip(axes, _place(wrong), strict=True)]
    more = int(wrong.sum()) - 1
    found = f"{_at(values, wrong):.9g}" + (f" (and {more} more like it)" if more else "")
    yield Wrong(f"{quantity}[{', '.join(place)}]", found, expected)


def _place(wrong: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(k) for k in np.argwhere(wrong)[0])


def _at(values: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> float:
    """Return the value at the first place where something is wrong."""
    return float(values[_place(wrong)])


def _ordered(interval: Interval) -> bool:
    """Whether the median lies within its interval, where there is one."""
    return isnan(interval.low) or interval.low <= interval.median <= interval.high


def _shown(interval: Interval) -> str:
    return f"{interval.median:.6g} [{interval.low:.6g}, {interval.high:.6g}]"


def _marked(marks: npt.NDArray[np.bool_]) -> str:
    """Name the repetitions that are marked."""
    return f"repetitions {_listed(np.flatnonzero(marks).tolist())}" if marks.any() else "none"


def _listed(numbers: list[int], most: int = 8) -> str:
    rest = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + rest


def _named(baseline: Baseline | None) -> str:
    if baseline is None:
        return "none"
    return f"{baseline.kind} {baseline.case_id}, {baseline.time_s:.9g} s"
