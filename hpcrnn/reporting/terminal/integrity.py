"""What ``hpcrnn verify`` says of files: that all holds, what does not, or why a file cannot be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpcrnn.errors import EXIT_INVALID, EXIT_VALID, EXIT_WRONG_USE, FileError
from hpcrnn.records.hdf5 import read_stored
from hpcrnn.records.invariants import Examination, Violation, examine
from hpcrnn.reporting.terminal.console import say
from hpcrnn.reporting.units import plural, printable

if TYPE_CHECKING:
    from rich.console import Console

_CODES = {"ok": EXIT_VALID, "wrong": EXIT_INVALID, "unreadable": EXIT_WRONG_USE}


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes
    ----------
    path : Path
    examination : Examination or None
        None where the file cannot be read.
    error : str
        Why it cannot be read, with its name; empty where it can.
    """

    path: Path
    examination: Examination | None
    error: str = ""

    @property
    def status(self) -> Literal["ok", "wrong", "unreadable"]:
        """In a word."""
        if self.examination is None:
            return "unreadable"
        return "wrong" if self.examination.violations else "ok"


def verify_file(path: Path) -> Outcome:
    """Look at one file; one that cannot be read is an outcome, not an error."""
    try:
        stored = read_stored(path)
    except FileError as error:
        return Outcome(path, None, str(error))
    return Outcome(path, examine(stored))


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """2 where a file is wrong; 1 where one cannot be read, whatever the others are: the answer is not complete."""
    statuses = {outcome.status for outcome in outcomes}
    return next((_CODES[status] for status in ("unreadable", "wrong") if status in statuses), EXIT_VALID)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print a line for a file that is right, or a line for each thing that is wrong; none for an unreadable file.

    Lines are never wrapped: each names its file, and is there to be searched for.
    """
    if (examination := outcome.examination) is None:
        return
    name = printable(str(outcome.path))
    for violation in examination.violations:
        say(console, f"{name}: {_sentence(violation)}", style="red", wrap=False)
    if outcome.status == "ok":
        counts = f"{plural(examination.n_cases, 'case')}, {plural(examination.n_checks, 'check')}"
        say(console, f"{name}: ok ({counts})", wrap=False)


def _sentence(violation: Violation) -> str:
    """``1f2e3d4c5b6a data 2 · numpy: loss[training_step 3]: found nan, expected a finite number (losses)``."""
    wrong, check = violation.wrong, violation.check
    where = f"{violation.case_id} {violation.label}: " if violation.case_id else ""
    run = f"run {violation.run}: " if violation.run is not None else ""
    return printable(f"{run}{where}{wrong.quantity}: found {wrong.found}, expected {wrong.expected} ({check})")


def render_json(outcomes: Sequence[Outcome]) -> str:
    """Write outcomes for programs: a list of one object a file."""
    return json.dumps([_as_object(outcome) for outcome in outcomes], indent=2) + "\n"


def _as_object(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {"file": str(outcome.path), "status": outcome.status}
    if outcome.examination is None:
        return found | {"error": outcome.error}
    violations = [
        {
            "check": violation.check,
            "run": violation.run,
            "case": violation.case_id,
            "label": violation.label,
            "quantity": violation.wrong.quantity,
            "found": violation.wrong.found,
            "expected": violation.wrong.expected,
        }
        for violation in outcome.examination.violations
    ]
    counts = {"n_cases": outcome.examination.n_cases, "n_checks": outcome.examination.n_checks}
    return found | counts | {"violations": violations}
