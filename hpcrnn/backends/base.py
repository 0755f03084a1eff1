"""The protocol between the executor and whatever computes: a backend's engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hpcrnn.methods.folding import Folding
from hpcrnn.methods.solver import Solve
from hpcrnn.model.sharding import WHOLE, Shard
from hpcrnn.schedules.graph import Value
from hpcrnn.schedules.lifetimes import Slots
from hpcrnn.spec import RecurrenceSpec, StepMode
from hpcrnn.workloads import Batch

Array = npt.NDArray[Any]


CHAIN = RecurrenceSpec()
"""Every segment of time waits for the one before."""


@dataclass(frozen=True)
class Extent:
    """The part of a step one engine works on.

    Attributes
    ----------
    steps : int
        Time steps T of the whole sequence.
    microbatches : tuple of slice
        The engine's rows, counted from its first, cut into micro-batches.
    chunks : tuple of slice
        The whole time axis, cut into chunks.
    scale : float
        What every term of the loss is multiplied by: one over T times the rows of the *global* batch, so that
        losses and gradients of all ranks add up to those of the whole batch, however unequal their shares.
    mode : {"train", "gradient", "forward"}
    blocks : tuple of int, optional
        Blocks of this engine; all of the network's if not given.
    segment : range, optional
        Chunks of this engine; all if not given.
    shard : Shard
        Hidden units of this engine.
    slots : Slots, optional
        Which buffers may share memory; none if not given.
    recurrence : RecurrenceSpec
        Where its method is not ``chain`` the engine has one chunk, folded: segments of it are rows of its arrays.
    """

    steps: int
    microbatches: tuple[slice, ...]
    chunks: tuple[slice, ...]
    scale: float
    mode: StepMode
    blocks: tuple[int, ...] | None = None
    segment: range | None = None
    shard: Shard = WHOLE
    slots: Slots | None = None
    recurrence: RecurrenceSpec = CHAIN

    @property
    def rows(self) -> int:
        """Rows of all micro-batches."""
        return int(self.microbatches[-1].stop)

    @property
    def backward(self) -> bool:
        """Whether gradients are computed."""
        return self.mode != "forward"

    @property
    def own_chunks(self) -> range:
        """Indices of this engine's chunks."""
        return range(len(self.chunks)) if self.segment is None else self.segment

    @property
    def window(self) -> slice:
        """Time steps of this engine."""
        own = self.own_chunks
        return slice(self.chunks[own[0]].start, self.chunks[own[-1]].stop)

    def local(self, chunk: int) -> slice:
        """Steps of a chunk in the engine's arrays."""
        if self.is_folded:
            return slice(None)
        first, part = self.window.start, self.chunks[chunk]
        return slice(part.start - first, part.stop - first)

    def shape(self, microbatch: int, chunk: int) -> tuple[int, int]:
        """Steps and rows (T, B) of the arrays of one chunk of one micro-batch."""
        if self.is_folded:
            folding = self.folding(microbatch)
            return folding.longest, folding.rows
        part = self.chunks[chunk]
        return part.stop - part.start, self.samples(microbatch)

    def samples(self, microbatch: int) -> int:
        """Rows of the batch in a micro-batch."""
        rows = self.microbatches[microbatch]
        return int(rows.stop - rows.start)

    @property
    def is_folded(self) -> bool:
        """Whether segments of time are rows."""
        return self.recurrence.method != "chain"

    def folding(self, microbatch: int) -> Folding:
        """How the engine's window of time is folded."""
        window = self.window
        fold = self.recurrence.fold if self.is_folded else 1
        return Folding(window.stop - window.start, self.samples(microbatch), fold)

    def window_shape(self, microbatch: int) -> tuple[int, int]:
        """Steps and rows (T, B) of the arrays of all own chunks of a micro-batch."""
        folding = self.folding(microbatch)
        return folding.longest, folding.rows

    def units(self) -> list[tuple[int, int]]:
        """Every (micro-batch, chunk) of this engine."""
        return [(m, c) for m in range(len(self.microbatches)) for c in self.own_chunks]


@dataclass(frozen=True)
class Piece:
    """A part of a canonical array: ``canonical[index]`` is ``value``."""

    index: tuple[Any, ...]
    value: Array


@dataclass(frozen=True)
class Outcome:
    """What a step computed, in the canonical layout, for comparison.

    Attributes
    ----------
    loss : float
        This engine's part before, the whole after the loss has been summed.
    arrays : dict of str to array
        Gradients of every parameter ``gradient layer0.R``; final states ``state layer0.h``; gradients of the
        initial states ``d layer0.h``; of the input, ``dx`` (rows, T, F). States have the engine's rows.
    """

    loss: float
    arrays: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What one engine knows of an :class:`Outcome`.

    Attributes
    ----------
    loss : float
    pieces : dict of str to Piece
        Named as the arrays of an outcome; rows are counted from the engine's first.
    """

    loss: float
    pieces: dict[str, Piece] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerSolve:
    """A solve of one layer for one micro-batch.

    Attributes
    ----------
    layer : str
    direction : {"forward", "backward"}
    rows : slice
        Of the micro-batch, counted from the engine's first.
    solve : Solve
    """

    layer: str
    direction: str
    rows: slice
    solve: Solve


class RankGroup(Protocol):
    """Ranks that sum gradients together."""

    @property
    def rank(self) -> int:
        """Index of this rank."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    def share(self, value: Any) -> Any:
        """Return the first rank's value on all of them; called by all."""


