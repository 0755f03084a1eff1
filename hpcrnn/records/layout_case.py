"""Where each value of a case lies in its HDF5 group."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from hpcrnn.records.layout_certificate import DIMENSIONS as OF_CERTIFICATES
from hpcrnn.records.layout_certificate import UNITS as UNITS_OF_CERTIFICATES
from hpcrnn.records.layout_certificate import fill_certificate, parse_certificate
from hpcrnn.records.layout_compression import DIMENSIONS as OF_COMPRESSIONS
from hpcrnn.records.layout_compression import fill_compression, parse_compression
from hpcrnn.records.layout_fields import (
    MalformedError,
    fill_array,
    fill_scales,
    read_array,
    read_attribute,
    read_choice,
    read_group,
    read_texts,
    texts,
    to_json,
)
from hpcrnn.records.layout_learning import DIMENSIONS as OF_LEARNING
from hpcrnn.records.layout_learning import UNITS as UNITS_OF_LEARNING
from hpcrnn.records.layout_learning import fill_learning, parse_learning
from hpcrnn.records.layout_work import DIMENSIONS as OF_WORK
from hpcrnn.records.layout_work import UNITS as UNITS_OF_WORK
from hpcrnn.records.layout_work import fill_work, parse_work
from hpcrnn.records.record import STEP, Case, Check, Status, Strategy, Verdict
from hpcrnn.records.statistics import is_outlier
from hpcrnn.records.stored_spec import parse_spec
from hpcrnn.records.timeline import Timeline

if TYPE_CHECKING:
    import h5py

TIMES = ("rep", "rank", "phase")
WARMUPS = ("warmup_rep", "rank", "phase")
STEPS = ("training_step",)
RANKS = ("rank",)

DIMENSIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("time", "device_time", "cpu_time"), TIMES),
    "warmup": WARMUPS,
    **dict.fromkeys(("loss", "gradient_norm"), STEPS),
    **dict.fromkeys(("bytes_sent", "peak_memory_bytes", "memory_bytes", "kernel_details", "device_peak_bytes"), RANKS),
    "is_outlier": ("rep",),
    **dict.fromkeys((f"validation/{name}" for name in ("error", "serial_error", "tolerance")), ("quantity",)),
    **dict.fromkeys((f"timeline/{name}" for name in ("rank", "instruction", "start", "end")), ("event",)),
    **{f"certificate/{name}": dimensions for name, dimensions in OF_CERTIFICATES.items()},
    **{f"compression/{name}": dimensions for name, dimensions in OF_COMPRESSIONS.items()},
    "staleness": ("updates_old",),
    **{f"learning/{name}": dimensions for name, dimensions in OF_LEARNING.items()},
    **{f"work/{name}": dimensions for name, dimensions in OF_WORK.items()},
}
"""Names of the axes of every dataset of a case, by its path."""

UNITS: dict[str, str] = {
    **dict.fromkeys(("time", "warmup", "device_time", "cpu_time", "timeline/start", "timeline/end"), "s"),
    **dict.fromkeys(("bytes_sent", "peak_memory_bytes", "memory_bytes", "device_peak_bytes"), "bytes"),
    **{f"certificate/{name}": unit for name, unit in UNITS_OF_CERTIFICATES.items()},
    "staleness": "gradients",
    **{f"learning/{name}": unit for name, unit in UNITS_OF_LEARNING.items()},
    **{f"work/{name}": unit for name, unit in UNITS_OF_WORK.items()},
}
"""What the datasets that are no plain numbers are in."""


def shape_fault(case: Case) -> str:
    """Say which array of a case does not fit the others; empty where all do."""
    n_ranks, n_phases = case.n_ranks, len(case.phases)
    if fault := _axis_fault(case):
        return fault
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
    if case.kernel_details:
        wanted["kernel_details"] = (np.array(case.kernel_details), (n_ranks,))
    if case.device_time_s is not None:
        wanted["device_time"] = (case.device_time_s, case.time_s.shape)
    if case.cpu_time_s is not None:
        wanted["cpu_time"] = (case.cpu_time_s, case.time_s.shape)
    if case.device_peak_bytes is not None:
        wanted["device_peak_bytes"] = (case.device_peak_bytes, (n_ranks,))
    if case.staleness is not None:
        wanted["staleness"] = (case.staleness, (case.staleness.size,))
    for name, (array, shape) in wanted.items():
        if array.shape != shape:
            return f"{name} has shape {array.shape}, not {shape}"
    faults = (
        case.certificate.fault(n_steps) if case.certificate is not None else "",
        case.compression.fault(n_ranks) if case.compression is not None else "",
        case.learning.fault() if case.learning is not None else "",
        case.work.fault((len(case.time_s), n_ranks)) if case.work is not None else "",
        _timeline_fault(case.timeline, case) if case.timeline is not None else "",
    )
    return next(filter(None, faults), "")


def _timeline_fault(timeline: Timeline, case: Case) -> str:
    if timeline.repetition >= len(case.time_s):
        return f"timeline shows repetition {timeline.repetition} of {len(case.time_s)}"
    fault = timeline.fault(case.n_ranks)
    return f"timeline: {fault}" if fault else ""


def _axis_fault(case: Case) -> str:
    if case.n_ranks < 1:
        return f"n_ranks is {case.n_ranks}"
    if len(set(case.phases)) < len(case.phases):
        return "phase names one twice"
    return "" if STEP in case.phases else f"phase has no {STEP}"


def fill_case(group: h5py.Group, case: Case, index: int) -> None:
    """Write a case into an empty group.

    Raises
    ------
    ValueError
        Its arrays do not fit each other.
    """
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
        params_json=to_json(case.spec),
    )
    counts = {
        "rep": len(case.time_s),
        "warmup_rep": len(case.warmup_s),
        "rank": case.n_ranks,
        "training_step": len(case.loss),
    }
    fill_scales(group, {name: np.arange(count, dtype=np.int64) for name, count in counts.items()})
    fill_scales(group, {"phase": texts(case.phases)})
    for name, array in (
        ("time", case.time_s),
        ("warmup", case.warmup_s),
        ("loss", case.loss),
        ("gradient_norm", case.gradient_norm),
    ):
        _fill(group, name, array.astype(np.float64))
    for name in ("bytes_sent", "peak_memory_bytes", "memory_bytes"):
        _fill(group, name, getattr(case, name).astype(np.int64))
    if case.cpu_time_s is not None:
        _fill(group, "cpu_time", case.cpu_time_s.astype(np.float64))
    _fill_device(group, case)
    _fill(group, "is_outlier", is_outlier(case.step_s()))
    _fill_validation(group.create_group("validation"), case.verdict)
    if case.timeline is not None:
        _fill_timeline(group.create_group("timeline"), case.timeline)
    if case.certificate is not None:
        fill_certificate(group.create_group("certificate"), case.certificate)
    if case.compression is not None:
        fill_compression(group.create_group("compression"), case.compression)
    if case.staleness is not None:
        fill_scales(group, {"updates_old": np.arange(len(case.staleness), dtype=np.int64)})
        _fill(group, "staleness", case.staleness.astype(np.int64))
    if case.learning is not None:
        fill_learning(group.create_group("learning"), case.learning)
    if case.work is not None:
        fill_work(group.create_group("work"), case.work)


def _fill(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> None:
    """Write a dataset of the case along its own dimensions, in its own unit."""
    fill_array(group, name, array, DIMENSIONS[name], unit=UNITS.get(name, ""))


def _fill_device(group: h5py.Group, case: Case) -> None:
    """Write what a device says of itself, where there is one."""
    if case.kernel_details:
        _fill(group, "kernel_details", texts(case.kernel_details))
    if case.device_time_s is not None:
        _fill(group, "device_time", case.device_time_s.astype(np.float64))
    if case.device_peak_bytes is not None:
        _fill(group, "device_peak_bytes", case.device_peak_bytes.astype(np.int64))


def parse_case(group: h5py.Group, name: str, version: int) -> Case:
    """Read a case.

    Parameters
    ----------
    group : h5py.Group
    name : str
        Of the group: its id, and the number of a twin.
    version : int
        Of the file's schema.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type or shape, or belongs to another case.
    """
    case = read_case(group, version)
    fault = shape_fault(case)
    if fault:
        raise MalformedError(group.name, f"is not consistent: {fault}")
    if case.id != name.partition("-")[0]:
        raise MalformedError(group.name, f"holds another case, {case.id}")
    return case


def read_case(group: h5py.Group, version: int) -> Case:
    """Read a case whose parts have the right types, whether or not they fit each other.

    Raises
    ------
    MalformedError
        Something is missing or has the wrong type.
    """
    phases = read_texts(group, "phase")
    bytes_sent = read_array(group, "bytes_sent", np.int64)
    since_2, since_3 = version >= 2, version >= 3
    return Case(
        spec=parse_spec(read_attribute(group, "params_json", str), group.name),
        strategy=read_choice(group, "strategy", get_args(Strategy)),
        backend=read_attribute(group, "backend", str),
        kernel=read_attribute(group, "kernel", str),
        n_ranks=read_attribute(group, "n_ranks", int),
        phases=phases,
        time_s=read_array(group, "time", np.float64),
        warmup_s=read_array(group, "warmup", np.float64),
        loss=read_array(group, "loss", np.float64),
        gradient_norm=read_array(group, "gradient_norm", np.float64),
        flops=read_attribute(group, "flops", float),
        bytes_sent=bytes_sent,
        peak_memory_bytes=read_array(group, "peak_memory_bytes", np.int64),
        memory_bytes=read_array(group, "memory_bytes", np.int64) if since_2 else np.zeros_like(bytes_sent),
        stop_reason=read_attribute(group, "stop_reason", str),
        verdict=_parse_validation(read_group(group, "validation"), read_choice(group, "verdict", get_args(Status))),
        simulated=not read_attribute(group, "measured", bool),
        timeline=_parse_timeline(read_group(group, "timeline")) if since_2 and "timeline" in group else None,
        bubble_bound=read_attribute(group, "bubble_bound", float) if since_2 else nan,
        certificate=parse_certificate(read_group(group, "certificate")) if since_3 and "certificate" in group else None,
        kernel_details=read_texts(group, "kernel_details") if "kernel_details" in group else (),
        device_time_s=_optional(group, "device_time", np.float64),
        device_peak_bytes=_optional(group, "device_peak_bytes", np.int64),
        cpu_time_s=_optional(group, "cpu_time", np.float64),
        compression=parse_compression(read_group(group, "compression")) if "compression" in group else None,
        staleness=_optional(group, "staleness", np.int64),
        learning=parse_learning(read_group(group, "learning")) if "learning" in group else None,
        work=parse_work(read_group(group, "work")) if "work" in group else None,
    )


def _optional(group: h5py.Group, name: str, dtype: type[np.generic]) -> npt.NDArray[Any] | None:
    """Read a dataset that only some files have."""
    return read_array(group, name, dtype) if name in group else None


def _fill_validation(group: h5py.Group, verdict: Verdict) -> None:
    group.attrs.update(problem=verdict.problem, factor=float(verdict.factor))
    fill_scales(group, {"quantity": texts(check.quantity for check in verdict.checks)})
    for name in ("error", "serial_error", "tolerance"):
        column = np.array([getattr(check, name) for check in verdict.checks], dtype=np.float64)
        fill_array(group, name, column, DIMENSIONS[f"validation/{name}"])


def _parse_validation(group: h5py.Group, status: Status) -> Verdict:
    columns = [read_array(group, name, np.float64).tolist() for name in ("error", "serial_error", "tolerance")]
    quantities = read_texts(group, "quantity")
    if {len(column) for column in columns} != {len(quantities)}:
        raise MalformedError(group.name, "has columns of several lengths")
    return Verdict(
        status=status,
        problem=read_attribute(group, "problem", str),
        factor=read_attribute(group, "factor", float),
        checks=tuple(Check(*row) for row in zip(quantities, *columns, strict=True)),
    )


def _fill_timeline(group: h5py.Group, timeline: Timeline) -> None:
    """Write a timeline, a row an instruction; compressed, for it may hold more than all else together."""
    import h5py

    group.attrs["repetition"] = timeline.repetition
    fill_scales(group, {"event": np.arange(len(timeline), dtype=np.int64)})
    encoded = [text.encode() for text in timeline.instruction]
    # Of one length: HDF5 cannot compress texts of any length, which it keeps elsewhere.
    text_dtype = h5py.string_dtype("utf-8", max(map(len, encoded), default=1) or 1)
    columns: dict[str, npt.NDArray[Any]] = {
        "rank": timeline.rank.astype(np.int64),
        "instruction": np.array(encoded, dtype=text_dtype),
        "start": timeline.start_s.astype(np.float64),
        "end": timeline.end_s.astype(np.float64),
    }
    for name, column in columns.items():
        path = f"timeline/{name}"
        fill_array(group, name, column, DIMENSIONS[path], unit=UNITS.get(path, ""), compressed=True)


def _parse_timeline(group: h5py.Group) -> Timeline:
    return Timeline(
        rank=read_array(group, "rank", np.int64),
        instruction=read_texts(group, "instruction"),
        start_s=read_array(group, "start", np.float64),
        end_s=read_array(group, "end", np.float64),
        repetition=read_attribute(group, "repetition", int),
    )
