"""Where each value of a record lies in HDF5: :func:`fill` writes it, :func:`parse` reads it back.

What a stranger's reader needs to know of it is in ``docs/file_format.md``, which a test holds against these files.
Both take an open ``h5py.File``; what surrounds it (names, checksums, disks) is in :mod:`hpcrnn.records.hdf5`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcrnn.records.baseline import best_serial, by_problem
from hpcrnn.records.layout_case import fill_case, parse_case, read_case
from hpcrnn.records.layout_fields import (
    MalformedError,
    parse_json,
    read_attribute,
    read_group,
    read_json,
    to_json,
)
from hpcrnn.records.record import SCHEMA_NAME, SCHEMA_VERSION, Case, Record

if TYPE_CHECKING:
    import h5py


def fill(file: h5py.Group, record: Record) -> None:
    """Write a record into an empty file, or group of a merged one.

    Raises
    ------
    ValueError
        The arrays of a case do not fit each other: its maker has a bug.
    """
    file.attrs.update(
        schema_name=SCHEMA_NAME,
        schema_version=SCHEMA_VERSION,
        complete=record.complete,
        created_utc=record.created_utc,
        uuid=record.uuid,
        hpcrnn_version=record.hpcrnn_version,
        argv=to_json(list(record.argv)),
    )
    environment = file.create_group("environment")
    for section, facts in record.environment.items():
        environment[section] = to_json(facts)
    fill_baselines(file.create_group("baseline"), record.cases)
    cases = file.create_group("cases")
    for index, case in enumerate(record.cases):
        fill_case(cases.create_group(_free_name(cases, case.id)), case, index)


def parse(file: h5py.Group, source: str) -> Record:
    """Read a record.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type or shape, or comes from a newer version.
    """
    version = read_version(file)
    return _parse(file, tuple(parse_case(group, name, version) for name, group in case_groups(file)), source)


def parse_unchecked(file: h5py.File, source: str) -> Record:
    """Read a record whose parts have the right types, whether or not they fit each other: it is to be verified.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type, or comes from a newer version.
    """
    version = read_version(file)
    return _parse(file, tuple(read_case(group, version) for _, group in case_groups(file)), source)


def read_version(file: h5py.File) -> int:
    """Return the version of a file's schema.

    Raises
    ------
    MalformedError
        The file is of another kind, or from a newer version.
    """
    return check_schema(file, SCHEMA_NAME, SCHEMA_VERSION)


def check_schema(file: h5py.Group, name: str, newest: int) -> int:
    """Return the version of a file that must be of a schema.

    Raises
    ------
    MalformedError
        It is of another, or of a newer version.
    """
    if "schema_name" not in file.attrs or read_attribute(file, "schema_name", str) != name:
        raise MalformedError(file.name, f"has no attribute schema_name = {name}")
    return check_version(file, newest)


def check_version(file: h5py.Group, newest: int) -> int:
    """Return the version of a schema that is read up to its newest version.

    Raises
    ------
    MalformedError
        There is none, or a newer one.
    """
    version = read_attribute(file, "schema_version", int)
    if version < 1:
        raise MalformedError(file.name, f"has schema version {version}, which there never was")
    if version > newest:
        what = f"has schema version {version}, and this hpcrnn reads up to {newest}: update hpcrnn"
        raise MalformedError(file.name, what)
    return version


def case_groups(file: h5py.File) -> list[tuple[str, h5py.Group]]:
    """Return the cases' groups with their names, in the order they were recorded in."""
    cases = read_group(file, "cases")
    found = [(name, read_group(cases, name)) for name in cases]
    return sorted(found, key=lambda item: read_attribute(item[1], "index", int))


def _parse(file: h5py.File, cases: tuple[Case, ...], source: str) -> Record:
    environment = read_group(file, "environment")
    return Record(
        uuid=read_attribute(file, "uuid", str),
        created_utc=read_attribute(file, "created_utc", str),
        hpcrnn_version=read_attribute(file, "hpcrnn_version", str),
        argv=_read_argv(file),
        environment={name: read_json(environment, name) for name in environment},
        cases=cases,
        complete=read_attribute(file, "complete", bool),
        source=source,
    )


def _read_argv(file: h5py.File) -> tuple[str, ...]:
    words = parse_json(read_attribute(file, "argv", str), f"{file.name}@argv")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise MalformedError(file.name, "has an argv that is no list of texts")
    return tuple(words)


def fill_baselines(group: h5py.Group, cases: tuple[Case, ...]) -> None:
    """Write the base of every problem that has one, for whoever reads without hpcrnn."""
    for problem, members in by_problem(cases).items():
        baseline = best_serial(members)
        if baseline:
            attributes = group.create_group(problem).attrs
            attributes.update(kind=baseline.kind, case_id=baseline.case_id, time_s=baseline.time_s)


def _free_name(group: h5py.Group, name: str) -> str:
    """Return the name, or the first of ``name-2``, ``name-3``, ... that no case has taken."""
    taken, candidate = 1, name
    while candidate in group:
        taken += 1
        candidate = f"{name}-{taken}"
    return candidate
