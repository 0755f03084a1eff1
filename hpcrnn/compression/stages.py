"""What a compressed sum is made of: stages, each a collective between two computations.

A rank runs, for every stage in turn, ``begin``, the collective from ``send`` to ``receive``, ``end``; between these it
may compute something else. After the last ``end`` the gradient is the sum over the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import NumericsError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

CollectiveKind = Literal["allreduce", "alltoall", "allgather"]


class StageSize(NamedTuple):
    """What a stage puts on the wire.

    Attributes
    ----------
    kind : {"allreduce", "alltoall", "allgather"}
    operand : str
        What crosses, in a word that sets it apart from the other stages of the same kind.
    n_bytes : int
        Bytes a rank contributes, the same on all: of an alltoall those for all ranks, itself included.
    """

    kind: CollectiveKind
    operand: str
    n_bytes: int

    def wire_bytes(self, n_ranks: int) -> float:
        """Bytes a rank must send at the least, on average over the ranks.

        The bounds of Chan et al. (2007, "Collective communication", section 4): an allreduce of n bytes is a
        reduce-scatter and an allgather, each (P-1)/P n; what a rank gathers from the others each of these must send.
        """
        others = n_ranks - 1
        factor = {"allreduce": 2 * others / n_ranks, "alltoall": others / n_ranks, "allgather": others}[self.kind]
        return factor * self.n_bytes

    def buffer_bytes(self, n_ranks: int) -> int:
        """Bytes of what is sent and of what is received; an allreduce has one array for both."""
        return {"allreduce": 1, "alltoall": 2, "allgather": 1 + n_ranks}[self.kind] * self.n_bytes


@dataclass(frozen=True, eq=False)
class Stage:
    """One collective of a compressed sum.

    Attributes
    ----------
    kind : {"allreduce", "alltoall", "allgather"}
        An alltoall sends the r-th of equal parts of ``send`` to rank r; an allgather sends all of it to all.
    operand : str
        What crosses, in a word.
    send, receive : array
        Contiguous, the same in every step. Parts received lie in the order of the ranks. Of an allreduce both are the
        same array, summed in place; the others move bytes.
    begin : callable
        Computes ``send``.
    end : callable
        Takes what has been received.
    """

    kind: CollectiveKind
    operand: str
    send: Array
    receive: Array
    begin: Callable[[], None]
    end: Callable[[], None]

    @property
    def size(self) -> StageSize:
        """What it puts on the wire."""
        return StageSize(self.kind, self.operand, self.send.nbytes)


@dataclass(frozen=True)
class FlatLayout:
    """What lies in a flat gradient.

    Attributes
    ----------
    names : tuple of str
        Of the parameters, in order: ``layer0.W``.
    shapes : tuple of tuple of int
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where each parameter lies."""
        stops = np.cumsum([int(np.prod(shape, dtype=np.int64)) for shape in self.shapes]).tolist()
        return tuple(slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True))

    @property
    def size(self) -> int:
        """Elements."""
        return self.slices[-1].stop if self.names else 0


class CompressedSum(Protocol):
    """One rank's part in the compressed sums of one gradient, step after step."""

    @property
    def stages(self) -> Sequence[Stage]:
        """What is run in every step, in order."""

    @property
    def state(self) -> Mapping[str, Array]:
        """What a step leaves to the next, by name: with these arrays filled as they were it goes on bit by bit."""

    def reset(self) -> None:
        """Forget all steps so far."""

    def held_back(self) -> Array:
        """Copy what this rank has not applied so far, as a flat gradient.

        Over all ranks it adds up to the sum of all gradients so far less all that was applied.
        """

    @property
    def memory_bytes(self) -> int:
        """What it has allocated."""


class Codec(Protocol):
    """A way to sum gradients in fewer bytes."""

    def stage_sizes(self, layout: FlatLayout, itemsize: int, n_ranks: int) -> tuple[StageSize, ...]:
        """Sizes of the stages for a gradient of numbers of ``itemsize`` bytes, without doing anything."""

    def bind(self, gradient: Array, layout: FlatLayout, rank: int, n_ranks: int) -> CompressedSum:
        """Make one rank's part.

        Parameters
        ----------
        gradient : array (n,)
            Flat and contiguous, the same array in every step: before the first stage what this rank adds, after the
            last one the sum.
        layout : FlatLayout
        rank, n_ranks : int
        """


def add_checked(residual: Array, gradient: Array, layout: FlatLayout, rank: int) -> None:
    """Add a gradient to what was held back, in place.

    Raises
    ------
    NumericsError
        The result is not finite; the message names the parameter.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        np.add(residual, gradient, out=residual)
    if np.isfinite(residual).all():
        return
    parts = zip(layout.names, layout.slices, strict=True)
    name = next(name for name, part in parts if not np.isfinite(residual[part]).all())
    raise NumericsError(
        f"the gradient of {name} is not finite on rank {rank}, before it was compressed; a smaller training.lr "
        "usually helps"
    )
