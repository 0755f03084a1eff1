"""What must hold in every result file, as small checks with names: what ``hpcrnn verify`` looks at.

A checksum says that a file is what was written; these say that what was written can be true. Each check takes one case
(or the whole record) with what its file says besides, and yields what is wrong; nothing is an error that a run of any
version could have written. What a check means for a reader is in ``docs/file_format.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from hpcrnn.records.invariants_case import (
    check_bubble_bound,
    check_counts,
    check_cpu_times,
    check_derived,
    check_device,
    check_id,
    check_losses,
    check_outliers,
    check_phase_sums,
    check_scales,
    check_shapes,
    check_split,
    check_times,
    check_units,
    check_untimed,
    check_verdict,
    misfit,
)
from hpcrnn.records.invariants_certificate import (
    check_certificate_numbers,
    check_certificate_presence,
    check_certificate_shape,
    check_meeting,
)
from hpcrnn.records.invariants_compression import check_compression_numbers, check_compression_presence
from hpcrnn.records.invariants_learning import check_learning_curves, check_learning_presence
from hpcrnn.records.invariants_run import check_bases, check_merged_bases, check_order
from hpcrnn.records.invariants_timeline import check_timeline_repetition, check_timeline_times
from hpcrnn.records.invariants_work import check_work_numbers, check_work_presence
from hpcrnn.records.layout_stored import Stored, StoredCase, StoredFile
from hpcrnn.records.record import Case, Record
from hpcrnn.records.wrong import Wrong


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
        fits = not misfit(case)
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
    "cpu times": check_cpu_times,
    "timeline repetition": check_timeline_repetition,
    "timeline times": check_timeline_times,
    "certificate presence": check_certificate_presence,
    "certificate shape": check_certificate_shape,
    "certificate numbers": check_certificate_numbers,
    "compression presence": check_compression_presence,
    "compression numbers": check_compression_numbers,
    "learning presence": check_learning_presence,
    "learning curves": check_learning_curves,
    "work presence": check_work_presence,
    "work numbers": check_work_numbers,
    "meeting": check_meeting,
}
RUN_CHECKS: dict[str, RunCheck] = {"order": check_order, "bases": check_bases}
MERGED_CHECKS: dict[str, MergedCheck] = {"merged bases": check_merged_bases}
