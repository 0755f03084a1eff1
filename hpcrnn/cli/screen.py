"""``hpcrnn screen``: equal runs on many nodes, and the nodes that stand out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.output import console, json_text
from hpcrnn.cli.parser import Parser


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
    """Print what was seen; exit code 2 where a node computes wrong, 3 where one is slow."""
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.reporting.comparison.screening import screen as look_at
    from hpcrnn.reporting.comparison.screening import to_json
    from hpcrnn.reporting.terminal.screening import show_screening

    screening = look_at(read_records(arguments.files), arguments.tolerance)
    if arguments.json:
        sys.stdout.write(json_text(to_json(screening)))
    else:
        show_screening(screening, console())
    return screening.exit_code
