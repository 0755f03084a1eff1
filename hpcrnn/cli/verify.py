"""``hpcrnn verify``: whether result files are what was written, and can be true."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.output import console
from hpcrnn.cli.parser import Parser
from hpcrnn.cli.reading import tell


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.description = (
        "Check result files: checksum, shapes, times, marks, bases, verdicts. Exit code 2 where one is wrong, 1 where "
        "one cannot be read; the others are looked at all the same."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="for programs, instead of lines")
    parser.set_defaults(command=verify)


def verify(arguments: argparse.Namespace) -> int:
    """Check every file, whatever the others are."""
    from hpcrnn.reporting.terminal.integrity import exit_code, print_outcome, render_json, verify_file

    outcomes = []
    for path in arguments.files:
        outcomes.append(verify_file(path))
        if not arguments.json:
            print_outcome(outcomes[-1], console())
            tell([outcomes[-1].error] if outcomes[-1].error else [])
    if arguments.json:
        sys.stdout.write(render_json(outcomes))
    return exit_code(outcomes)
