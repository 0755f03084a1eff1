"""Results for other programs: what ``hpcrnn export`` writes. ``docs/export.md`` says what is in each format."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcrnn.errors import FileError, HpcrnnError
from hpcrnn.records.record import Record
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.units import plural

OPTIONS = {"summary": "csv", "curves": "csv", "raw": "json", "series": "extrap"}
"""The format that each option belongs to."""


@dataclass(frozen=True)
class Export:
    """What a file shall hold, and what its reader should know that it does not say.

    Attributes
    ----------
    content : bytes
        UTF-8.
    notes : tuple of str
        One line each.
    """

    content: bytes
    notes: tuple[str, ...] = ()


def export(
    records: Sequence[Record],
    to: str,
    *,
    summary: bool = False,
    curves: bool = False,
    raw: bool = False,
    series: int | None = None,
) -> Export:
    """Bring records into a format.

    Parameters
    ----------
    records : sequence of Record
        One given twice (by its uuid) counts once.
    to : {"csv", "json", "extrap", "perfetto"}
    summary : bool
        Of csv: a row a case rather than a raw sample.
    curves : bool
        Of csv: a row an evaluation on held-out data.
    raw : bool
        Of json: every sample too.
    series : int, optional
        Of extrap: which series, from 1, where the files hold several.

    Raises
    ------
    HpcrnnError
        An option does not belong to the format, or the records hold nothing that can be brought into it.
    """
    given = {"summary": summary, "curves": curves, "raw": raw, "series": series is not None}
    for option, owner in OPTIONS.items():
        if given[option] and to != owner:
            raise HpcrnnError(f"--{option} belongs to --to {owner}, not to --to {to}")
    if summary and curves:
        raise HpcrnnError("--summary and --curves are two tables: give one of them")
    unique = tuple({record.uuid: record for record in reversed(records)}.values())[::-1]
    entries = make_entries(unique)
    if to == "csv":
        from hpcrnn.reporting.export.as_csv import learning_rows, sample_rows, summary_rows, to_csv

        if curves and not any(entry.case.learning for entry in entries):
            raise FileError("no case of these files was trained to a target: run it with --mode target")
        rows = summary_rows if summary else learning_rows if curves else sample_rows
        return Export(to_csv(rows(entries)))
    if to == "json":
        from hpcrnn.reporting.export.as_json import json_export

        return Export(_json(json_export(unique, entries, raw=raw)))
    if to == "extrap":
        from hpcrnn.reporting.export.as_extrap import extrap_input, find_series

        found = find_series(entries, series)
        return Export(_json(extrap_input(found)), (*_excluded(entries), *found.notes))
    from hpcrnn.reporting.export.as_perfetto import perfetto_trace

    return Export(_json(perfetto_trace(unique)))


def write_standard_output(content: bytes) -> None:
    """Write bytes where the output of the program goes; a reader that has had enough is no error.

    Raises
    ------
    FileError
        It cannot be written, as where it goes to a full disk.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _forget_output()
    except OSError as error:
        _forget_output()
        raise FileError(f"standard output: cannot be written: {error.strerror or error}") from None


def _forget_output() -> None:
    """Send what is still in the buffer to nowhere: it would be tried once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json(value: dict[str, Any]) -> bytes:
    # What is no text, as a file name may be, becomes the escape that JSON has for it.
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")


def _excluded(entries: Sequence[Entry]) -> tuple[str, ...]:
    excluded = [entry for entry in entries if not entry.included]
    named = ", ".join(f"no. {entry.number} ({entry.exclusion})" for entry in excluded)
    return (f"{plural(len(excluded), 'case')} left out: {named}",) if excluded else ()
