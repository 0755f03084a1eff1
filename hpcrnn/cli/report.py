"""``hpcrnn report``: figures, and a page in HTML and Markdown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcrnn.cli.parser import Parser, positive
from hpcrnn.cli.reading import exit_code_of, read_and_tell

if TYPE_CHECKING:
    from hpcrnn.records.reading import Reading


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, default=Path("plots/report"), metavar="DIR")
    parser.add_argument(
        "--figures", type=positive, metavar="N", help="of each kind; default: all while 40 or fewer, else 1"
    )
    parser.set_defaults(command=report)


def report(arguments: argparse.Namespace) -> int:
    """Write a report."""
    reading = read_and_tell(arguments.files)
    write_and_tell(reading, arguments.output, of_a_kind=arguments.figures)
    return exit_code_of(reading)


def write_and_tell(reading: Reading, folder: Path, *, of_a_kind: int | None = None) -> None:
    """Write the report of what could be read, which names what could not; nothing where nothing could."""
    if not reading.records:
        return
    from hpcrnn.reporting.report.write import write_report

    for path in write_report(reading.records, folder, of_a_kind=of_a_kind, unreadable=reading.unreadable):
        sys.stdout.write(f"written: {path}\n")
