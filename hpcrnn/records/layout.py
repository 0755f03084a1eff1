"""Where each value of a record lies in HDF5: :func:`fill` writes it, :func:`parse` reads it back.

Both take an open ``h5py.File``; what surrounds it (names, checksums, disks) is in :mod:`hpcrnn.records.hdf5`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hpcrnn.records.baseline import best_serial
from hpcrnn.records.layout_case import fill_case, parse_case
from hpcrnn.records.layout_fields import MalformedError, read_attribute, read_member, to_json
from hpcrnn.records.record import SCHEMA_NAME, SCHEMA_VERSION, Case, Record

if TYPE_CHECKING:
    import h5py


def fill(file: h5py.File, record: Record) -> None:
    """Write a record into an empty file.

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
    _fill_baselines(file.create_group("baseline"), record.cases)
    cases = file.create_group("cases")
    for index, case in enumerate(record.cases):
        fill_case(cases.create_group(_free_name(cases, case.id)), case, index)


def parse(file: h5py.File, source: str) -> Record:
    """Read a record.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type or shape, or comes from a newer version.
    """
    if file.attrs.get("schema_name") != SCHEMA_NAME:
        raise MalformedError(file.name, f"has no attribute schema_name = {SCHEMA_NAME}")
    version = read_attribute(file, "schema_version", int)
    if version > SCHEMA_VERSION:
        what = f"has schema version {version}, and this hpcrnn reads up to {SCHEMA_VERSION}: update hpcrnn"
        raise MalformedError(file.name, what)
    groups = sorted(read_member(file, "cases").items(), key=lambda item: read_attribute(item[1], "index", int))
    return Record(
        uuid=read_attribute(file, "uuid", str),
        created_utc=read_attribute(file, "created_utc", str),
        hpcrnn_version=read_attribute(file, "hpcrnn_version", str),
        argv=tuple(str(word) for word in json.loads(read_attribute(file, "argv", str))),
        environment={name: json.loads(item.asstr()[()]) for name, item in read_member(file, "environment").items()},
        cases=tuple(parse_case(group, name, version) for name, group in groups),
        complete=read_attribute(file, "complete", bool),
        source=source,
    )


def _fill_baselines(group: h5py.Group, cases: tuple[Case, ...]) -> None:
    for problem in dict.fromkeys(case.problem_id for case in cases):
        baseline = best_serial(case for case in cases if case.problem_id == problem)
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
