"""What a record file says besides the record: names, dimensions, units, and what was derived when it was written.

A reader needs none of it, for all of it follows from the record: whether it does is looked at in
:mod:`hpcrnn.records.invariants`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcrnn.records.layout import case_groups
from hpcrnn.records.layout_fields import read_attribute, read_member, read_truths
from hpcrnn.records.record import Baseline

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
    """What a file says besides its record.

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


def parse_stored(file: h5py.File) -> Stored:
    """Read it.

    Raises
    ------
    MalformedError
        Something is missing or has the wrong type.
    """
    return Stored(
        version=read_attribute(file, "schema_version", int),
        cases=tuple(_parse_case(group, name) for name, group in case_groups(file)),
        baselines={name: _parse_baseline(group) for name, group in read_member(file, "baseline").items()},
    )


def _parse_case(group: h5py.Group, name: str) -> StoredCase:
    import h5py

    found: dict[str, StoredArray] = {}

    def keep(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim and not item.is_scale:
            unit = read_attribute(item, "units", str) if "units" in item.attrs else ""
            found[path] = StoredArray(item.shape, tuple(_scale_of(axis) for axis in item.dims), unit)

    group.visititems(keep)
    return StoredCase(
        name=name,
        index=read_attribute(group, "index", int),
        metric_kind=read_attribute(group, "metric_kind", str),
        is_outlier=read_truths(group, "is_outlier") if "is_outlier" in group else None,
        arrays=found,
    )


def _scale_of(axis: h5py.h5ds) -> tuple[str, int]:
    """Name and length of the one dimension scale of an axis."""
    if len(axis) != 1:
        return "", 0
    return str(axis[0].name).rpartition("/")[2], int(axis[0].size)


def _parse_baseline(group: h5py.Group) -> Baseline:
    return Baseline(
        case_id=read_attribute(group, "case_id", str),
        time_s=read_attribute(group, "time_s", float),
        kind=read_attribute(group, "kind", str),
    )
