"""``hpcrnn merge``: several result files as one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.output import console
from hpcrnn.cli.parser import Parser
from hpcrnn.errors import EXIT_VALID


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.h5", help="OUT.h5.gz: packed")
    parser.add_argument("--skip-damaged", action="store_true", help="merge what can be read, and name the rest")
    parser.add_argument("--overwrite", action="store_true", help="replace an older OUT.h5; an input never is replaced")
    parser.set_defaults(command=merge)


def merge(arguments: argparse.Namespace) -> int:
    """Merge files, and show what is in the new one."""
    from hpcrnn.records.merge import merge_files
    from hpcrnn.reporting.terminal.show import show_runs

    options = {"skip_damaged": arguments.skip_damaged, "overwrite": arguments.overwrite}
    merger = merge_files(arguments.files, arguments.output, **options)
    for line in merger.damaged:
        sys.stderr.write(f"hpcrnn: skipped: {line}\n")
    for line in merger.repeated:
        sys.stderr.write(f"hpcrnn: note: {line}\n")
    show_runs(merger.records, console())
    sys.stdout.write(f"written: {arguments.output}\n")
    return EXIT_VALID
