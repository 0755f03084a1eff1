"""What must hold of one case: how it is stored, what was measured, what is said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite, isnan, prod

import numpy as np

from hpcrnn.data_methods import EXACT
from hpcrnn.records.bubble import measured_bubble
from hpcrnn.records.compression import NO_CODEC
from hpcrnn.records.layout_case import DIMENSIONS, UNITS, shape_fault
from hpcrnn.records.layout_stored import StoredCase
from hpcrnn.records.record import BUSY_PHASES, OTHER, RANKS_AGREE, STEP, Case, FloatArray, strategy_of
from hpcrnn.records.split import CHAIN
from hpcrnn.records.statistics import is_outlier, median_interval
from hpcrnn.records.wrong import CLOSE, TICK_S, Wrong, first_wrong, is_ordered, marked, shown, value_at
from hpcrnn.recurrence import INEXACT


def misfit(case: Case) -> str:
    """What keeps the arrays of a case from fitting each other; empty where nothing does."""
    try:
        return shape_fault(case)
    except (TypeError, ValueError, IndexError) as error:  # an array without an axis
        return str(error)


# --- how a case is stored ---------------------------------------------------------------------------


def check_shapes(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Arrays have the lengths that ranks, phases and repetitions give them; the rows of a timeline can be."""
    if fault := misfit(case):
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
        yield from first_wrong(name, times, wrong, "a finite time > 0 (step) or >= 0", (rep, "rank", case.phases))


def check_phase_sums(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """The phases of a rank add up to its step; without the phase ``other`` to no more than it."""
    yield from _wrong_sums(case, "time", case.time_s, "rep")
    yield from _wrong_sums(case, "warmup", case.warmup_s, "warmup_rep")


def _wrong_sums(case: Case, name: str, times: FloatArray, rep: str) -> Iterator[Wrong]:
    """Find where the phases of an array of times (n, n_ranks, n_phases) do not add up; NaN is passed over."""
    step = case.phases.index(STEP)
    parts = [k for k in range(len(case.phases)) if k != step]
    sums, steps = times[:, :, parts].sum(axis=2), times[:, :, step]
    excess = np.abs(sums - steps) if OTHER in case.phases else sums - steps
    wrong = excess > CLOSE * np.abs(steps) + CLOSE * TICK_S
    expected = f"their step, {value_at(steps, wrong):.9g} s" if wrong.any() else ""
    yield from first_wrong(f"sum of phases of {name}", sums, wrong, expected, (rep, "rank"))


def check_cpu_times(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """CPU times are finite and not negative, or NaN; the phases of a rank add up to its step."""
    if (times := case.cpu_time_s) is None:
        return
    wrong = ~(np.isnan(times) | (np.isfinite(times) & (times >= 0)))
    yield from first_wrong("cpu_time", times, wrong, "a finite time >= 0, or NaN", ("rep", "rank", case.phases))
    yield from _wrong_sums(case, "cpu_time", times, "rep")


def check_losses(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """The loss of every step is finite; so is a gradient's norm where there is training."""
    expected = "a finite number: a run stops at any other"
    yield from first_wrong("loss", case.loss, ~np.isfinite(case.loss), expected, ("training_step",))
    norm = case.gradient_norm
    trains = case.spec["training"].get("mode") == "train"
    wrong = ~(np.isfinite(norm) & (norm >= 0)) if trains else norm < 0
    expected = "a finite number >= 0" if trains else "no negative number"
    yield from first_wrong("gradient_norm", norm, wrong, expected, ("training_step",))


def check_counts(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Operations and bytes are no negative numbers."""
    if not (isfinite(case.flops) and case.flops >= 0):
        yield Wrong("flops", f"{case.flops:g}", "a finite number >= 0")
    for name in ("bytes_sent", "peak_memory_bytes", "memory_bytes"):
        counts = getattr(case, name)
        yield from first_wrong(name, counts, counts < 0, "bytes >= 0", ("rank",))


def check_outliers(case: Case, stored: StoredCase) -> Iterator[Wrong]:
    """The repetitions that are marked are those that the rule marks."""
    wanted = is_outlier(case.step_s())
    found = stored.is_outlier
    if found is None or found.shape != wanted.shape:
        yield Wrong("is_outlier", "no mark for each repetition", f"{len(wanted)} marks")
    elif (found != wanted).any():
        yield Wrong("is_outlier", marked(found), f"{marked(wanted)} (Tukey's outer fences)")


def check_derived(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """The median lies within its interval and is positive; the bubble is a share."""
    if not len(case.time_s):
        return
    step, bubble = median_interval(case.step_s()), median_interval(measured_bubble(case))
    if not (isfinite(step.median) and step.median > 0) or not is_ordered(step):
        yield Wrong("median step", shown(step), "a positive median within its interval")
    if not isnan(bubble.median) and not (-CLOSE <= bubble.median <= 1 and is_ordered(bubble)):
        yield Wrong("bubble", shown(bubble), "a share of the step, 0 to 1")


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
    elif verdict.status == "VALID" and (inexact := _inexact_by_nature(case)):
        yield Wrong("verdict", f"VALID with {inexact}", "APPROXIMATE or INVALID: it is inexact by nature")
    elif verdict.status == "INVALID" and not failed:
        yield Wrong("verdict", f"INVALID, and all {n} checks passed", "a failed check")
    elif verdict.status == "APPROXIMATE" and case.method == CHAIN and not _inexact_by_nature(case):
        yield Wrong("verdict", "APPROXIMATE with method chain", "VALID or INVALID: the chain is exact")
    elif verdict.status == "APPROXIMATE" and (unknown or apart):
        first = (unknown or apart)[0]
        yield Wrong(
            "verdict", f"APPROXIMATE, and {first.quantity} is off by {first.error:.3g}", "errors that are known"
        )


def _inexact_by_nature(case: Case) -> str:
    """Name what of a case computes something else than the serial run; empty where nothing does."""
    if case.method in INEXACT:
        return f"method {case.method}"
    if (data_method := case.split.data_method) not in ("", *EXACT):
        return f"data_method {data_method}"
    return "" if case.grad_codec == NO_CODEC else f"grad_codec {case.grad_codec}"


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
        yield from first_wrong("device_peak_bytes", peaks, peaks < 0, "bytes >= 0", ("rank",))
    if (times := case.device_time_s) is None:
        return
    work = np.isin(case.phases, BUSY_PHASES)
    wrong = ~np.isnan(times) & ~(work & np.isfinite(times) & (times >= 0))
    expected = f"a finite time >= 0 of {', '.join(BUSY_PHASES)}, NaN elsewhere"
    yield from first_wrong("device_time", times, wrong, expected, ("rep", "rank", case.phases))
