"""Several files at once: the bad ones do not keep the good ones from being read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import read_file
from hpcrnn.records.record import Record


@dataclass(frozen=True)
class Reading:
    """What came of reading several files.

    Attributes
    ----------
    records : tuple of Record
        In the order of the files; a merged file counts as the files it was made of.
    unreadable : tuple of str
        One line for each file that cannot be read: its name, and why.
    """

    records: tuple[Record, ...]
    unreadable: tuple[str, ...]


def read_all(paths: Iterable[Path]) -> Reading:
    """Read every file that can be read, and say of each other why it cannot."""
    records: list[Record] = []
    unreadable = []
    for path in paths:
        try:
            records += read_file(path)
        except FileError as error:
            unreadable.append(str(error))
    return Reading(tuple(records), tuple(unreadable))
