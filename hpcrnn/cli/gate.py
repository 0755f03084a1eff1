"""``hpcrnn gate``: results against a reference, for a scheduler or CI."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.output import console, json_text
from hpcrnn.cli.parser import Parser, UsageError
from hpcrnn.cli.reading import exit_code_of, read_and_tell
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
    parser.add_argument("--json", action="store_true", help="for programs, instead of the table")
    parser.add_argument("--json-out", type=Path, metavar="OUT.json", help="the same as a file; replaces an older one")
    parser.add_argument("--overwrite", action="store_true", help="replace an older REF.toml")
    parser.set_defaults(command=gate)


def gate(arguments: argparse.Namespace) -> int:
    """Judge files by a reference, or write one from them."""
    from hpcrnn.records.whole_file import check_output, write_output
    from hpcrnn.reporting.comparison.gate import judge, to_json
    from hpcrnn.reporting.comparison.gate_reference import load_reference, write_reference
    from hpcrnn.reporting.terminal.gate import show_outcome

    writes = arguments.write_ref is not None
    judging = {"--strict": arguments.strict, "--json": arguments.json, "--json-out": arguments.json_out}
    for flag, given in judging.items():
        if writes and given:
            raise UsageError(f"{flag} goes with --ref, not with --write-ref (hpcrnn gate --help)")
    if arguments.overwrite and not writes:
        raise UsageError("--overwrite goes with --write-ref (hpcrnn gate --help)")
    reading = read_and_tell(arguments.files)
    if not reading.records:
        return exit_code_of(reading)
    if writes:
        if reading.unreadable:
            raise UsageError(f"{arguments.write_ref} was not written: a reference without those files would ask less")
        options = {"inputs": arguments.files, "overwrite": arguments.overwrite}
        write_reference(reading.records, arguments.write_ref, arguments.tolerance, **options)
        sys.stdout.write(f"written: {arguments.write_ref}\n")
        return EXIT_VALID
    inputs = [*arguments.files, arguments.ref]
    if arguments.json_out:
        check_output(arguments.json_out, inputs, overwrite=True)
    reference = load_reference(arguments.ref, arguments.tolerance)
    outcome = judge(reading.records, reference, strict=arguments.strict, unreadable=reading.unreadable)
    if arguments.json_out:
        write_output(arguments.json_out, json_text(to_json(outcome)).encode(), inputs=inputs, overwrite=True)
    if arguments.json:
        sys.stdout.write(json_text(to_json(outcome)))
    else:
        show_outcome(outcome, console())
    return outcome.exit_code
