"""What a solver sees of a layer: a pass over all segments, and re-runs of some; forward, and its adjoint backward.

Both are seen alike: every row *receives* a halo it runs from, and *hands on* another. Forward these are the states at
the two ends of its segment, backward their gradients, right to left. A re-run changes what a row received; it follows
the difference to what is there until that is below the tolerance, and leaves the rest as it is.

Halos are on the host, whatever the layer is on: they are what a solver compares, corrects and sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hpcrnn.cells.base import Array, Cell
from hpcrnn.methods.folding import Folding

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Rerun:
    """What a re-run did.

    Attributes
    ----------
    steps : int
        One after another.
    row_steps : int
        Steps times rows.
    met : int array (k,)
        Steps until each row met, or ``UNMET``.
    """

    steps: int
    row_steps: int
    met: npt.NDArray[np.int64]


@dataclass(frozen=True)
class GateProducts:
    """What gates leave of a state over each segment.

    Attributes
    ----------
    kept : array (R, H)
        Product of the retention of the cell's ``memory``.
    exposures : dict of str to array (R, H)
        Derivative of each other state, at the segment's end, by the memory.
    """

    kept: Array
    exposures: dict[str, Array]


class Pass(ABC):
    """One layer in one direction.

    Parameters
    ----------
    cell : Cell
    folding : Folding
    hidden : int
        H.
    dtype : dtype
        Of halos.

    Attributes
    ----------
    received, handed : array (n, R, H)
        The halo every row ran from, and what it hands on: the states in the order of the cell's names.
    scale : array (n, R) or (n, 1)
        What differences of halos are relative to.
    """

    direction: ClassVar[str]
    leftward: ClassVar[bool]
    scale: Array

    def __init__(self, cell: Cell, folding: Folding, hidden: int, dtype: npt.DTypeLike) -> None:
        self.cell, self.folding = cell, folding
        n = len(cell.state_names)
        self.received: Array = np.zeros((n, folding.rows, hidden), dtype)
        self.handed: Array = np.zeros_like(self.received)
        self.scale = np.ones((n, 1))

    @abstractmethod
    def run(self, steps: slice | None = None) -> None:
        """Run all rows from ``received``, over all steps or, to guess halos, some."""

    @abstractmethod
    def rerun(self, rows: Rows, halos: Array) -> Rerun:
        """Run rows again, from other halos (n, k, H), until they meet."""

    @abstractmethod
    def gate_products(self) -> GateProducts:
        """Multiply what each step keeps, over each segment, along the trajectory of the last run."""

    @abstractmethod
    def jacobians(self) -> Array:
        """Differentiate every segment's end by its start: (V, B, n*H, n*H)."""

    def lonely(self) -> npt.NDArray[np.bool_]:
        """Which rows have no loss terms of their own: (R,). To be asked after the first pass, from zero halos."""
        if not self.leftward:
            return np.zeros(self.folding.rows, dtype=bool)
        return np.asarray(np.abs(self.handed).max(axis=(0, 2)) == 0)

    def size(self, halos: Array) -> npt.NDArray[np.float64]:
        """Largest magnitude of each row of (n, R, H), relative to the scale: (R,)."""
        return np.asarray((np.abs(halos).max(axis=2) / self.scale).max(axis=0), dtype=np.float64)

    def by_name(self, stack: Array) -> dict[str, Array]:
        """Views of a stack (n, ...) by the states' names."""
        return dict(zip(self.cell.state_names, stack, strict=True))


def relative_to_size(halos: Array, unbounded: tuple[str, ...], names: tuple[str, ...]) -> Array:
    """Scale (n, R) of forward halos (n, R, H): one, or the size of a row of a state that has no bound."""
    scale = np.ones(halos.shape[:2])
    for index, name in enumerate(names):
        if name in unbounded:
            np.maximum(1.0, np.abs(halos[index]).max(axis=1), out=scale[index])
    return scale


def gradient_scale(largest: npt.NDArray[np.float64]) -> Array:
    """Scale (n, 1) of backward halos from each state's largest gradient; one nowhere seen is held to the others'."""
    return np.where(largest > 0, largest, largest.max() or 1.0)[:, np.newaxis]
