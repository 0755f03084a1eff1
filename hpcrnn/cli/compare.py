"""``hpcrnn compare``: what of one file is faster in another, what slower, and what cannot be told."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcrnn.cli.output import console, json_text
from hpcrnn.cli.parser import Parser
from hpcrnn.errors import EXIT_VALID, UnreadableError


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("a", type=Path, metavar="A")
    parser.add_argument("b", type=Path, metavar="B", help="may be A, with cases chosen")
    for side in ("a", "b"):
        text = f"cases of {side.upper()} to take, e.g. strategy=data ranks=2"
        parser.add_argument(
            f"--{side}", dest=f"of_{side}", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text
        )
    parser.add_argument("--across", action="store_true", help="compare different problems and precisions too")
    parser.add_argument("--all", action="store_true", help="show every pair; default: the first 40")
    parser.add_argument("--json", action="store_true", help="for programs, instead of tables")
    parser.set_defaults(command=compare)


def compare(arguments: argparse.Namespace) -> int:
    """Compare two files."""
    from hpcrnn.records.reading import read_all
    from hpcrnn.reporting.comparison.compare import compare as compare_records
    from hpcrnn.reporting.comparison.compare import to_json
    from hpcrnn.reporting.comparison.matching import read_words
    from hpcrnn.reporting.terminal.comparison import show_comparison

    of_a, of_b = read_words(arguments.of_a, "--a"), read_words(arguments.of_b, "--b")
    reading_a, reading_b = (read_all([path]) for path in (arguments.a, arguments.b))
    if unreadable := dict.fromkeys([*reading_a.unreadable, *reading_b.unreadable]):
        raise UnreadableError(tuple(unreadable))
    a, b = reading_a.records, reading_b.records
    comparison = compare_records(a, b, of_a=of_a, of_b=of_b, across=arguments.across)
    if arguments.json:
        sys.stdout.write(json_text(to_json(comparison)))
    else:
        show_comparison(comparison, console(), every=arguments.all)
    return EXIT_VALID
