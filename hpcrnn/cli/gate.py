"""``hpcrnn gate``: results against a reference, for a scheduler or CI."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.output import console, json_text
from hpcrnn.cli.parser import Parser, UsageError
from hpcrnn.errors import EXIT_VALID


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reference = parser.add_mutually_exclusive_group(required=True)
    reference.add_argument("--ref", type=Path, metavar="REF", help="limits (REF.toml), or an earlier result file")
    reference.add_argument("--write-ref", type=Path, metavar="REF.toml", help="write limits from FILE, and stop")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="what may be worse, 0.05 for a twentieth: of a result file, of all in REF.toml that has none of its own",
    )
    parser.add_argument("--strict", action="store_true", help="fail what the samples do not decide")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="for programs; replaces an older one")
    parser.add_argument("--overwrite", action="store_true", help="replace an older REF.toml")
    parser.set_defaults(command=gate)


def gate(arguments: argparse.Namespace) -> int:
    """Judge files by a reference, or write one from them."""
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.records.whole_file import check_output, write_output
    from hpcrnn.reporting.comparison.gate import judge, to_json
    from hpcrnn.reporting.comparison.gate_reference import load_reference, write_reference
    from hpcrnn.reporting.terminal.gate import show_outcome

    writes = arguments.write_ref is not None
    for flag, given in {"--strict": arguments.strict, "--json": arguments.json}.items():
        if writes and given:
            raise UsageError(f"{flag} goes with --ref, not with --write-ref (hpcrnn gate --help)")
    if arguments.overwrite and not writes:
        raise UsageError("--overwrite goes with --write-ref (hpcrnn gate --help)")
    records = read_records(arguments.files)
    if writes:
        options = {"inputs": arguments.files, "overwrite": arguments.overwrite}
        write_reference(records, arguments.write_ref, arguments.tolerance, **options)
        sys.stdout.write(f"written: {arguments.write_ref}\n")
        return EXIT_VALID
    inputs = [*arguments.files, arguments.ref]
    if arguments.json:
        check_output(arguments.json, inputs, overwrite=True)
    outcome = judge(records, load_reference(arguments.ref, arguments.tolerance), strict=arguments.strict)
    if arguments.json:
        write_output(arguments.json, json_text(to_json(outcome)).encode(), inputs=inputs, overwrite=True)
    show_outcome(outcome, console())
    return outcome.exit_code
