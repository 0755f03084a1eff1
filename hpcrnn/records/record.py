"""The typed record of a run, as it lies in memory.

A :class:`Record` is one result file: the environment and one or more *cases*.  A case is one problem run
one way (backend, strategy, ranks): every raw timing of every repetition, rank and phase, beside the verdict
that says whether the numbers computed were right.  Nothing derived is stored: medians and intervals are
computed on reading, by :mod:`hpcrnn.records.statistics`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isnan, nan
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from hpcrnn.records.certificate import Certificate
from hpcrnn.records.compression import NO_CODEC, Compression
from hpcrnn.records.learning import Learning
from hpcrnn.records.older_words import in_first_words
from hpcrnn.records.split import CHAIN, Split, read_split
from hpcrnn.records.timeline import Timeline
from hpcrnn.records.work import Work

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SCHEMA_NAME = "hpcrnn-record"
SCHEMA_VERSION = 3
"""2 added what an engine allocates, the bubble bound and the timeline, 3 the certificate; older files lack them.

What a device says of itself, and CPU times, came later without a number of their own: a file has them or does not.
"""

Status = Literal["VALID", "INVALID", "APPROXIMATE"]
"""APPROXIMATE: inexact by nature, or by what was asked for; the errors it makes are in the checks."""
Strategy = Literal["serial", "data", "pipeline", "time", "tensor", "hybrid"]

STEP = "step"
"""The phase that is the whole step, from the common start to the rank's own end."""
OTHER = "other"
"""What of the step no other phase accounts for: the executor itself."""

PHASES = (
    STEP,
    "forward",
    "backward",
    "weight_gradient",
    "post",
    "wait_recv",
    "wait_send",
    "allreduce",
    "update",
    OTHER,
)
"""What a step's time is divided into, in the order of a step.

``post`` begins messages; ``wait_recv`` waits for a value to arrive, ``wait_send`` for a buffer to be free again;
``allreduce`` holds both the posts and the waits of sums.
"""

BUSY_PHASES = ("forward", "backward", "weight_gradient", "update")
"""The phases of a step that are work: those in which a device may be busy."""

_ADDED = {
    ("model", "forget_init"): "constant",
    ("model", "chrono_span"): 1000,
    ("training", "carry"): False,
    ("problem", "sequences"): "windows",
    ("problem", "batching"): "naive",
    ("problem", "spread"): "even",
    ("parallel", "balance"): "even",
    ("parallel", "grad_codec"): "none",
    ("parallel", "sync_every"): 8,
    ("parallel", "outer_lr"): 0.7,
    ("parallel", "outer_momentum"): 0.9,
    ("parallel", "staleness"): 2,
    ("parallel", "node_size"): None,
    ("training", "target_loss"): None,
    ("training", "seeds"): 6,
    ("training", "max_steps"): 1000,
    ("training", "eval_every"): 20,
    ("training", "eval_rows"): None,
}
"""Keys that older files do not have, and what these did all the same: it must not set problems or cases apart.

None of these values may change, whatever becomes of defaults: the identity of stored cases follows from them.
"""
_NEVER = object()

ASKED = "asked"
"""Why measuring stopped where the run was asked to end: SIGUSR1, which Slurm sends before the time is up."""

RANKS_AGREE = "gradient agreement of ranks"
"""A check between ranks, not of a gradient against the float64 run."""


