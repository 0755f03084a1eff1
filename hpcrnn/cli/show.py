"""``hpcrnn show``: result files as a table in the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcrnn.cli.output import console
from hpcrnn.cli.parser import Parser
from hpcrnn.cli.reading import exit_code_of, read_and_tell


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="percentiles, busy and waiting time of ranks, where their time goes, checks, and what GPUs say",
    )
    parser.set_defaults(command=show)


def show(arguments: argparse.Namespace) -> int:
    """Show files."""
    from hpcrnn.reporting.terminal.show import show as show_records

    reading = read_and_tell(arguments.files)
    if reading.records:
        show_records(reading.records, console(), verbose=arguments.verbose)
    return exit_code_of(reading)
