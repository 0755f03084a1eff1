"""What a record file says besides the record: names, dimensions, units, and what was derived when it was written.

A reader needs none of it, for all of it follows from the record: whether it does is looked at in
:mod:`hpcrnn.records.invariants`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcrnn.records.layout import case_groups, parse_unchecked
from hpcrnn.records.layout_fields import read_attribute, read_group, read_truths
from hpcrnn.records.layout_merged import is_merged, run_groups
from hpcrnn.records.record import Baseline, Record

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True)
class StoredArray:
    """How a dataset of a case is labelled.

    Attributes
    ----------
    shape : tuple of int
    scales : tuple of (str, int)
        Of each axis, the name and the length of its dimension scale; an empty name where it has none, or several.
    unit : str
        Empty for a plain number.
    """

    shape: tuple[int, ...]
    scales: tuple[tuple[str, int], ...]
    unit: str


@dataclass(frozen=True, eq=False)
class StoredCase:
    """What the file says of a case besides the case.

    Attributes
    ----------
    name : str
        Of its group: its id, and the number of a twin.
    index : int
        Its place among the cases, from 0.
    metric_kind : str
    is_outlier : bool array or None
        The marks of the repetitions; None where the file has none.
    arrays : dict of str to StoredArray
        By path below the group, e.g. ``validation/error``; scalars and dimension scales are not among them.
    """

    name: str
    index: int
    metric_kind: str
    is_outlier: npt.NDArray[np.bool_] | None
    arrays: dict[str, StoredArray]


@dataclass(frozen=True, eq=False)
class Stored:
    """What is said of a run besides its record.

    Attributes
    ----------
    version : int
        Of the schema.
    cases : tuple of StoredCase
        In the order of the record's.
    baselines : dict of str to Baseline
        The base of each problem, by its id.
    """

    version: int
    cases: tuple[StoredCase, ...]
    baselines: dict[str, Baseline]


@dataclass(frozen=True, eq=False)
class StoredFile:
    """All that a file says.

    Attributes
    ----------
    runs : tuple of (Record, Stored)
        One, or those of a merged file.
    merged_baselines : dict of str to (Baseline, int), or None
        Of a merged file, the base of each problem over all runs, and the number of the run that has it.
    """

    runs: tuple[tuple[Record, Stored], ...]
    merged_baselines: dict[str, tuple[Baseline, int]] | None


def parse_stored_file(file: h5py.File, source: str) -> StoredFile:
    """Read all of it.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type, or comes from a newer version.
    """
    merged = is_merged(file)
    groups = run_groups(file) if merged else [file]
    runs = tuple((parse_unchecked(group, source), _parse_stored(group)) for group in groups)
    if not merged:
        return StoredFile(runs, None)
    bases = read_group(file, "baseline")
    found = {name: (_parse_baseline(bases[name]), read_attribute(bases[name], "run", int)) for name in bases}
    return StoredFile(runs, found)


def _parse_stored(group: h5py.Group) -> Stored:
    bases = read_group(group, "baseline")
    return Stored(
        version=read_attribute(group, "schema_version", int),
        cases=tuple(_parse_case(case, name) for name, case in case_groups(group)),
        baselines={name: _parse_baseline(bases[name]) for name in bases},
    )


def _parse_case(group: h5py.Group, name: str) -> StoredCase:
    import h5py

    arrays: dict[str, h5py.Dataset] = {}
    scales: dict[h5py.Dataset, str] = {}

    def keep(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim:
            if item.is_scale:
                scales[item] = path.rpartition("/")[2]
            else:
                arrays[path] = item

    group.visititems(keep)
    found = {
        path: StoredArray(
            item.shape,
            tuple(_scale_of(axis, scales) for axis in item.dims),
            read_attribute(item, "units", str) if "units" in item.attrs else "",
        )
        for path, item in arrays.items()
    }
    return StoredCase(
        name=name,
        index=read_attribute(group, "index", int),
        metric_kind=read_attribute(group, "metric_kind", str),
        is_outlier=read_truths(group, "is_outlier") if "is_outlier" in group else None,
        arrays=found,
    )


def _scale_of(axis: h5py.h5ds, scales: Mapping[h5py.Dataset, str]) -> tuple[str, int]:
    """Name and length of the one dimension scale of an axis."""
    if len(axis) != 1:
        return "", 0
    scale = axis[0]
    # To name what a reference leads to, HDF5 searches the file from its root: each case would cost a look at all.
    name = scales.get(scale)
    return str(scale.name).rpartition("/")[2] if name is None else name, int(scale.size)


def _parse_baseline(group: h5py.Group) -> Baseline:
    return Baseline(
        case_id=read_attribute(group, "case_id", str),
        time_s=read_attribute(group, "time_s", float),
        kind=read_attribute(group, "kind", str),
    )
