"""``hpcrnn export``: results for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.parser import Parser
from hpcrnn.cli.reading import exit_code_of, read_and_tell


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--to",
        choices=["csv", "json", "extrap", "perfetto"],
        required=True,
        help="csv: a row a raw sample; json: medians with intervals; extrap: times over ranks, for Extra-P; perfetto: "
        "timelines of runs with --trace, for https://ui.perfetto.dev",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="default: standard output; of perfetto, beside the first FILE"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older OUT; an input never is replaced")
    parser.add_argument("--summary", action="store_true", help="csv: a row a case instead")
    parser.add_argument("--curves", action="store_true", help="csv: a row an evaluation on held-out data instead")
    parser.add_argument("--raw", action="store_true", help="json: every sample too")
    parser.add_argument("--series", type=int, metavar="N", help="extrap: which series, where there are several")
    parser.set_defaults(command=export)


def export(arguments: argparse.Namespace) -> int:
    """Export files."""
    from hpcrnn.records.whole_file import check_output, write_output
    from hpcrnn.reporting.export.export import export as export_records
    from hpcrnn.reporting.export.export import write_standard_output

    output, overwrite = arguments.output, arguments.overwrite
    if output is None and arguments.to == "perfetto":
        first = arguments.files[0]
        # A name of our own; one without a name, like ".", is no file, which reading it says.
        output, overwrite = (first.with_name(f"{first.stem}.perfetto.json") if first.name else first), True
    reading = read_and_tell(arguments.files)
    if not reading.records:
        return exit_code_of(reading)
    if output is not None:
        check_output(output, arguments.files, overwrite=overwrite)
    options = {name: getattr(arguments, name) for name in ("summary", "curves", "raw", "series")}
    exported = export_records(reading.records, arguments.to, **options)
    for note in exported.notes:
        sys.stderr.write(f"hpcrnn: note: {note}\n")
    if output is None:
        write_standard_output(exported.content)
    else:
        write_output(output, exported.content, inputs=arguments.files, overwrite=overwrite)
        sys.stdout.write(f"written: {output}\n")
    return exit_code_of(reading)
