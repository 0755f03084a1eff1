"""The sections of a specification: every key a run can be given, with its type, range and meaning.

Every leaf name is unique over all sections.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from hpcrnn.spec.unequal import BALANCE_PATTERN, HANDICAP_PATTERN

# Far above any machine, far below where a product of two of them leaves an int64.
_LARGEST = 2**31 - 1

Size = Annotated[int, Meta(ge=1, le=_LARGEST)]
PositiveFloat = Annotated[float, Meta(gt=0, le=1e12)]
Fraction = Annotated[float, Meta(gt=0, lt=1)]
Text = Annotated[str, Meta(min_length=1)]
Balance = Annotated[
    str,
    Meta(pattern=BALANCE_PATTERN, description="even, measured or weights:2,1,1 with a number above 0 for each rank"),
]
HandicapText = Annotated[
    str,
    Meta(pattern=HANDICAP_PATTERN, description="RANK:SPEED or RANK:SPEED@STEP, comma-separated, speeds 0.01 to 0.9999"),
]

Spread = Annotated[
    str,
    Meta(
        pattern=r"\A(even|skewed:(0(\.[0-9]{1,9})?|1(\.0{1,9})?))\Z",
        description="even, or skewed:X with X from 0 to 1",
    ),
]
GradCodec = Annotated[
    str,
    Meta(
        pattern=r"\A(none|float16|bfloat16|int8|powersgd:[1-9][0-9]{0,5}"
        r"|topk:([1-9][0-9]{0,9}|0?\.[0-9]{0,8}[1-9][0-9]{0,8}|1\.0{0,8}))\Z",
        description="none, float16, bfloat16, int8, topk:K (K a share as 0.01, up to 1.0, or a count) or powersgd:R "
        "(R a rank from 1)",
    ),
]

CellName = Literal["elman", "lstm", "gru", "mingru", "minlstm"]
DType = Literal["float32", "float64"]
BackendName = Literal["numpy", "torch", "cupy"]
Precision = Literal["float32", "tf32", "float16", "bfloat16"]
HALVED: tuple[Precision, ...] = ("float16", "bfloat16")
"""Precisions that store a number in two bytes."""

Mode = Literal["train", "gradient", "forward", "target"]
StepMode = Literal["train", "gradient", "forward"]
"""What one step does; in mode ``target`` it is a step of training."""
Axis = Literal["data", "pipeline", "time", "tensor"]
OrderName = Literal["fill_drain", "1f1b", "seq_1f1b", "zb_h1", "interleaved"]
DataMethodName = Literal[
    "allreduce_flat",
    "allreduce_bucketed",
    "hierarchical",
    "parameter_server_sync",
    "parameter_server_async",
    "local_sgd",
    "diloco",
    "ensemble",
    "subsequence",
]
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
    sequences: Annotated[
        Literal["windows", "lines", "files"],
        Meta(
            description="of stdlib and file: windows of seq bytes from anywhere; or lines or files, each of its own "
            "length and starting from zeros; of one longer than seq the rest is a further sequence"
        ),
    ] = "windows"
    batching: Annotated[
        Literal["naive", "sorted", "packed"],
        Meta(
            description="of lines and files; naive: a sequence a row, as drawn, and padded; sorted: those of a step of "
            "about one length; packed: several in a row, so that all rows are full"
        ),
    ] = "naive"
    spread: Annotated[
        Spread,
        Meta(
            description="of lines and files over the rows of the batch, and so over ranks; skewed: each row owns a "
            "part of the sequences, dealt by length where X is 1, at random where it is 0"
        ),
    ] = "even"

    @property
    def skew(self) -> float | None:
        """X of ``skewed:X``; None where rows own nothing."""
        kind, _, degree = self.spread.partition(":")
        return float(degree) if kind == "skewed" else None


class TrainingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one step does beside the forward pass."""

    mode: Annotated[
        Mode,
        Meta(
            description="train: a whole step; gradient: forward and backward; forward: inference; target: train until "
            "the loss on held-out data is down to target_loss, and measure how long that takes"
        ),
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
    target_loss: Annotated[
        PositiveFloat | None, Meta(description="mode target: held-out loss to come to, in the unit of the loss")
    ] = None
    seeds: Annotated[
        int, Meta(ge=1, le=1000, description="mode target: trainings, with the seeds seed, seed + 1, ...")
    ] = 6
    max_steps: Annotated[Size, Meta(description="mode target: steps of a training at the most")] = 1000
    eval_every: Annotated[Size, Meta(description="mode target: steps between evaluations on held-out data")] = 20
    eval_rows: Annotated[
        Size | None, Meta(description="mode target: held-out sequences of an evaluation (default: 4 times batch)")
    ] = None

    @property
    def step_mode(self) -> StepMode:
        """What one step does."""
        return "train" if self.mode == "target" else self.mode


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
    data_method: Annotated[
        DataMethodName,
        Meta(
            description="what replicas of the network exchange; allreduce_bucketed: gradients, a layer at a time as "
            "each completes; allreduce_flat: all at the end; hierarchical: within nodes, then across them; "
            "parameter_server_sync, parameter_server_async: rank 0 adds and updates, for all at once or as they come; "
            "local_sgd, diloco: parameters, now and then; ensemble, subsequence: nothing, models of their own on their "
            "own rows or piece of each row"
        ),
    ] = "allreduce_bucketed"
    sync_every: Annotated[
        int, Meta(ge=1, le=10_000, description="local_sgd, diloco: steps from one average to the next")
    ] = 8
    outer_lr: Annotated[PositiveFloat, Meta(description="diloco: learning rate towards the average")] = 0.7
    outer_momentum: Annotated[float, Meta(ge=0, lt=1, description="diloco: Nesterov momentum of the average")] = 0.9
    staleness: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="parameter_server_async: steps a worker may be ahead of the slowest when it goes on",
        ),
    ] = 2
    node_size: Annotated[
        Size | None,
        Meta(description="hierarchical: ranks that count as a node, in turn (default: those that share memory)"),
    ] = None
    grad_codec: Annotated[
        GradCodec,
        Meta(
            description="compression of gradients that allreduce_* sums, with error feedback; topk:K: the K largest "
            "elements of each sum, a share of them where K has a point (topk:0.01), else a count; powersgd:R: matrices "
            "of rank R"
        ),
    ] = "none"
    balance: Annotated[
        Balance,
        Meta(
            description="shares of ranks in rows, layers and time steps; measured: by their speeds, which a "
            "calibration of some seconds tells; weights: by these speeds"
        ),
    ] = "even"


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
    rank_backends: Annotated[
        tuple[Literal["numpy", "cupy"], ...] | None,
        Meta(description="backend of each rank, where replicas are to run on CPUs and GPUs (default: one for all)"),
    ] = None
    handicap: Annotated[
        HandicapText | None,
        Meta(
            description="ranks slowed down on purpose, to try what that does; 1:0.5@40: rank 1 at half its speed, from "
            "counted step 40 on; such a result is marked (default: none)"
        ),
    ] = None
    peer_threads: Annotated[
        Size | None, Meta(description="torch: threads of its serial run beside several ranks (default: threads)")
    ] = None
    expect_ranks: Annotated[Size | None, Meta(description="stop unless MPI started exactly this many ranks")] = None


class MeasureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long to measure, and where the numbers go."""

    ci_width: Annotated[
        Fraction, Meta(description="stop when the 95 % interval of the median is this narrow, relatively")
    ] = 0.05
    max_time: Annotated[
        PositiveFloat, Meta(description="seconds of measuring at the most; mode target: of training, each seed")
    ] = 60.0
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
    checkpoint: Annotated[
        Text | None, Meta(description="mode target: file that keeps the training, to go on from if it is ended")
    ] = None
    checkpoint_every: Annotated[Size, Meta(description="mode target: evaluations from one checkpoint to the next")] = 1
    resume: Annotated[
        bool, Meta(description="mode target: go on from the checkpoint where it is there; begin where it is not")
    ] = False


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run: seven sections, each with defaults."""

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
