"""``hpcrnn sweep``: every point of a sweep, each under its own mpirun."""

from __future__ import annotations

import argparse
from pathlib import Path

from hpcrnn.cli.parser import Parser
from hpcrnn.cli.reading import exit_code_of, read_and_tell
from hpcrnn.cli.report import write_and_tell


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("spec", type=Path, metavar="SPEC.toml")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: results/NAME")
    parser.add_argument("--dry-run", action="store_true", help="say what would be started, and stop")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write the report there at the end")
    parser.set_defaults(command=sweep)


def sweep(arguments: argparse.Namespace) -> int:
    """Run what is not done yet; report where that is asked for."""
    from hpcrnn.benchmarks.sweep import load_sweep, run_sweep

    outcome = run_sweep(load_sweep(arguments.spec, arguments.output), dry_run=arguments.dry_run)
    if arguments.report and not arguments.dry_run and outcome.files:
        reading = read_and_tell(outcome.files)
        write_and_tell(reading, arguments.report)
        return outcome.exit_code or exit_code_of(reading)
    return outcome.exit_code
