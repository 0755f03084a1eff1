"""``hpcrnn report``: figures, and a page in HTML and Markdown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.parser import Parser, positive
from hpcrnn.errors import EXIT_VALID


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
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.reporting.report.write import write_report

    for path in write_report(read_records(arguments.files), arguments.output, of_a_kind=arguments.figures):
        sys.stdout.write(f"written: {path}\n")
    return EXIT_VALID
