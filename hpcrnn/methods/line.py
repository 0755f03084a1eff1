"""The ranks that hold consecutive windows of time, and what they tell each other: the seam between a method and MPI."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Line(Protocol):
    """Ranks in the order of time; every call is made by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """Index of this rank."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    @property
    def sent_bytes(self) -> int:
        """Bytes this rank has sent so far."""

    def pass_right(self, own: Array) -> Array:
        """Give an array to the next rank and return that of the one before, equally shaped; the first has its own."""

    def pass_left(self, own: Array) -> Array:
        """Give an array to the rank before and return that of the next, equally shaped; the last has its own."""

    def gather(self, own: Array) -> list[Array]:
        """Return the arrays, all of one shape, of all ranks in order."""

    def largest(self, own: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the elementwise maximum over all ranks; a NaN is the largest of all."""


class Alone:
    """The only rank."""

    rank = 0
    size = 1
    sent_bytes = 0

    def pass_right(self, own: Array) -> Array:
        return own

    def pass_left(self, own: Array) -> Array:
        return own

    def gather(self, own: Array) -> list[Array]:
        return [own]

    def largest(self, own: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return own


ALONE = Alone()
