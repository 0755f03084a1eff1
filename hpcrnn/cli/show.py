"""``hpcrnn show``: result files as a table in the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcrnn.cli.output import console
from hpcrnn.cli.parser import Parser
from hpcrnn.errors import EXIT_VALID


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--verbose", action="store_true", help="of GPUs: their time of each phase, how kernels are laid out"
    )
    parser.set_defaults(command=show)


def show(arguments: argparse.Namespace) -> int:
    """Show files."""
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.reporting.terminal.show import show as show_records

    show_records(read_records(arguments.files), console(), verbose=arguments.verbose)
    return EXIT_VALID
