"""docs/file_format.md says what is in a file, all of it and nothing else: its tables are held against written files."""

import doctest
import json
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import pytest
from sound_samples import make_case, sound_cases, sound_record

from hpcrnn.records.hdf5 import write_merged, write_record
from hpcrnn.records.invariants import CASE_CHECKS, MERGED_CHECKS, RUN_CHECKS
from hpcrnn.records.layout_merged import MERGED_NAME, MERGED_VERSION
from hpcrnn.records.record import SCHEMA_NAME, SCHEMA_VERSION

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "file_format.md").read_text()
STORED = {version: Path(__file__).parent / "stored" / f"version_{version}.h5" for version in (1, 2, 3)}

OF_HDF5 = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}
ALWAYS = ("always", "with every case")


@dataclass(frozen=True)
class Row:
    name: str
    dimensions: tuple[str, ...]
    type: str
    units: str
    since: int = 1
    there: str = ""


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)[1]


def cells(title):
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def documented(title):
    """The rows of a table, by name."""
    rows = {}
    for name, dimensions, kind, units, since, there, *_ in cells(title):
        plain = name.strip("`")
        assert plain not in rows, f"{plain} is named twice"
        rows[plain] = Row(plain, tuple(filter(None, dimensions.split(", "))), kind, units, int(since), there)
    return rows


def general(path):
    """A path with its ids taken out: ``/cases/<id>/time``."""
    path = re.sub(r"^/baseline/[0-9a-f]{12}", "/baseline/<problem>", path)
    path = re.sub(r"^/cases/[0-9a-f]{12}(-\d+)?", "/cases/<id>", path)
    path = re.sub(r"^/runs/\d+", "/runs/<n>", path)
    return re.sub(r"^/environment/\w+", "/environment/<section>", path)


def type_of(value, declared):
    """The type of an attribute or dataset, as the document calls it."""
    if isinstance(value, h5py.Dataset):
        text = h5py.check_string_dtype(value.dtype)
        if text is None:
            return "bool" if value.attrs.get("dtype") == "bool" else value.dtype.name
        if text.length is not None:
            return "text[n]"
        value = value.asstr()[()]
    if isinstance(value, str) and (declared == "json" or value.startswith(("[", "{"))):
        json.loads(value)
        return "json"
    return "text" if isinstance(value, str) or value.dtype.kind == "O" else value.dtype.name


def found_in(group, table):
    """The rows that a group's content would have."""
    rows = {}

    def keep(path, dimensions, value, units=""):
        name = general(path)
        declared = table[name].type if name in table else ""
        kind = "group" if isinstance(value, h5py.Group) else type_of(value, declared)
        row = Row(name, dimensions, kind, units)
        assert rows.setdefault(name, row) == row, "the same everywhere"

    def visit(name, item):
        path = f"/{name}"
        if isinstance(item, h5py.Group):
            keep(path, (), item)
            for attribute, value in item.attrs.items():
                keep(f"{path}@{attribute}", (), value)
            return
        own = (name.rpartition("/")[2],)
        dimensions = own if item.is_scale else tuple(axis[0].name.rpartition("/")[2] for axis in item.dims)
        keep(path, dimensions, item, item.attrs.get("units", ""))
        marks = {"units"} if "units" in item.attrs else {"dtype"} if item.attrs.get("dtype") == "bool" else set()
        assert set(item.attrs) - OF_HDF5 == marks, path

    for attribute, value in group.attrs.items():
        keep(f"/@{attribute}", (), value)
    group.visititems(visit)
    return rows


def assert_agree(rows, table, *, version):
    """Every name of a file is in the table, as it is; what is always there is there."""
    assert set(rows) <= {name for name, row in table.items() if row.since <= version}
    for name, row in rows.items():
        written = table[name]
        assert (row.dimensions, row.type, row.units) == (written.dimensions, written.type, written.units), name
    needed = {name for name, row in table.items() if row.there in ALWAYS and row.since <= version}
    assert needed <= set(rows)
    for name, row in table.items():
        if row.there == "with its group" and re.match(r"(.*)[/@]", name)[1] in rows:
            assert name in rows


def test_a_file_with_every_optional_part_holds_all_that_is_documented_and_nothing_else(tmp_path):
    write_record(sound_record(), tmp_path / "a.h5")
    table = documented("The record")
    with h5py.File(tmp_path / "a.h5") as file:
        rows = found_in(file, table)
    assert_agree(rows, table, version=SCHEMA_VERSION)
    assert set(rows) == set(table)


def test_a_file_with_no_optional_part_holds_what_is_always_there(tmp_path):
    write_record(sound_record(make_case(n=0, status="INVALID")), tmp_path / "a.h5")
    table = documented("The record")
    with h5py.File(tmp_path / "a.h5") as file:
        rows = found_in(file, table)
    assert_agree(rows, table, version=SCHEMA_VERSION)
    assert set(rows) == {name for name, row in table.items() if row.there in ALWAYS}


@pytest.mark.parametrize("version", STORED)
def test_an_old_file_holds_what_its_version_had(version):
    table = documented("The record")
    with h5py.File(STORED[version]) as file:
        assert file.attrs["schema_version"] == version
        assert_agree(found_in(file, table), table, version=version)


def test_a_merged_file_holds_records_and_what_is_documented_of_it(tmp_path):
    records = [sound_record(), sound_record(make_case())]
    write_merged(records, tmp_path / "m.h5", inputs=(), overwrite=False)
    table, of_records = documented("A merged file"), documented("The record")
    with h5py.File(tmp_path / "m.h5") as file:
        rows = found_in(file, table)
        inner = {name for name in rows if name.startswith("/runs/<n>")} - set(table)
        assert_agree({name: row for name, row in rows.items() if name not in inner}, table, version=MERGED_VERSION)
        assert set(rows) - inner == set(table)
        for run in file["runs"].values():
            own = found_in(run, of_records)
            del own["/@origin"]
            assert_agree(own, of_records, version=SCHEMA_VERSION)


def test_the_document_names_the_schemas_and_their_versions():
    assert f"schema `{SCHEMA_NAME}`, **version {SCHEMA_VERSION}**" in DOCUMENT
    assert f"schema `{MERGED_NAME}`, **version {MERGED_VERSION}**" in DOCUMENT
    assert set(STORED) == set(range(1, SCHEMA_VERSION + 1)), "a file of every version is kept"


def test_every_check_is_documented_and_every_documented_check_is_made():
    assert [row[0].strip("`") for row in cells("What holds in every file")] == [
        *CASE_CHECKS,
        *RUN_CHECKS,
        *MERGED_CHECKS,
    ]


@pytest.mark.parametrize(("title", "package"), [("Bytes", "h5py"), ("Reading it", "h5py"), ("Reading it", "xarray")])
def test_the_examples_print_what_they_say(title, package, monkeypatch):
    """Each is run as it stands, those for xarray where that is installed."""
    pytest.importorskip(package)
    if package == "xarray":
        pytest.importorskip("h5netcdf")
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", section(title), re.DOTALL)
    block = next(block for block in blocks if title == "Bytes" or f"import {package}" in block)
    test = doctest.DocTestParser().get_doctest(block, {}, title, str(ROOT / "docs/file_format.md"), 0)
    assert test.examples
    said = []
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def test_the_sample_has_every_part():
    cases = sound_cases()
    parts = ("timeline", "certificate", "device_time_s", "device_peak_bytes", "cpu_time_s", "compression", "work")
    assert all(any(getattr(case, part) is not None for case in cases) for part in parts)
