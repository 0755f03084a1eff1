"""Time folding: the segments of a window of time become rows of the batch.

A window of T steps of B rows, cut into V segments, is laid out as ``max(length)`` steps of V*B rows: row ``v * B + b``
is sample b in segment v. Lengths differ by at most one, longer segments first, so only the last step lacks rows, and
always the last ones: they are filled with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.schedules.placement import split

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Folding:
    """A window of time, folded.

    Attributes
    ----------
    steps, samples : int
        T and B of the window.
    segments : int
        V; at most ``steps``.
    """

    steps: int
    samples: int
    segments: int

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """Time steps of every segment."""
        return split(self.steps, self.segments)

    @property
    def longest(self) -> int:
        """Steps of the longest segment: of the folded arrays."""
        return -(-self.steps // self.segments)

    @property
    def common(self) -> int:
        """Steps that all segments have."""
        return self.steps // self.segments

    @property
    def rows(self) -> int:
        """Rows of the folded arrays."""
        return self.segments * self.samples

    @property
    def long_rows(self) -> int:
        """The first so many rows take part in the last step."""
        return (self.steps - self.common * self.segments) * self.samples or self.rows

    @property
    def is_even(self) -> bool:
        """Whether all segments have the same length."""
        return self.common == self.longest

    @cached_property
    def lengths(self) -> npt.NDArray[np.intp]:
        """Steps of every row, shape (rows,)."""
        return np.repeat([part.stop - part.start for part in self.parts], self.samples)

    def fold(self, a: Array) -> Array:
        """(T, B, ...) copied into (longest, V*B, ...)."""
        if self.segments == 1:
            return a
        folded = np.zeros((self.longest, self.rows, *a.shape[2:]), a.dtype)
        for v, part in enumerate(self.parts):
            folded[: part.stop - part.start, v * self.samples : (v + 1) * self.samples] = a[part]
        return folded

    def unfold(self, folded: Array) -> Array:
        """(longest, V*B, ...) copied into (T, B, ...)."""
        if self.segments == 1:
            return folded
        a = np.empty((self.steps, self.samples, *folded.shape[2:]), folded.dtype)
        for v, part in enumerate(self.parts):
            a[part] = folded[: part.stop - part.start, v * self.samples : (v + 1) * self.samples]
        return a
