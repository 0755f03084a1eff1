"""The protocol between the executor and whatever computes: a backend's engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.spec import Mode
from hpcrnn.workloads import Batch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Extent:
    """The part of a step's data one engine works on.

    Attributes
    ----------
    steps : int
        Time steps T.
    microbatches : tuple of slice
        The engine's rows, counted from its first, cut into micro-batches.
    chunks : tuple of slice
        The time axis, cut into chunks.
    scale : float
        What every term of the loss is multiplied by: one over T times the rows of the *global* batch, so that
        losses and gradients of all ranks add up to those of the whole batch, however unequal their shares.
    mode : {"train", "gradient", "forward"}
    """

    steps: int
    microbatches: tuple[slice, ...]
    chunks: tuple[slice, ...]
    scale: float
    mode: Mode

    @property
    def rows(self) -> int:
        """Rows of all micro-batches."""
        return int(self.microbatches[-1].stop)

    @property
    def backward(self) -> bool:
        """Whether gradients are computed."""
        return self.mode != "forward"


@dataclass(frozen=True)
class Outcome:
    """What a step computed, in the canonical layout, for comparison.

    Attributes
    ----------
    loss : float
        This engine's part before, the whole after the loss has been summed.
    gradients : dict of str to array
        Of every parameter, named ``block.parameter``.
    by_row : dict of str to array (rows, ...)
        What belongs to this engine's rows: final states ``state layer0.h``, gradients of the initial
        states ``d layer0.h``, gradient of the input ``dx``.
    """

    loss: float
    gradients: dict[str, Array]
    by_row: dict[str, Array] = field(default_factory=dict)


class Engine(Protocol):
    """One rank's network on one backend: buffers, and the tasks that work on them.

    Blocks, micro-batches and chunks are given by index.
    """

    @property
    def kernel(self) -> str:
        """What does the recurrent product, for the record."""

    loss: float
    """Sum of this step's loss terms so far; the executor replaces it by the sum over all replicas."""

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

    def gradient_range(self, start: int, stop: int) -> Array:
        """Complete gradients of the blocks ``start:stop``: one contiguous array, to be summed in place."""

    def update(self) -> float:
        """Clip, apply the optimizer; return the gradient's norm before clipping.

        Raises
        ------
        NumericsError
            The gradient is not finite.
        """

    def outcome(self) -> Outcome:
        """Copy what the step computed."""


def state_names(block_name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a recurrent block's states over the whole network, e.g. ``layer0.h``."""
    return tuple(f"{block_name}.{name}" for name in names)


def rows_first(a: Array) -> Array:
    """(T, B, N) copied as (B, T, N)."""
    return np.ascontiguousarray(a.transpose(1, 0, 2))
