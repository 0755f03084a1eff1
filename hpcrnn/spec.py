"""What a run is asked to do: typed sections, from TOML, from flags, or from both.

A :class:`RunSpec` is six sections of plain values.  Every leaf name is unique over all sections, so the
TOML key ``model.hidden`` and the flag ``--hidden`` are the same thing, and a sweep may vary either.
Nothing here imports NumPy or MPI: a specification is checked before anything heavy is loaded.
"""

from __future__ import annotations

import math
import re
import tomllib
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from hpcrnn.errors import FileError, SpecError, printable, shorten

# Far above any machine, far below where a product of two of them leaves an int64.
_LARGEST = 2**31 - 1

Size = Annotated[int, Meta(ge=1, le=_LARGEST)]
PositiveFloat = Annotated[float, Meta(gt=0, le=1e12)]
Fraction = Annotated[float, Meta(gt=0, lt=1)]
Text = Annotated[str, Meta(min_length=1)]

CellName = Literal["elman", "lstm", "gru", "mingru", "minlstm"]
DType = Literal["float32", "float64"]
BackendName = Literal["numpy", "torch", "cupy"]
Precision = Literal["float32", "tf32", "float16", "bfloat16"]
HALVED: tuple[Precision, ...] = ("float16", "bfloat16")
"""Precisions that store a number in two bytes."""

Mode = Literal["train", "gradient", "forward"]
Axis = Literal["data", "pipeline", "time", "tensor"]
OrderName = Literal["fill_drain", "1f1b", "seq_1f1b", "zb_h1", "interleaved"]
MethodName = Literal[
    "chain", "picard", "gateprod", "scan", "deer", "tbptt_zero", "tbptt_stale", "burnin", "overlap_verified"
]
TransportName = Literal["auto", "staged", "direct"]
HaloCodec = Literal["none", "float16", "bfloat16", "int8"]

AXES: tuple[Axis, ...] = get_args(Axis)
"""Axes of the grid of ranks, slowest first."""


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network: input layer, L recurrent layers, linear head."""

    cell: Annotated[CellName, Meta(description="recurrent cell; mingru, minlstm: linear in the state")] = "lstm"
    hidden: Annotated[Size, Meta(description="hidden units H of every layer")] = 256
    layers: Annotated[Size, Meta(description="recurrent layers L")] = 2
    embed: Annotated[Size | None, Meta(description="input size D of the first layer (default: hidden)")] = None
    input: Annotated[
        Literal["auto", "embedding", "linear", "direct"],
        Meta(description="input layer; auto: embedding for tokens, linear for features; direct: none"),
    ] = "auto"
    activation: Annotated[Literal["tanh", "relu"], Meta(description="of the Elman cell")] = "tanh"
    reset: Annotated[
        Literal["after", "before"], Meta(description="GRU: reset gate after or before the recurrent product")
    ] = "after"
    forget_bias: Annotated[
        float,
        Meta(
            ge=-100,
            le=100,
            description="LSTM, minLSTM: added to the forget gate's initial bias; GRU: to the update gate's, minGRU: "
            "subtracted from it",
        ),
    ] = 0.0
    forget_init: Annotated[
        Literal["constant", "chrono"],
        Meta(
            description="initial bias of the same gates before forget_bias is added; constant: as every bias; chrono: "
            "log U(1, chrono_span - 1), and minus that for the input gate or minGRU"
        ),
    ] = "constant"
    chrono_span: Annotated[
        int, Meta(ge=2, le=_LARGEST, description="longest dependence in time steps, for forget_init = chrono")
    ] = 1000
    dtype: Annotated[DType, Meta(description="of parameters, states and gradients")] = "float32"


class ProblemSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The data: what is trained on, and how much of it a step takes."""

    workload: Annotated[Text, Meta(description="stdlib, file:PATH, series:PATH, adding or synthetic")] = "stdlib"
    batch: Annotated[Size, Meta(description="sequences B of a global step, over all ranks")] = 64
    seq: Annotated[Size, Meta(description="time steps T of a sequence")] = 64
    features: Annotated[Size | None, Meta(description="input features of the synthetic workload (default: embed)")] = (
        None
    )
    seed: Annotated[int, Meta(ge=0, le=_LARGEST, description="of the data and the initial weights")] = 0


class TrainingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one step does beside the forward pass."""

    mode: Annotated[
        Mode, Meta(description="train: a whole step; gradient: forward and backward; forward: inference")
    ] = "train"
    optimizer: Annotated[Literal["sgd", "adam"], Meta(description="update rule")] = "adam"
    carry: Annotated[bool, Meta(description="read on where the step before ended, starting from its final states")] = (
        False
    )
    lr: Annotated[PositiveFloat, Meta(description="learning rate")] = 1e-3
    momentum: Annotated[float, Meta(ge=0, lt=1, description="of sgd")] = 0.9
    clip: Annotated[PositiveFloat | None, Meta(description="clip the gradient to this global norm (default: off)")] = (
        None
    )


class Grid(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many ranks each axis of the work is split over."""

    data: Size = 1
    pipeline: Size = 1
    time: Size = 1
    tensor: Size = 1

    @property
    def n_ranks(self) -> int:
        """Ranks the whole grid takes."""
        return math.prod(msgspec.structs.astuple(self))

    def __str__(self) -> str:
        long = {axis: count for axis, count in msgspec.structs.asdict(self).items() if count > 1}
        return ",".join(f"{axis}={count}" for axis, count in (long or {"data": 1}).items())


class ParallelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the work is cut and where it goes."""

    grid: Annotated[
        Grid | None,
        Meta(description="ranks per axis: data, pipeline, time, tensor; e.g. data=2,time=2 (default: all on data)"),
    ] = None
    order: Annotated[OrderName, Meta(description="which of its ready tasks a rank takes first")] = "fill_drain"
    virtual_stages: Annotated[Size, Meta(description="stages v on each pipeline rank, with order = interleaved")] = 1
    microbatches: Annotated[Size, Meta(description="parts M of a rank's batch")] = 1
    chunks: Annotated[Size, Meta(description="parts C of a rank's segment of the time axis")] = 1
    allreduce: Annotated[
        Literal["bucketed", "flat"],
        Meta(description="gradient allreduce: a layer at a time as each completes, or all at the end"),
    ] = "bucketed"


class RecurrenceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How segments of time come to the states they start from."""

    method: Annotated[
        MethodName | Literal["auto"],
        Meta(
            description="chain: each segment waits for the one before; picard, gateprod, deer: all at once, corrected "
            "to a tolerance; scan: linear cells, exact; tbptt_zero, tbptt_stale, burnin, overlap_verified: inexact; "
            "auto: the fastest of chain, picard (scan) and gateprod, by a short probe"
        ),
    ] = "chain"
    fold: Annotated[Size, Meta(description="segments V of each time rank, computed together as rows of the batch")] = 1
    tolerance: Annotated[
        PositiveFloat, Meta(description="largest difference at which a corrected trajectory has met the old one")
    ] = 1e-6
    max_rounds: Annotated[
        Size | None, Meta(description="passes over the segments at the most (default: until all have met)")
    ] = None
    burn_in: Annotated[
        int, Meta(ge=0, le=_LARGEST, description="steps a segment is run ahead of its start, to guess its state")
    ] = 0
    halo_codec: Annotated[HaloCodec, Meta(description="compression of states that cross ranks")] = "none"


class MachineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What it runs on."""

    backend: Annotated[
        tuple[BackendName, ...],
        Meta(min_length=1, description="numpy, torch, cupy, or several: numpy,torch (measured interleaved)"),
    ] = ("numpy",)
    gemm: Annotated[
        Literal["auto", "numpy", "mkl"],
        Meta(description="recurrent product of the numpy backend; auto: packed MKL where installed"),
    ] = "auto"
    precision: Annotated[
        Precision, Meta(description="cupy: of stored weights and activations; sums, c and parameters are float32")
    ] = "float32"
    kernel: Annotated[
        Literal["auto", "persistent", "stepwise"],
        Meta(description="cupy: one kernel a chunk, or a product and a kernel a step; auto: the faster"),
    ] = "auto"
    allow_shared_gpu: Annotated[bool, Meta(description="cupy: ranks of a host may share a GPU")] = False
    transport: Annotated[
        TransportName,
        Meta(
            description="cupy: how messages between GPUs meet MPI; direct: as they are, which MPI must be CUDA-aware "
            "for; staged: through pinned host memory; auto: direct where MPI says that it can"
        ),
    ] = "auto"
    gradient_sum: Annotated[
        Literal["mpi", "nccl"],
        Meta(description="cupy: what sums gradients over ranks; nccl: from GPU to GPU, of which each rank has its own"),
    ] = "mpi"
    threads: Annotated[Size, Meta(description="BLAS threads of a rank")] = 1
    peer_threads: Annotated[
        Size | None, Meta(description="torch: threads of its serial run beside several ranks (default: threads)")
    ] = None
    expect_ranks: Annotated[Size | None, Meta(description="stop unless MPI started exactly this many ranks")] = None


class MeasureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long to measure, and where the numbers go."""

    ci_width: Annotated[
        Fraction, Meta(description="stop when the 95 % interval of the median is this narrow, relatively")
    ] = 0.05
    max_time: Annotated[PositiveFloat, Meta(description="seconds of measuring at the most")] = 60.0
    warmup: Annotated[int, Meta(ge=0, le=10_000, description="steps kept but not counted")] = 2
    min_repeats: Annotated[Size, Meta(description="counted steps at the least")] = 10
    max_repeats: Annotated[Size, Meta(description="counted steps at the most")] = 1000
    baseline: Annotated[
        bool, Meta(description="on several ranks: measure the serial run too, interleaved, on rank 0")
    ] = True
    trace: Annotated[bool, Meta(description="keep the timeline of one step")] = False
    ceilings: Annotated[
        bool, Meta(description="measure what the machine can do before the steps, for the roofline: half a second each")
    ] = True
    out: Annotated[Text | None, Meta(description="result file (default: a new name under results/)")] = None
    overwrite: Annotated[bool, Meta(description="replace the result file if it is there")] = False


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run: six sections, each with defaults."""

    model: ModelSpec = ModelSpec()
    problem: ProblemSpec = ProblemSpec()
    training: TrainingSpec = TrainingSpec()
    parallel: ParallelSpec = ParallelSpec()
    recurrence: RecurrenceSpec = RecurrenceSpec()
    machine: MachineSpec = MachineSpec()
    measure: MeasureSpec = MeasureSpec()

    @property
    def embed(self) -> int:
        """Input size D of the first recurrent layer."""
        return self.model.embed or self.model.hidden


class Option(NamedTuple):
    """One leaf of a :class:`RunSpec`: a key in TOML, a flag on the command line."""

    section: str
    name: str
    annotation: Any
    default: object
    description: str

    @property
    def key(self) -> str:
        """The dotted TOML key."""
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")


@cache
def options() -> tuple[Option, ...]:
    """Every leaf of a :class:`RunSpec`, section by section."""
    found = []
    for section in msgspec.structs.fields(RunSpec):
        for field in msgspec.structs.fields(section.type):
            texts = (m.description for m in get_args(field.type) if isinstance(m, Meta) and m.description)
            found.append(Option(section.name, field.name, field.type, field.default, next(texts, "")))
    return tuple(found)


def option(name: str) -> Option:
    """Find a leaf by its name or its dotted key.

    Raises
    ------
    SpecError
        There is no such key; the message lists those there are.
    """
    table = {o.name: o for o in options()} | {o.key: o for o in options()}
    if name not in table:
        raise SpecError("key", name, "one of " + ", ".join(o.key for o in options()))
    return table[name]


def build_spec(raw: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunSpec:
    """Make a validated specification.

    Parameters
    ----------
    raw : mapping
        Sections of keys, as a TOML file holds them.
    overrides : mapping, optional
        Leaf names and values that win over ``raw``: what the flags say.

    Raises
    ------
    SpecError
        An unknown key, a wrong type or a value out of range.
    """
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in raw.items()}
    for name, value in (overrides or {}).items():
        leaf = option(name)
        section = merged.setdefault(leaf.section, {})
        if isinstance(section, dict):
            section[leaf.name] = value
    parallel, machine = merged.get("parallel"), merged.get("machine")
    if isinstance(parallel, dict) and isinstance(parallel.get("grid"), str):
        parallel["grid"] = parse_grid(parallel["grid"])
    if isinstance(machine, dict) and isinstance(machine.get("backend"), str):
        machine["backend"] = [b.strip() for b in machine["backend"].split(",")]
    spec = convert(merged, RunSpec)
    _check_floats_finite(spec)
    if "min_repeats" not in merged.get("measure", {}):  # a default gives way to what was asked for
        fewest = min(spec.measure.min_repeats, spec.measure.max_repeats)
        spec = msgspec.structs.replace(spec, measure=msgspec.structs.replace(spec.measure, min_repeats=fewest))
    if len(set(spec.machine.backend)) != len(spec.machine.backend):
        raise SpecError("machine.backend", ",".join(spec.machine.backend), "each backend once")
    if spec.measure.min_repeats > spec.measure.max_repeats:
        raise SpecError(
            "measure.min_repeats", spec.measure.min_repeats, f"at most max_repeats ({spec.measure.max_repeats})"
        )
    return spec


StructType = TypeVar("StructType", bound=msgspec.Struct)


def convert(raw: Mapping[str, Any], into: type[StructType]) -> StructType:
    """Decode plain values into a typed struct, with errors that name key, value and what is allowed."""
    _check_keys(raw, into, [])
    try:
        return msgspec.convert(raw, into)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, into) from None
    except UnicodeEncodeError as error:  # bytes of a command line that are no text
        raise SpecError("specification", error.object, "text in Unicode") from None


def parse_grid(text: str) -> dict[str, Any]:
    """Read ``data=2`` into ``{"data": 2}``; wrong names and values are left for validation to name.

    Raises
    ------
    SpecError
        The text is not ``axis=count``, comma-separated, each axis once.
    """
    axes: dict[str, Any] = {}
    allowed = "axis=count, comma-separated, axes: " + ", ".join(Grid.__struct_fields__)
    for part in text.split(","):
        axis, equals, count = (piece.strip() for piece in part.partition("="))
        if not equals or axis in axes or not re.fullmatch(r"[+-]?[0-9]{1,10}", count):
            raise SpecError("parallel.grid", text, allowed)
        axes[axis] = int(count)
    return axes


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    FileError
        It is not there, cannot be read, or is not TOML.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for, a device has no end
            reason = "it is not a file"
        else:
            with Path(path).open("rb") as stream:
                return tomllib.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise FileError(printable(f"{path}: cannot be read as TOML: {reason}"))


def to_dict(spec: msgspec.Struct) -> dict[str, Any]:
    """Plain dictionaries, lists, strings and numbers: what a record stores."""
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    return {
        section: {name: list(v) if isinstance(v, tuple) else v for name, v in keys.items()}
        for section, keys in plain.items()
    }


def _check_floats_finite(spec: RunSpec) -> None:
    for leaf in options():
        value = getattr(getattr(spec, leaf.section), leaf.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(leaf.key, value, "a finite number")


def _check_keys(raw: object, into: Any, path: list[str]) -> None:
    """Refuse keys that a struct does not have, however they are spelt; nested tables too."""
    struct = _struct_of(into)
    if struct is None or not isinstance(raw, Mapping):
        return
    fields = {f.name: f.type for f in msgspec.structs.fields(struct)}
    for key, value in raw.items():
        if key not in fields:
            spelt = shorten(key)[1:-1]  # as it was written, but on one line
            raise SpecError(".".join([*path, spelt]), value, "one of the keys " + ", ".join(fields))
        _check_keys(value, fields[key], [*path, key])


def _explain(message: str, raw: Mapping[str, Any], into: type[msgspec.Struct]) -> SpecError:
    """Turn msgspec's message into one that also shows the value and the choices."""
    text, found, path = message.rpartition(" - at `$")  # the last: the text before it may quote the value
    keys = re.findall(r"\.([^.\[`]+)", path) if found else []
    value, annotation = _look_up(raw, into, keys)
    return SpecError(".".join(keys) or "specification", value, describe(annotation) or text)


