"""How commands read several files: what can be read is worked on, the rest is told, and the exit code is 1."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hpcrnn.errors import EXIT_VALID, EXIT_WRONG_USE

if TYPE_CHECKING:
    from hpcrnn.records.reading import Reading


def read_and_tell(paths: Iterable[Path]) -> Reading:
    """Read files, with a line on standard error for each that cannot be read."""
    from hpcrnn.records.reading import read_all

    reading = read_all(paths)
    tell(reading.unreadable)
    return reading


def tell(errors: Iterable[str]) -> None:
    """Write a line for each error, after what was said before."""
    sys.stdout.flush()
    for error in errors:
        sys.stderr.write(f"hpcrnn: error: {error}\n")


def exit_code_of(reading: Reading) -> int:
    """1 where a file could not be read, whatever was done with the others."""
    return EXIT_WRONG_USE if reading.unreadable else EXIT_VALID
