"""Several result files as one: shards of a sweep, tasks of a job array.

Runs stay apart, each with its environment and its samples.  What was measured twice is there twice, for samples of
two runs are not of one distribution; what was *given* twice is there once, known by the uuid of its run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hpcrnn.errors import FileError, UnreadableError, printable
from hpcrnn.records.hdf5 import write_merged
from hpcrnn.records.layout_fields import to_json
from hpcrnn.records.reading import read_all
from hpcrnn.records.record import Record
from hpcrnn.records.whole_file import check_output


@dataclass(frozen=True)
class Merger:
    """What became of the inputs of a merge.

    Attributes
    ----------
    records : tuple of Record
        In the order given, each run once; ``origin`` names its file.
    damaged : tuple of str
        One line for each file that cannot be read.
    repeated : tuple of str
        One line for each run that was given more than once.
    """

    records: tuple[Record, ...]
    damaged: tuple[str, ...]
    repeated: tuple[str, ...]


def merge_files(paths: Sequence[Path], output: Path, *, skip_damaged: bool, overwrite: bool) -> Merger:
    """Merge files into one; every run of a file that is merged itself keeps the file it first came from.

    Parameters
    ----------
    paths : sequence of Path
    output : Path
    skip_damaged : bool
        Merge what can be read where some cannot.
    overwrite : bool
        Whether an older ``output`` may be replaced; an input never is.

    Returns
    -------
    Merger

    Raises
    ------
    UnreadableError
        A file cannot be read; all of those are named, and nothing is written.
    FileError
        Two files hold different results of one run, or the output cannot be written;
        then nothing is written.
    """
    check_output(output, paths, overwrite=overwrite)
    reading = read_all(paths)
    damaged = reading.unreadable
    if not reading.records:
        raise UnreadableError(damaged, "nothing was merged, for no file can be read")
    if damaged and not skip_damaged:
        raise UnreadableError(damaged, "nothing was merged, --skip-damaged merges the rest")
    found = [replace(record, origin=record.origin or printable(record.source)) for record in reading.records]
    records, repeated = unite(found)
    write_merged(records, output, inputs=paths, overwrite=overwrite)
    return Merger(records, damaged, repeated)


def unite(records: Iterable[Record]) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Keep each run once.

    Of an unfinished and a finished state of a run the finished one is kept.

    Returns
    -------
    records : tuple of Record
    repeated : tuple of str
        One line for each that was left out.

    Raises
    ------
    FileError
        Two records have the uuid of one run, and differ.
    """
    kept: dict[str, Record] = {}
    repeated = []
    for record in records:
        other = kept.get(record.uuid)
        if other is None:
            kept[record.uuid] = record
            continue
        if record.complete != other.complete:
            kept[record.uuid], other = (record, other) if record.complete else (other, record)
            repeated.append(f"{_place(other)}: an unfinished state of the run in {_place(kept[record.uuid])}: left out")
        elif _content(record) == _content(other):
            repeated.append(f"{_place(record)}: the run that is in {_place(other)} too: kept once")
        else:
            raise FileError(
                f"{_place(record)} and {_place(other)} hold different results under the uuid of one run, "
                f"{record.uuid}: leave one of them out"
            )
    return tuple(kept.values()), tuple(repeated)


def _place(record: Record) -> str:
    """Name the file a record was read from, and the one it came from where that is another."""
    source = printable(record.source)
    return source if record.origin in ("", source) else f"{source} ({record.origin})"


def _content(record: Record) -> str:
    """All of a record but the names of its files: equal where, and only where, it is the same to the last bit."""
    return to_json(asdict(replace(record, source="", origin="")))
