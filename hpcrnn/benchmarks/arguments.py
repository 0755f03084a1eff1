"""Command lines of measuring scripts: what is wrong with one is said on one line. Needs no MPI."""

from __future__ import annotations

import argparse
from typing import NoReturn

from hpcrnn.errors import HpcrnnError


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises what is wrong in place of printing how it is all used."""

    def error(self, message: str) -> NoReturn:
        raise HpcrnnError(f"{message} ({self.prog} --help)")


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
