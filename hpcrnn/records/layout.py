"""Where each value of a record lies in HDF5: :func:`fill` writes it, :func:`parse` reads it back.

Both take an open ``h5py.File``; what surrounds it (names, checksums, disks) is in :mod:`hpcrnn.records.hdf5`.
"""

from __future__ import annotations

import json
from math import nan
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from hpcrnn.records.baseline import best_serial
from hpcrnn.records.record import (
    SCHEMA_NAME,
    SCHEMA_VERSION,
    STEP,
    Case,
    Check,
    Record,
    Status,
    Strategy,
    Verdict,
)
from hpcrnn.records.statistics import is_outlier
from hpcrnn.records.timeline import Timeline

if TYPE_CHECKING:
    import h5py

Scalar = TypeVar("Scalar", str, int, float, bool)
Text = TypeVar("Text", bound=str)

UNITS = {
    "time": "s",
    "warmup": "s",
    "bytes_sent": "bytes",
    "peak_memory_bytes": "bytes",
    "memory_bytes": "bytes",
    "start": "s",
    "end": "s",
}

DTYPES = {
    "bytes_sent": np.int64,
    "peak_memory_bytes": np.int64,
    "memory_bytes": np.int64,
    "is_outlier": np.int8,
}
"""Of the arrays that are not float64."""

SECTIONS = ("model", "problem", "training", "parallel", "machine")
"""Sections of a specification that make the identity of a case."""

TIMES = ("rep", "rank", "phase")
WARMUPS = ("warmup_rep", "rank", "phase")
DIMENSIONS = {
    "time": TIMES,
    "warmup": WARMUPS,
    "loss": ("training_step",),
    "gradient_norm": ("training_step",),
    "bytes_sent": ("rank",),
    "peak_memory_bytes": ("rank",),
    "memory_bytes": ("rank",),
    "is_outlier": ("rep",),
}


_WORTH_COMPRESSING = 256


