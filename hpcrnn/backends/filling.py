"""How much of an engine's arrays a batch of sequences of unequal length fills: what is only padding is not run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcrnn.backends.base import Array, Extent
from hpcrnn.workloads import Batch


def steps_run(lengths: Array, microbatches: Sequence[slice]) -> list[int]:
    """Return the time steps each micro-batch runs: those of the longest of its rows.

    Parameters
    ----------
    lengths : int array (B,)
        Steps of each row that hold anything.
    microbatches : sequence of slice
    """
    return [int(lengths[rows].max(initial=0)) for rows in microbatches]


def slots_run(lengths: Array, microbatches: Sequence[slice]) -> int:
    """Return rows times the steps they are run for, over all micro-batches: what is computed, padding included."""
    runs = zip(steps_run(lengths, microbatches), microbatches, strict=True)
    return sum(steps * (rows.stop - rows.start) for steps, rows in runs)


class Filling:
    """What of its arrays an engine runs in the step at hand.

    Parameters
    ----------
    extent : Extent
        Without lengths, all of it.
    """

    def __init__(self, extent: Extent) -> None:
        self._extent = extent
        self._steps: list[int] | None = None
        self._lengths: list[Array] = []
        self._starts: list[Array] | None = None

    def load(self, batch: Batch) -> None:
        """Take in what the next batch fills."""
        parts = self._extent.microbatches
        self._steps = None if batch.lengths is None else steps_run(batch.lengths, parts)
        self._lengths = [] if batch.lengths is None else [batch.lengths[rows] for rows in parts]
        self._starts = None if batch.starts is None else [batch.starts[:, rows] for rows in parts]

    @property
    def is_ragged(self) -> bool:
        """Whether rows end where their own sequences do."""
        return self._steps is not None

    def steps(self, m: int, c: int) -> int:
        """Time steps of a chunk that are run."""
        n_steps, first = self._extent.shape(m, c)[0], int(self._extent.local(c).start or 0)
        return n_steps if self._steps is None else min(max(self._steps[m] - first, 0), n_steps)

    def view(self, array: Array, m: int, c: int) -> Array:
        """The steps of an array (T, ...) of one chunk that are run."""
        return array if self._steps is None else array[: self.steps(m, c)]

    def starts(self, m: int, c: int) -> Array | None:
        """Where sequences start in the steps of a chunk that are run, bool (T, B); None: nowhere."""
        return None if self._starts is None else self.view(self._starts[m][self._extent.local(c)], m, c)

    def held(self, m: int, c: int) -> Array | None:
        """Which elements of the steps of a chunk that are run hold something, bool (T, B); None: all."""
        if self._steps is None:
            return None
        first = self._extent.local(c).start
        return np.arange(first, first + self.steps(m, c))[:, np.newaxis] < self._lengths[m]

    def ends(self, m: int, c: int) -> tuple[Array, Array]:
        """Return the rows that end in a chunk, and after how many of its steps."""
        first = self._extent.local(c).start
        after = self._lengths[m] - first
        rows = np.flatnonzero((after > 0) & (after <= self._extent.shape(m, c)[0]))
        return rows, after[rows]
