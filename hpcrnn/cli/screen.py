"""``hpcrnn screen``: equal runs on many nodes, and the nodes that stand out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.output import console, json_text
from hpcrnn.cli.parser import Parser
from hpcrnn.cli.reading import exit_code_of, read_and_tell


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of one node each; jobs/node_screen.sbatch")
    parser.add_argument(
        "--tolerance", type=_fraction, default=0.05, metavar="X", help="allowed difference; default 0.05"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(command=screen)


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise ValueError
    return value


_fraction.__name__ = "number between 0 and 1"  # how argparse names it


def screen(arguments: argparse.Namespace) -> int:
    """Print what was seen; exit code 2 where a node computes wrong, 3 where one is slow, 1 for a file not readable."""
    from hpcrnn.reporting.comparison.screening import screen as look_at
    from hpcrnn.reporting.comparison.screening import to_json
    from hpcrnn.reporting.terminal.screening import show_screening

    reading = read_and_tell(arguments.files)
    if not reading.records:
        return exit_code_of(reading)
    screening = look_at(reading.records, arguments.tolerance)
    if arguments.json:
        sys.stdout.write(json_text(to_json(screening)))
    else:
        show_screening(screening, console())
    # A node that left no readable file was not seen: the answer is not complete.
    return exit_code_of(reading) or screening.exit_code