@dataclass(frozen=True)
class Check:
    """One quantity compared with the float64 serial run.

    Attributes
    ----------
    quantity : str
        ``loss``, ``gradient layer0.R``, ``state layer1.h``, ...
    error : float
        Relative error of the run under test, in the 2-norm.
    serial_error : float
        The same error of the serial run in the same dtype: the yardstick.
    tolerance : float
        The largest error that is still right.
    """

    quantity: str
    error: float
    serial_error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; a NaN never is."""
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True)
class Verdict:
    """Whether the numbers a case computed are right, and how that was found.

    Attributes
    ----------
    status : {"VALID", "INVALID", "APPROXIMATE"}
    problem : str
        The size the check ran at, in words.
    factor : float
        How many times the serial run's own error is allowed.
    checks : tuple of Check
    """

    status: Status
    problem: str
    factor: float
    checks: tuple[Check, ...]

    @property
    def worst(self) -> Check:
        """The check nearest to, or furthest beyond, its tolerance; a NaN is beyond all."""
        return max(self.checks, key=_closeness)

    @property
    def gradient_error(self) -> float:
        """Largest relative error of a parameter's gradient; NaN where one is NaN, or none was checked."""
        worst = self._worst_gradient
        return worst.error if worst else nan

    @property
    def serial_gradient_error(self) -> float:
        """What the serial run in the same dtype loses in that gradient; NaN where none was checked."""
        worst = self._worst_gradient
        return worst.serial_error if worst else nan

    @property
    def _worst_gradient(self) -> Check | None:
        gradients = (c for c in self.checks if c.quantity.startswith("gradient ") and c.quantity != RANKS_AGREE)
        return max(gradients, key=lambda check: inf if isnan(check.error) else check.error, default=None)


