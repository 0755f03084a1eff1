"""The tables of a study of time-parallel methods, on disk."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcrnn.errors import FileError
from hpcrnn.records.study import StudyRecord, StudyTable, read_study_record, write_study_record

TABLE = StudyTable(
    "speedup",
    {
        "cell": np.array(["lstm", "grü ☃"]),
        "segments": np.array([2, 64], dtype=np.int32),
        "meeting": np.array([29.5, np.nan]),
        "converged": np.array([True, False]),
    },
    {"meeting": "time steps"},
    {"T": 65_536, "tolerance": np.float64(1e-6), "cells": ["lstm", "gru"]},
)
EMPTY = StudyTable("nothing", {"x": np.empty(0), "name": np.empty(0, dtype=np.str_)})
RECORD = StudyRecord("2026-01-01T00:00:00+00:00", {"hosts": [{"cpu": "☃"}]}, (TABLE, EMPTY, StudyTable("bare", {})))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "made" / "study.h5"
    write_study_record(RECORD, path)
    return path


def test_tables_come_back(path):
    found = read_study_record(path)
    assert (found.created_utc, found.environment) == (RECORD.created_utc, RECORD.environment)
    assert {table.name: len(table) for table in found.tables} == {"speedup": 2, "nothing": 0, "bare": 0}
    table = found.table("speedup")
    assert list(table.columns) == list(TABLE.columns)
    for name, column in TABLE.columns.items():
        np.testing.assert_array_equal(table.columns[name], column)
    assert [column.dtype.kind for column in table.columns.values()] == ["U", "i", "f", "i"]
    assert table.columns["segments"].dtype == np.int64
    assert table.units == {"meeting": "time steps"}
    assert table.facts == {"T": 65_536, "tolerance": 1e-6, "cells": ["lstm", "gru"]}
    assert found.table("none") is None
    assert [p.name for p in path.parent.iterdir()] == ["study.h5"]


@pytest.mark.filterwarnings("error")
def test_xarray_opens_a_table(path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_dataset(path, engine="h5netcdf", group="/tables/speedup") as data:
        assert dict(data.sizes) == {"row": 2}
        assert data["meeting"].attrs["units"] == "time steps"
        assert data["cell"].values.tolist() == ["lstm", "grü ☃"]


@pytest.mark.parametrize(
    ("columns", "units", "fault"),
    [
        ({"a": np.zeros(2), "b": np.zeros(3)}, {}, "columns are of several lengths"),
        ({"a": np.zeros((2, 2))}, {}, "columns are of several lengths"),
        ({"row": np.zeros(2)}, {}, "no column may be called row"),
        ({"a": np.zeros(2)}, {"b": "s"}, "units of columns that are not there: b"),
    ],
)
def test_what_is_no_table_is_a_bug(tmp_path, columns, units, fault):
    record = StudyRecord("", {}, (StudyTable("odd", columns, units),))
    with pytest.raises(ValueError, match=f"table odd: .*{fault}"):
        write_study_record(record, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileError, match=r"study\.h5: cannot be written: No space left on device$"):
        write_study_record(StudyRecord("later", {}, ()), path)
    assert read_study_record(path).created_utc == RECORD.created_utc
    assert [p.name for p in path.parent.iterdir()] == ["study.h5"]
    with pytest.raises(FileError, match="cannot be written"):
        write_study_record(RECORD, Path("/proc/none/a.h5"))


def test_other_files_are_refused_on_one_line(tmp_path, path):
    (tmp_path / "text").write_bytes(b"no")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:900])
    for name, reason in (
        ("none", "is not there"),
        ("text", "cannot be read as a study"),
        ("other.h5", "cannot be read as a study of time-parallel methods"),
        ("cut.h5", "is truncated: 900 of [0-9]+ bytes are left"),
    ):
        with pytest.raises(FileError, match=reason) as caught:
            read_study_record(tmp_path / name)
        assert "\n" not in str(caught.value)


def drop_column(file):
    del file["tables/speedup/cell"]


def shorten_column(file):
    del file["tables/speedup/meeting"]
    file["tables/speedup/meeting"] = np.zeros(1)


def break_facts(file):
    file["tables/speedup"].attrs["facts"] = "{"


def raise_version(file):
    file.attrs["schema_version"] = 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop_column, "cannot be read as a study"),
        (shorten_column, "/tables/speedup is no table: its columns are of several lengths"),
        (break_facts, "cannot be read as a study"),
        (raise_version, "has schema version 2, and this hpcrnn reads up to 1: update hpcrnn"),
    ],
)
def test_a_damaged_file_is_refused(path, change, reason):
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(FileError, match=reason):
        read_study_record(path)
