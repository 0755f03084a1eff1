"""Where the runs of a merged file lie in HDF5: each in a group that is laid out as a file of its own would be.

So a run keeps its environment, its command line and every sample, and no run becomes part of another::

    / @schema_name = "hpcrnn-merged-records" @schema_version @created_utc @hpcrnn_version
    /runs/<n>  @origin             a record, and the name of the file it came from; n from 0
    /baseline/<problem>            @kind @case_id @time_s @run   of all runs together, derived

An hpcrnn that knows no merged files refuses them, for they have another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import hpcrnn
from hpcrnn.records.layout import check_version, fill, fill_baselines, parse
from hpcrnn.records.layout_fields import MalformedError, read_attribute, read_group
from hpcrnn.records.record import Record
from hpcrnn.records.statistics import median_interval

if TYPE_CHECKING:
    import h5py

MERGED_NAME = "hpcrnn-merged-records"
MERGED_VERSION = 1
"""Of the little that a merged file adds: each of its runs has the version of a record."""


def fill_merged(file: h5py.File, records: Sequence[Record]) -> None:
    """Write records into an empty file.

    Raises
    ------
    ValueError
        The arrays of a case do not fit each other: its maker has a bug.
    """
    file.attrs.update(
        schema_name=MERGED_NAME,
        schema_version=MERGED_VERSION,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        hpcrnn_version=hpcrnn.__version__,
    )
    runs = file.create_group("runs")
    for index, record in enumerate(records):
        group = runs.create_group(str(index))
        fill(group, record)
        group.attrs["origin"] = record.origin
    bases = file.create_group("baseline")
    fill_baselines(bases, tuple(case for record in records for case in record.cases))
    for base in bases.values():
        named = (base.attrs["case_id"], base.attrs["time_s"])
        base.attrs["run"] = next(n for n, record in enumerate(records) if named in _medians(record))


def parse_all(file: h5py.File, source: str) -> tuple[Record, ...]:
    """Read the records of a file: one, or those of a merged file.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type or shape, or comes from a newer version.
    """
    if not is_merged(file):
        return (parse(file, source),)
    runs = run_groups(file)
    return tuple(replace(parse(group, source), origin=read_attribute(group, "origin", str)) for group in runs)


def is_merged(file: h5py.File) -> bool:
    """Whether a file holds merged runs."""
    return "schema_name" in file.attrs and read_attribute(file, "schema_name", str) == MERGED_NAME


def run_groups(file: h5py.File) -> list[h5py.Group]:
    """Return the groups of a merged file's runs, in order.

    Raises
    ------
    MalformedError
        There are none, one is missing, or the file comes from a newer version.
    """
    check_version(file, MERGED_VERSION)
    runs = read_group(file, "runs")
    groups = [read_group(runs, name) for name in map(str, range(len(runs))) if name in runs]
    if not groups or len(groups) < len(runs):
        raise MalformedError(runs.name, "does not hold runs numbered from 0")
    return groups


def _medians(record: Record) -> set[tuple[str, float]]:
    return {(case.id, median_interval(case.step_s()).median) for case in record.cases}
