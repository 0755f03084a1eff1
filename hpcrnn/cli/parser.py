"""The parser all commands share: its errors are ours, told on one line with exit code 1."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hpcrnn.errors import HpcrnnError


class UsageError(HpcrnnError):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of writing and leaving: under mpirun only rank 0 is to speak.

    Parameters
    ----------
    add_flags : callable, optional
        Given the parser, adds its flags when it is first used: of ten commands nine are not.
    **options
        Those of ``argparse.ArgumentParser``. No flag may be abbreviated: what is short today is ambiguous tomorrow.
    """

    def __init__(self, *, add_flags: Callable[[Parser], None] | None = None, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self._add_flags = add_flags

    def parse_known_args(  # type: ignore[override]  # argparse has overloads for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        add_flags, self._add_flags = self._add_flags, None
        if add_flags is not None:
            add_flags(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (hpcrnn {self.prog.removeprefix('hpcrnn').strip()} --help)".replace("  ", " "))


def positive(text: str) -> int:
    """Read a number of one or more."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


positive.__name__ = "positive number"  # how argparse names it


def counts(text: str) -> tuple[int, ...]:
    """Read numbers of one or more, ascending, each once: ``1,2,4``."""
    return tuple(sorted({positive(part) for part in text.split(",")}))


counts.__name__ = "list of positive numbers"