def _nested(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else value


def _look_up(raw: object, annotation: Any, keys: list[str]) -> tuple[object, Any]:
    for key in keys:
        raw = _nested(raw, key)
        struct = _struct_of(annotation)
        fields = {f.name: f.type for f in msgspec.structs.fields(struct)} if struct else {}
        annotation = fields.get(key, annotation)
    return raw, annotation


def _struct_of(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct type inside ``Annotated[X | None, ...]``; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    found = (_struct_of(inner) for inner in get_args(annotation))
    return next((struct for struct in found if struct is not None), None)


def describe(annotation: Any) -> str:
    """Say in words what a type annotation allows: ``an integer >= 1``, ``lstm or gru``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metas = get_args(annotation)
        # What a pattern means is said in words beside it.
        said = next((m.description for m in metas if isinstance(m, Meta) and m.pattern), None)
        limits = " and ".join(
            f"{sign} {getattr(m, name):.12g}"
            for m in metas
            if isinstance(m, Meta)
            for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
            if getattr(m, name) is not None
        )
        return said or f"{describe(base)} {limits}".strip()
    if origin is Literal:
        return " or ".join(str(choice) for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in get_args(annotation) if a is not type(None))
    if origin in (tuple, list):
        return f"a list of {describe(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return "the keys " + ", ".join(annotation.__struct_fields__)
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false", dict: "a table"}
    return names.get(origin or annotation, str(annotation))