class Summer(Protocol):
    """Sums arrays over a group without MPI."""

    def begin(self, array: Array) -> None:
        """Begin to sum an array in place."""

    def wait(self) -> None:
        """Wait for all sums begun."""


class Engine(Protocol):
    """One rank's network on one backend: buffers, and the tasks that work on them.

    Blocks, micro-batches and chunks are given by index.
    """

    @property
    def kernel(self) -> str:
        """What does the recurrent product, in few words, the same at every size: reports group cases by it."""

    @property
    def kernel_details(self) -> str:
        """How that is laid out at this size, on one line for the record; empty where there is no more to say."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know before a run: where something does without what it could have."""

    loss: float
    """Sum of this step's loss terms so far; the executor replaces it by the sum over all ranks."""

    progress: Callable[[], None]
    """What an engine may call in the midst of a long task, to let messages move; set by the executor."""

    def load_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Set every parameter from its canonical float64 form."""

    def load_batch(self, batch: Batch) -> None:
        """Take in the rows of the next step."""

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None:
        """Give initial states and gradients of the final states, named ``layer0.h``, each (rows, H)."""

    def begin_step(self) -> None:
        """Forget the last step's gradients and loss."""

    def forward(self, block: int, microbatch: int, chunk: int) -> None:
        """Run the task F."""

    def backward(self, block: int, microbatch: int, chunk: int) -> None:
        """Run the task B."""

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None:
        """Run the task W."""

    def buffers(self, value: Value, *, incoming: bool) -> tuple[Array, ...]:
        """Contiguous arrays a value is received into, or sent from; the same in every step."""

    def mover(self, value: Value, *, incoming: bool) -> Callable[[], None] | None:
        """Return what brings a value from its buffers once received, or to them before it is sent; None: no need."""

    def carry_states(self) -> None:
        """Let the next step start from this step's final states."""

    def gradient_range(self, start: int, stop: int) -> Array:
        """Complete gradients of the blocks ``start:stop``: one contiguous array, to be summed in place."""

    def summer(self, group: RankGroup) -> Summer | None:
        """Return what sums gradient ranges over a group of ranks, all of which call this; None: MPI does."""

    def norm_square(self) -> float:
        """Square of the 2-norm of the gradients, what all shards hold counted on the first only; it may be infinite."""

    def update(self, norm: float) -> None:
        """Clip a gradient of this norm, and apply the optimizer."""

    def part(self) -> Part:
        """Copy what the step computed."""

    def parameter_pieces(self) -> dict[str, Piece]:
        """Copies of this engine's parameters, named as :meth:`load_parameters` has them, and where they belong."""

    def predictions(self) -> Array:
        """What a forward pass in mode ``forward`` said of each target.

        Returns
        -------
        float64 array (T, B) or float array (T, B, O)
            The logarithm of the target's probability, or the values predicted.
        """

    def state(self) -> dict[str, Array]:
        """Copies, on the host, of what the next step depends on: parameters, optimizer, states carried."""

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from what :meth:`state` returned, in an engine that was made alike."""

    def solves(self) -> tuple[LayerSolve, ...]:
        """What the step's solves did; nothing with method ``chain``."""

    def exponents(self) -> dict[str, float]:
        """Estimate each layer's largest Lyapunov exponent along the last step; nothing with method ``chain``."""

    @property
    def device_seconds(self) -> Mapping[str, float]:
        """Seconds the device itself worked in the last step, by phase; empty without a device.

        Of the phases in :data:`~hpcrnn.records.record.BUSY_PHASES`, those that it measured.
        """

    @property
    def memory_bytes(self) -> int:
        """What this engine has allocated: on the device, where it works on one."""

    @property
    def device_peak_bytes(self) -> int:
        """High-water mark of this process's memory on the device, all its engines together; 0 without a device."""

    @property
    def exchanged_bytes(self) -> int:
        """Bytes sent inside tasks so far, to the other shards of the hidden units."""


@runtime_checkable
class ModelEngine(Protocol):
    """What an engine has besides, whose parameters may be exchanged with other replicas."""

    def parameter_range(self, start: int, stop: int) -> Array:
        """Parameters of the blocks ``start:stop``: one contiguous array, the same in every step."""

    def parameters_changed(self) -> None:
        """Hear that they were written to from outside."""


class HostEngine:
    """What an engine on the host answers where a device is asked about."""

    kernel_details = ""
    remarks: tuple[str, ...] = ()
    device_seconds: Mapping[str, float] = MappingProxyType({})
    device_peak_bytes = 0

    def summer(self, group: RankGroup) -> None:
        """MPI sums."""


def with_prefix(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Put a word and a dot before every name."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def without_prefix(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Select the names that begin with a word and a dot, without these."""
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def nothing() -> None:
    """Do nothing: what an engine calls until it is told better."""


def state_names(block_name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a recurrent block's states over the whole network, e.g. ``layer0.h``."""
    return tuple(f"{block_name}.{name}" for name in names)


def rows_first(a: Array) -> Array:
    """(T, B, N) copied as (B, T, N)."""
    return np.ascontiguousarray(a.transpose(1, 0, 2))