class MalformedError(Exception):
    """A file is not laid out as it should be.

    Parameters
    ----------
    where : str
        A group, dataset or attribute.
    what : str
        What is wrong with it: the rest of the sentence.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} {what}")


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
        argv=_to_json(list(record.argv)),
    )
    environment = file.create_group("environment")
    for section, facts in record.environment.items():
        environment[section] = _to_json(facts)
    _fill_baselines(file.create_group("baseline"), record.cases)
    cases = file.create_group("cases")
    for index, case in enumerate(record.cases):
        _fill_case(cases.create_group(_free_name(cases, case.id)), case, index)


def parse(file: h5py.File, source: str) -> Record:
    """Read a record.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type or shape, or comes from a newer version.
    """
    if file.attrs.get("schema_name") != SCHEMA_NAME:
        raise MalformedError(file.name, f"has no attribute schema_name = {SCHEMA_NAME}")
    version = _attribute(file, "schema_version", int)
    if version > SCHEMA_VERSION:
        what = f"has schema version {version}, and this hpcrnn reads up to {SCHEMA_VERSION}: update hpcrnn"
        raise MalformedError(file.name, what)
    groups = sorted(_member(file, "cases").items(), key=lambda item: _attribute(item[1], "index", int))
    return Record(
        uuid=_attribute(file, "uuid", str),
        created_utc=_attribute(file, "created_utc", str),
        hpcrnn_version=_attribute(file, "hpcrnn_version", str),
        argv=tuple(str(word) for word in json.loads(_attribute(file, "argv", str))),
        environment={name: json.loads(item.asstr()[()]) for name, item in _member(file, "environment").items()},
        cases=tuple(_parse_case(group, name, version) for name, group in groups),
        complete=_attribute(file, "complete", bool),
        source=source,
    )


def shape_fault(case: Case) -> str:
    """Say which array of a case does not fit the others; empty where all do."""
    n_ranks, n_phases = case.n_ranks, len(case.phases)
    n_steps = len(case.time_s) + len(case.warmup_s)
    wanted: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
        "time": (case.time_s, (len(case.time_s), n_ranks, n_phases)),
        "warmup": (case.warmup_s, (len(case.warmup_s), n_ranks, n_phases)),
        "loss": (case.loss, (n_steps,)),
        "gradient_norm": (case.gradient_norm, (n_steps,)),
        "bytes_sent": (case.bytes_sent, (n_ranks,)),
        "peak_memory_bytes": (case.peak_memory_bytes, (n_ranks,)),
        "memory_bytes": (case.memory_bytes, (n_ranks,)),
    }
    for name, (array, shape) in wanted.items():
        if array.shape != shape:
            return f"{name} has shape {array.shape}, not {shape}"
    if STEP not in case.phases:
        return f"phase has no {STEP}"
    if case.timeline is None:
        return ""
    if case.timeline.repetition >= len(case.time_s):
        return f"timeline shows repetition {case.timeline.repetition} of {len(case.time_s)}"
    fault = case.timeline.fault(n_ranks)
    return f"timeline: {fault}" if fault else ""


def _fill_baselines(group: h5py.Group, cases: tuple[Case, ...]) -> None:
    for problem in dict.fromkeys(case.problem_id for case in cases):
        baseline = best_serial(case for case in cases if case.problem_id == problem)
        if baseline:
            attributes = group.create_group(problem).attrs
            attributes.update(kind=baseline.kind, case_id=baseline.case_id, time_s=baseline.time_s)


def _fill_case(group: h5py.Group, case: Case, index: int) -> None:
    fault = shape_fault(case)
    if fault:
        message = f"case {case.id}: {fault}"
        raise ValueError(message)
    group.attrs.update(
        index=index,
        strategy=case.strategy,
        backend=case.backend,
        kernel=case.kernel,
        n_ranks=case.n_ranks,
        flops=float(case.flops),
        stop_reason=case.stop_reason,
        bubble_bound=float(case.bubble_bound),
        measured=not case.simulated,
        metric_kind="cost",
        verdict=case.verdict.status,
        params_json=_to_json(case.spec),
    )
    for name, size in {
        "rep": len(case.time_s),
        "warmup_rep": len(case.warmup_s),
        "rank": case.n_ranks,
        "training_step": len(case.loss),
    }.items():
        group.create_dataset(name, data=np.arange(size, dtype=np.int64)).make_scale(name)
    group.create_dataset("phase", data=np.array(case.phases, dtype=_text_dtype())).make_scale("phase")
    arrays: dict[str, npt.NDArray[Any]] = {
        "time": case.time_s,
        "warmup": case.warmup_s,
        "loss": case.loss,
        "gradient_norm": case.gradient_norm,
        "bytes_sent": case.bytes_sent,
        "peak_memory_bytes": case.peak_memory_bytes,
        "memory_bytes": case.memory_bytes,
        "is_outlier": is_outlier(case.step_s()),
    }
    for name, array in arrays.items():
        _fill_array(group, name, array.astype(DTYPES.get(name, np.float64)), DIMENSIONS[name])
    group["is_outlier"].attrs["dtype"] = "bool"  # so xarray reads the byte as the truth value it is
    _fill_validation(group.create_group("validation"), case.verdict)
    if case.timeline is not None:
        _fill_timeline(group.create_group("timeline"), case.timeline)


def _fill_validation(group: h5py.Group, verdict: Verdict) -> None:
    group.attrs.update(problem=verdict.problem, factor=float(verdict.factor))
    quantities = np.array([check.quantity for check in verdict.checks], dtype=_text_dtype())
    group.create_dataset("quantity", data=quantities).make_scale("quantity")
    for name in ("error", "serial_error", "tolerance"):
        column = np.array([getattr(check, name) for check in verdict.checks], dtype=np.float64)
        _fill_array(group, name, column, ("quantity",))


def _fill_timeline(group: h5py.Group, timeline: Timeline) -> None:
    """Write a timeline, a row an instruction; compressed, for it may hold more than all else together."""
    import h5py

    group.attrs["repetition"] = timeline.repetition
    events = np.arange(len(timeline), dtype=np.int64)
    group.create_dataset("event", data=events, **_compression(len(timeline))).make_scale("event")
    texts = [text.encode() for text in timeline.instruction]
    # Of one length: HDF5 cannot compress texts of any length, which it keeps elsewhere.
    text_dtype = h5py.string_dtype("utf-8", max(map(len, texts), default=1) or 1)
    columns: dict[str, npt.NDArray[Any]] = {
        "rank": timeline.rank.astype(np.int64),
        "instruction": np.array(texts, dtype=text_dtype),
        "start": timeline.start_s.astype(np.float64),
        "end": timeline.end_s.astype(np.float64),
    }
    for name, column in columns.items():
        _fill_array(group, name, column, ("event",), **_compression(len(timeline)))


def _compression(size: int) -> dict[str, Any]:
    """Options of a dataset; small ones lie plain, for the index of a compressed one is larger than they are."""
    return {"compression": "gzip", "shuffle": True} if size >= _WORTH_COMPRESSING else {}


def _fill_array(
    group: h5py.Group, name: str, array: npt.NDArray[Any], dimensions: tuple[str, ...], **options: Any
) -> None:
    dataset = group.create_dataset(name, data=array, **options)
    for axis, dimension in zip(dataset.dims, dimensions, strict=True):
        axis.attach_scale(group[dimension])
    if name in UNITS:
        dataset.attrs["units"] = UNITS[name]


def _parse_case(group: h5py.Group, name: str, version: int) -> Case:
    phases = tuple(str(phase) for phase in _member(group, "phase").asstr()[()])
    n_ranks = _attribute(group, "n_ranks", int)
    added = version >= 2
    case = Case(
        spec=_specification(group),
        strategy=_choice(group, "strategy", get_args(Strategy)),
        backend=_attribute(group, "backend", str),
        kernel=_attribute(group, "kernel", str),
        n_ranks=n_ranks,
        phases=phases,
        time_s=_array(group, "time", np.float64),
        warmup_s=_array(group, "warmup", np.float64),
        loss=_array(group, "loss", np.float64),
        gradient_norm=_array(group, "gradient_norm", np.float64),
        flops=_attribute(group, "flops", float),
        bytes_sent=_array(group, "bytes_sent", np.int64),
        peak_memory_bytes=_array(group, "peak_memory_bytes", np.int64),
        memory_bytes=_array(group, "memory_bytes", np.int64) if added else np.zeros(n_ranks, dtype=np.int64),
        stop_reason=_attribute(group, "stop_reason", str),
        verdict=_parse_validation(_member(group, "validation"), _choice(group, "verdict", get_args(Status))),
        simulated=not _attribute(group, "measured", bool),
        timeline=_parse_timeline(group["timeline"]) if added and "timeline" in group else None,
        bubble_bound=_attribute(group, "bubble_bound", float) if added else nan,
    )
    fault = shape_fault(case)
    if fault:
        raise MalformedError(group.name, f"is not consistent: {fault}")
    if case.id != name.partition("-")[0]:
        raise MalformedError(group.name, f"holds another case, {case.id}")
    return case


def _parse_validation(group: h5py.Group, status: Status) -> Verdict:
    columns = [_array(group, name, np.float64).tolist() for name in ("error", "serial_error", "tolerance")]
    quantities = [str(name) for name in _member(group, "quantity").asstr()[()]]
    if {len(column) for column in columns} != {len(quantities)}:
        raise MalformedError(group.name, "has columns of several lengths")
    return Verdict(
        status=status,
        problem=_attribute(group, "problem", str),
        factor=_attribute(group, "factor", float),
        checks=tuple(Check(*row) for row in zip(quantities, *columns, strict=True)),
    )


def _parse_timeline(group: h5py.Group) -> Timeline:
    return Timeline(
        rank=_array(group, "rank", np.int64),
        instruction=tuple(str(text) for text in _member(group, "instruction").asstr()[()]),
        start_s=_array(group, "start", np.float64),
        end_s=_array(group, "end", np.float64),
        repetition=_attribute(group, "repetition", int),
    )


def _specification(group: h5py.Group) -> dict[str, Any]:
    spec = json.loads(_attribute(group, "params_json", str))
    if not isinstance(spec, dict) or not all(isinstance(spec.get(name), dict) for name in SECTIONS):
        raise MalformedError(group.name, f"has a params_json without the sections {', '.join(SECTIONS)}")
    return spec


def _member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    if name not in group:
        raise MalformedError(group.name, f"has no {name}")
    return group[name]


def _attribute(group: h5py.Group, name: str, kind: type[Scalar]) -> Scalar:
    if name not in group.attrs:
        raise MalformedError(group.name, f"has no attribute {name}")
    value = group.attrs[name]
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, kind):
        raise MalformedError(group.name, f"has an attribute {name} that is not of type {kind.__name__}")
    return plain


def _array(group: h5py.Group, name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    dataset = _member(group, name)
    if dataset.dtype != dtype:
        raise MalformedError(dataset.name, f"has type {dataset.dtype}, not {np.dtype(dtype)}")
    return np.asarray(dataset[()])


def _choice(group: h5py.Group, name: str, allowed: tuple[Text, ...]) -> Text:
    value = _attribute(group, name, str)
    for choice in allowed:
        if value == choice:
            return choice
    raise MalformedError(group.name, f"has {name} = {value!r}, not {' or '.join(allowed)}")


def _free_name(group: h5py.Group, name: str) -> str:
    """Return the name, or the first of ``name-2``, ``name-3``, ... that no case has taken."""
    taken, candidate = 1, name
    while candidate in group:
        taken += 1
        candidate = f"{name}-{taken}"
    return candidate


def _text_dtype() -> np.dtype[Any]:
    import h5py

    text: np.dtype[Any] = h5py.string_dtype()  # UTF-8 of any length
    return text


def _to_json(value: object) -> str:
    """Make JSON text; what JSON has no form for becomes a text: no result may be lost to a type."""
    return json.dumps(value, default=lambda x: x.tolist() if isinstance(x, np.generic | np.ndarray) else str(x))