@dataclass(frozen=True, eq=False)
class Case:
    """One problem run one way.

    Attributes
    ----------
    spec : dict
        The run specification, complete, as plain values (sections of keys).
    strategy : {"serial", "data", "pipeline", "time", "tensor", "hybrid"}
    backend : str
        ``numpy`` or ``torch``.
    kernel : str
        What really did the recurrent product, e.g. ``MKL packed sgemm``: the same at every size.
    n_ranks : int
        Ranks that took part.
    phases : tuple of str
        Names along the last axis of the times; the first is ``step``.
    time_s, warmup_s : float64 array (n_repetitions, n_ranks, n_phases)
        Seconds. ``warmup_s`` holds the steps before counting began.
    loss : float64 array (n_warmup + n_repetitions,)
        Loss of each training step, in nats or squared units.
    gradient_norm : float64 array (n_warmup + n_repetitions,)
        Global 2-norm of the gradient before clipping; NaN unless the mode is ``train``.
    flops : float
        Floating-point operations of a step over all ranks: every matrix product, two a multiply-add;
        pointwise work is not counted. Where steps differ, of what they ran on average, padding too.
    bytes_sent : int64 array (n_ranks,)
        Bytes a rank sends in messages, to other tensor shards too, and contributes to collectives in a step.
    peak_memory_bytes : int64 array (n_ranks,)
        High-water mark of the process's resident set when the case had been measured.
    memory_bytes : int64 array (n_ranks,)
        What the case's own engine allocated, on the device where it worked on one: parameters, gradients,
        optimizer, activations, buffers; all zero where that is unknown.
    stop_reason : str
        Why measuring ended.
    verdict : Verdict
    simulated : bool
        True where no machine ran it.
    timeline : Timeline or None
        Of one counted step; None where it was not kept.
    bubble_bound : float
        Share of a step's rank-time that the schedule must idle even when every task takes exactly its
        operations' share, in [0, 1); NaN where it is unknown.
    certificate : Certificate or None
        Of a method that runs segments of time at once; None for the chain.
    kernel_details : tuple of str
        How each rank's kernel was laid out at its size, such as tiles, registers and shared memory; a text is empty
        where there is no more to say, the tuple where no rank has more to say.
    device_time_s : float64 array (n_repetitions, n_ranks, n_phases) or None
        Seconds of each phase of :data:`BUSY_PHASES` by the device's own clock, from where it begins the work of a
        task to where that is done; NaN where that was not measured, None where it nowhere was.
    cpu_time_s : float64 array (n_repetitions, n_ranks, n_phases) or None
        CPU seconds that a rank's process, all its threads, had in each phase; those of a step's phases add up to the
        step's. NaN where that was not measured, None where it nowhere was.
    device_peak_bytes : int64 array (n_ranks,) or None
        Most that the memory pool of the rank's process took from the device, for all engines of the process, when
        the case had been measured; None without a device.
    compression : Compression or None
        Of gradients that a codec compressed before they were summed; None where none did.
    staleness : int64 array (n,) or None
        How many gradients an asynchronous parameter server has applied that were 0, 1, ... updates old, warm-ups
        included; None without such a server.
    learning : Learning or None
        Of a case that was trained to a target, mode ``target``: a repetition is then a leg, the steps between two
        evaluations, its times and its loss are means over the steps of the leg, and the seeds follow one another.
    work : Work or None
        Where sequences are of unequal length; None where all rows are full.
    """

    spec: dict[str, Any]
    strategy: Strategy
    backend: str
    kernel: str
    n_ranks: int
    phases: tuple[str, ...]
    time_s: FloatArray
    warmup_s: FloatArray
    loss: FloatArray
    gradient_norm: FloatArray
    flops: float
    bytes_sent: IntArray
    peak_memory_bytes: IntArray
    memory_bytes: IntArray
    stop_reason: str
    verdict: Verdict
    simulated: bool = False
    timeline: Timeline | None = None
    bubble_bound: float = nan
    certificate: Certificate | None = None
    kernel_details: tuple[str, ...] = ()
    device_time_s: FloatArray | None = None
    device_peak_bytes: IntArray | None = None
    cpu_time_s: FloatArray | None = None
    compression: Compression | None = None
    learning: Learning | None = None
    staleness: IntArray | None = None
    work: Work | None = None

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that name the case: what was run and how."""
        named = [self._problem_as_asked, self.how, self.strategy, self.backend, self.kernel, self.n_ranks]
        return _digest([*named, self.transport] if self.transport else named)

    @cached_property
    def problem_id(self) -> str:
        """Twelve hexadecimal digits that name the problem: equal where times may be compared."""
        return _digest(self.problem)

    @property
    def problem_id_as_asked(self) -> str:
        """The same of the problem in the words it was asked in, by which older files name its base."""
        return _digest(self._problem_as_asked)

    @property
    def problem(self) -> dict[str, Any]:
        """What is computed, whoever computes it: model, data and training sections, and a coarser precision.

        An input size that was asked for and is the default one is the default.
        """
        asked = self._problem_as_asked
        model = asked["model"]
        is_default = input_size(model) == model.get("hidden") and "embed" in model
        return asked | {"model": model | {"embed": None}} if is_default else asked

    @property
    def _problem_as_asked(self) -> dict[str, Any]:
        """What is computed, in the words it was asked in: ids that were given once stay."""
        sections = {name: self._as_first_stored(name) for name in ("model", "problem", "training")}
        coarser = self.precision != self.spec["model"].get("dtype", self.precision)
        return sections | ({"machine": {"precision": self.precision}} if coarser else {})

    def _as_first_stored(self, section: str) -> dict[str, Any]:
        """A section without the keys that came later, where they say what went without saying before."""
        return {key: value for key, value in self.spec[section].items() if _ADDED.get((section, key), _NEVER) != value}

    @property
    def precision(self) -> str:
        """What it was computed in: the dtype, or what a GPU was told to store and multiply."""
        precision = self.spec["machine"].get("precision", "float32") if self.on_gpu else "float32"
        return precision if precision != "float32" else str(self.spec["model"].get("dtype", "float32"))

    @property
    def how(self) -> dict[str, Any]:
        """How the work is cut and run: parallel section, threads, and the recurrence's where it is no chain."""
        parallel = in_first_words(self._as_first_stored("parallel"))
        how = {"parallel": parallel, "threads": self.spec["machine"]["threads"]}
        if self.on_gpu and self.spec["machine"].get("gradient_sum", "mpi") != "mpi":
            how["gradient_sum"] = self.spec["machine"]["gradient_sum"]
        if self.handicap:
            how["handicap"] = self.handicap
        if self.spec["machine"].get("rank_backends"):
            how["rank_backends"] = self.spec["machine"]["rank_backends"]
        # The rest of the section means nothing to a chain, and files of version 2 do not have it.
        return how if self.method == CHAIN else how | {"recurrence": self.spec["recurrence"]}

    @property
    def transport(self) -> str:
        """How arrays on GPUs met MPI, ``staged`` or ``direct``; empty where they did not, or the file does not say."""
        transport = self.spec["machine"].get("transport")
        met = self.on_gpu and self.n_ranks > 1
        return transport if met and transport in ("staged", "direct") else ""

    @property
    def handicap(self) -> str:
        """Ranks that were slowed down on purpose, as ``1:0.5``; empty where none was, as it is of every real result."""
        return self.spec["machine"].get("handicap") or ""

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computed it."""
        return self.backend == "cupy"

    @property
    def method(self) -> str:
        """How segments of time come to the states they start from: ``chain``, ``picard``, ..."""
        return self.split.method

    @property
    def grad_codec(self) -> str:
        """What its gradients were compressed with before they were summed; ``none`` where nothing was."""
        return self.split.codec if self.spec["training"].get("mode") != "forward" else NO_CODEC

    @property
    def fold(self) -> int:
        """Segments that each time rank computes together; 1 for the chain."""
        return self.split.fold

    @property
    def is_serial_base(self) -> bool:
        """Whether this is a run that speedups may be measured against: one rank, one time step after another."""
        return self.n_ranks == 1 and self.method == CHAIN and not self.handicap

    @cached_property
    def split(self) -> Split:
        """How the work is split: grid, order, pieces, method and fold."""
        return read_split(self.spec["parallel"], self.strategy, self.n_ranks, self.spec.get("recurrence"))

    @property
    def label(self) -> str:
        """A short name for tables and legends, e.g. ``pipeline 2 · 1f1b M4 C2 · numpy``."""
        slowed = f" · HANDICAPPED {self.handicap}" if self.handicap else ""
        return f"{self.split.name} · {self.backend}{slowed}"

    @property
    def memory_known(self) -> bool:
        """Whether what the engines allocated was recorded."""
        return bool((self.memory_bytes > 0).any())

    def step_s(self) -> FloatArray:
        """Seconds of each counted step, the slowest rank's: shape (n_repetitions,)."""
        return np.asarray(self.time_s[:, :, self.phases.index(STEP)].max(axis=1), dtype=np.float64)

    def phase_s(self, phase: str) -> FloatArray:
        """Seconds of one phase, shape (n_repetitions, n_ranks)."""
        return np.asarray(self.time_s[:, :, self.phases.index(phase)], dtype=np.float64)


