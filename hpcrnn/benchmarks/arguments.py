"""Command lines of measuring scripts: what is wrong with one is said on one line. Needs no MPI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from hpcrnn.errors import HpcrnnError
from hpcrnn.records.output import Output


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises what is wrong in place of printing how it is all used."""

    def error(self, message: str) -> NoReturn:
        raise HpcrnnError(f"{message} ({self.prog} --help)")


def add_output(parser: argparse.ArgumentParser, default: Path | None = None, *, ending: str = ".h5") -> None:
    """Add the flags that say where the results go."""
    shown = f"default {default}" if default else "default: they are only printed"
    text = f"the results, with all samples; {shown}"
    parser.add_argument("--out", type=Path, default=default, metavar=f"FILE{ending}", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace an older FILE")


def output_of(given: argparse.Namespace) -> Output | None:
    """Return what was asked for by the flags of :func:`add_output`; None where nothing is to be written."""
    return None if given.out is None else Output(given.out, overwrite=given.overwrite, key="--out")


def positive(text: str) -> int:
    """Read a whole number of at least one, for ``argparse``."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number of at least one")
    return int(text)


def positive_seconds(text: str) -> float:
    """Read a time above zero, for ``argparse``."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a number of seconds above zero")
    return value
