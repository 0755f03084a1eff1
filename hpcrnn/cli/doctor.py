"""``hpcrnn doctor``: what this machine can run, and what is wrong with it."""

from __future__ import annotations

import argparse
import shutil
import sys

from hpcrnn.cli.parser import Parser
from hpcrnn.errors import EXIT_VALID, EXIT_WRONG_USE


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("--json", action="store_true", help="for programs, instead of lines")
    parser.set_defaults(command=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    """Examine the machine."""
    from hpcrnn.doctor import examine, render

    findings = examine()
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    sys.stdout.write(render(findings, as_json=arguments.json, columns=columns))
    return EXIT_WRONG_USE if any(f.level == "problem" for f in findings) else EXIT_VALID
