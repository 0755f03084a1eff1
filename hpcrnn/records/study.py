"""The record of a study of time-parallel methods: plain tables, each column with its unit, in one HDF5 file.

::

    / @schema_name @schema_version @created_utc  environment (JSON text)
    /tables/<name>  @columns (JSON: their order)  @facts (JSON)
        row                                      dimension scale
        <column>[row] @units                     float64, int64 or text

What the tables hold is up to who made them; :mod:`hpcrnn.reporting.study.page` names those it draws.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.hdf5 import read_unsealed
from hpcrnn.records.layout import check_schema
from hpcrnn.records.layout_fields import (
    MalformedError,
    parse_json,
    read_array,
    read_attribute,
    read_group,
    read_json,
    read_member,
    read_texts,
)
from hpcrnn.records.whole_file import write_output

SCHEMA_NAME = "hpcrnn-time-study"
SCHEMA_VERSION = 1

ROW = "row"
"""The dimension of every column; no column may have its name."""

Column = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class StudyTable:
    """One table.

    Attributes
    ----------
    name : str
    columns : dict of str to array (n,)
        Of numbers or texts; integers and truth values are kept as int64, other numbers as float64.
    units : dict of str to str
        By column; without an entry a column is a plain number or a name.
    facts : dict
        What holds for the whole table: plain values.
    """

    name: str
    columns: dict[str, Column]
    units: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def fault(self) -> str:
        """What keeps the columns from being a table; empty where nothing does."""
        lengths = {name: np.shape(column) for name, column in self.columns.items()}
        if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
            return f"its columns are of several lengths: {lengths}"
        if ROW in self.columns:
            return f"no column may be called {ROW}"
        strangers = sorted(set(self.units) - set(self.columns))
        return f"it has units of columns that are not there: {', '.join(strangers)}" if strangers else ""


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """One file.

    Attributes
    ----------
    created_utc : str
    environment : dict
        As in :class:`~hpcrnn.records.record.Record`.
    tables : tuple of StudyTable
    """

    created_utc: str
    environment: dict[str, Any]
    tables: tuple[StudyTable, ...]

    def table(self, name: str) -> StudyTable | None:
        """Return the table of a name; None where there is none."""
        return next((table for table in self.tables if table.name == name), None)


def write_study_record(record: StudyRecord, path: Path) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    ValueError
        A table is none: its maker has a bug.
    FileError
        The file cannot be written.
    """
    write_output(path, encode_study_record(record), inputs=(), overwrite=True)


def encode_study_record(record: StudyRecord) -> bytes:
    """Make the file of a study, all of its bytes.

    Raises
    ------
    ValueError
        A table is none: its maker has a bug.
    """
    import h5py

    for table in record.tables:
        if table.fault:
            message = f"table {table.name}: {table.fault}"
            raise ValueError(message)
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs.update(schema_name=SCHEMA_NAME, schema_version=SCHEMA_VERSION, created_utc=record.created_utc)
        file["environment"] = json.dumps(record.environment, sort_keys=True, default=_plain)
        tables = file.create_group("tables")
        for table in record.tables:
            _fill(tables.create_group(table.name), table)
    return content.getvalue()


def read_study_record(path: Path) -> StudyRecord:
    """Read a file.

    Raises
    ------
    FileError
        It is not there, not such a file, damaged, or from a newer hpcrnn.
    """
    return read_unsealed(path, _parse, f"a study of time-parallel methods ({SCHEMA_NAME})")


def _parse(file: Any) -> StudyRecord:
    check_schema(file, SCHEMA_NAME, SCHEMA_VERSION)
    environment = read_json(file, "environment")
    if not isinstance(environment, dict):
        raise MalformedError("/environment", "is no table")
    tables = read_group(file, "tables")
    found = tuple(_parse_table(name, read_group(tables, name)) for name in tables)
    return StudyRecord(read_attribute(file, "created_utc", str), environment, found)


def _fill(group: Any, table: StudyTable) -> None:
    group.attrs["columns"] = json.dumps(list(table.columns))
    group.attrs["facts"] = json.dumps(table.facts, sort_keys=True, default=_plain)
    group.create_dataset(ROW, data=np.arange(len(table), dtype=np.int64)).make_scale(ROW)
    for name, column in table.columns.items():
        dataset = group.create_dataset(name, data=_kept(column))
        dataset.dims[0].attach_scale(group[ROW])
        if name in table.units:
            dataset.attrs["units"] = table.units[name]


def _kept(column: Column) -> Column:
    """Bring a column to the type it is kept in."""
    import h5py

    values = np.asarray(column)
    if values.dtype.kind in "USO":
        return np.array([str(value) for value in values], dtype=h5py.string_dtype())
    return values.astype(np.int64 if values.dtype.kind in "iub" else np.float64)


def _parse_table(name: str, group: Any) -> StudyTable:
    names, facts = (parse_json(read_attribute(group, key, str), f"{group.name}@{key}") for key in ("columns", "facts"))
    if not isinstance(names, list) or not all(isinstance(column, str) for column in names):
        raise MalformedError(group.name, "has columns that are no list of names")
    if not isinstance(facts, dict):
        raise MalformedError(group.name, "has facts that are no table")
    columns = {column: _read_column(group, column) for column in names}
    units = {column: read_attribute(group[column], "units", str) for column in names if "units" in group[column].attrs}
    table = StudyTable(name, columns, units, facts)
    if table.fault:
        raise MalformedError(group.name, f"is no table: {table.fault}")
    return table


def _read_column(group: Any, name: str) -> Column:
    kind = getattr(getattr(read_member(group, name), "dtype", None), "kind", "")
    if kind in ("O", "S"):
        return np.array(read_texts(group, name), dtype=np.str_)
    return read_array(group, name, np.int64 if kind == "i" else np.float64)


def _plain(value: object) -> object:
    """Return what JSON has a form for."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