@dataclass(frozen=True)
class Baseline:
    """The base of every speedup: the best serial run of the same problem in the same file.

    Attributes
    ----------
    case_id : str
    time_s : float
        Its median step, seconds.
    """

    case_id: str
    time_s: float
    kind: str = "best_serial"


@dataclass(frozen=True, eq=False)
class Record:
    """One result file.

    Attributes
    ----------
    uuid, created_utc : str
        Identity and ISO-8601 time of creation.
    hpcrnn_version : str
    argv : tuple of str
        The command line.
    environment : dict
        Sections ``hosts`` (a list, one entry a rank), ``mpi``, ``blas``, ``packages``, ``variables``,
        ``git``, ``slurm``, ``clock``, ``workload``: plain values.
    cases : tuple of Case
    complete : bool
        False in a file written before the run had come to its end.
    """

    uuid: str
    created_utc: str
    hpcrnn_version: str
    argv: tuple[str, ...]
    environment: dict[str, Any]
    cases: tuple[Case, ...]
    complete: bool = True
    source: str = field(default="", compare=False)
    """Path this record was read from; empty where it was not."""
    origin: str = field(default="", compare=False)
    """File it lay in before it was merged into another; empty where it was not."""


def input_size(model: Mapping[str, Any]) -> Any:
    """Input size D of the first recurrent layer, from a stored section ``model``: ``hidden`` where none was asked."""
    return model.get("embed") or model.get("hidden")


def _closeness(check: Check) -> float:
    """Error in units of the tolerance; infinite for a NaN."""
    return check.error / check.tolerance if check.tolerance and not np.isnan(check.error) else float("inf")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def strategy_of(grid: Mapping[str, int]) -> Strategy:
    """Name the strategy of a grid by the axis that is longer than one; ``hybrid`` where several are."""
    long = [axis for axis, count in grid.items() if count > 1]
    if len(long) > 1:
        return "hybrid"
    return cast("Strategy", long[0]) if long else "serial"
