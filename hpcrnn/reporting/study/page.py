"""Figures of a study of time-parallel methods, and a page that shows them.

``python -m hpcrnn.reporting.study results/time/study.h5 -o plots/time``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcrnn.errors import HpcrnnError
from hpcrnn.records.study import StudyRecord, StudyTable, read_study_record
from hpcrnn.records.whole_file import unusable
from hpcrnn.reporting.figures.canvas import PNG_DPI, Drawing, drawing_style
from hpcrnn.reporting.study.chaos import draw_chaos
from hpcrnn.reporting.study.theory import draw_speedup, draw_tolerance
from hpcrnn.reporting.study.training import draw_training
from hpcrnn.reporting.tables.table import escape_markdown

AXES = ("forget_bias", "chrono_span", "gain")
"""Of the edge of chaos, a figure each."""


def draw_study(record: StudyRecord) -> Iterator[tuple[StudyTable, Drawing]]:
    """Draw every table that is there and holds a row; to be used under ``drawing_style()``."""
    for name, draw in (("speedup", draw_speedup), ("training", draw_training), ("tolerance", draw_tolerance)):
        if (table := record.table(name)) and len(table):
            yield table, draw(table)
    if (table := record.table("chaos")) and len(table):
        for axis in AXES:
            if (table.columns["axis"] == axis).any():
                yield table, draw_chaos(table, axis)


def write_report(record: StudyRecord, folder: Path) -> list[Path]:
    """Write the figures as PNG, and ``study.md``, which shows them.

    Returns
    -------
    list of Path
        The page first.

    Raises
    ------
    FileError
        The folder cannot be written, or a table, which may hold anything, holds what cannot be drawn.
    """
    try:
        return _write(record, folder)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise unusable(folder, f"was not written, for a table cannot be drawn: {error!r:.200}") from error
    except OSError as error:
        raise unusable(folder, f"cannot be written: {error.strerror or error}") from None


def _write(record: StudyRecord, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Parallel over time", "", f"Measured {escape_markdown(record.created_utc)}.", ""]
    written = []
    with drawing_style():
        for table, drawing in draw_study(record):
            path = folder / f"{drawing.name}.png"
            drawing.figure.savefig(path, dpi=PNG_DPI, metadata={"Software": None})
            written.append(path)
            lines += [f"## {drawing.title}", "", f"![{escape_markdown(drawing.alt)}]({path.name})", ""]
            lines += [escape_markdown(drawing.caption), ""]
            lines += [f"- {escape_markdown(key)}: {escape_markdown(value)}" for key, value in table.facts.items()]
            lines += [""] if table.facts else []
    page = folder / "study.md"
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return [page, *written]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of a file."""
    parser = argparse.ArgumentParser(description="figures of a study of time-parallel methods")
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("plots/time"))
    arguments = parser.parse_args(argv)
    try:
        written = write_report(read_study_record(arguments.file), arguments.out)
    except HpcrnnError as error:
        sys.stderr.write(f"hpcrnn: error: {error}\n")
        return error.exit_code
    for path in written:
        sys.stdout.write(f"written: {path}\n")
    return 0
