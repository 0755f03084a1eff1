"""What every workload is made of: the batch, the interface a model must offer, and rows that stand alone.

Dimensions: T time steps, B rows (sequences) of the global batch, F features, O target width, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import SpecError
from hpcrnn.spec import RunSpec

Loss = Literal["cross_entropy", "squared_error", "linear"]
Array = npt.NDArray[Any]

_DRAWS_A_BLOCK = 4
"""Philox4x64 makes four 64-bit numbers of one counter value."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows of one step that were asked for, time-major and C-contiguous; to be read, not written to.

    Attributes
    ----------
    inputs : int32 array (T, B) or float array (T, B, F)
        Tokens, or features in the model's dtype.
    targets : int32 array (T, B), or float array (T, B, O) or (T, B, H)
        Tokens; values; or, for the loss ``linear``, the cotangent of the last layer's output.
    weights : float array (T, B), optional
        What each element's loss counts, one on average over the global batch; None is one everywhere.
    lengths : int array (B,), optional
        Steps of each row that hold anything, at least one; what follows is padding, weighs nothing, and need not be
        run. None is T everywhere.
    starts : bool array (T, B), optional
        Where a sequence starts: the state before is not its own, and it starts from zeros. None is nowhere: a row is
        one sequence, which starts from its initial state.
    """

    inputs: Array
    targets: Array
    weights: Array | None = None
    lengths: Array | None = None
    starts: Array | None = None


@dataclass(frozen=True)
class Interface:
    """What a model must look like to take a workload.

    Attributes
    ----------
    inputs : {"tokens", "features"}
    input_size : int
        Vocabulary V, or features F.
    loss : {"cross_entropy", "squared_error", "linear"}
    output_size : int
        Classes, or target width O.  For ``linear`` it is H: no head, ``loss = sum(cotangent * y) / (B * T)``.
    """

    inputs: Literal["tokens", "features"]
    input_size: int
    loss: Loss
    output_size: int


class Workload(Protocol):
    """A source of batches that depend on the seed and the step only."""

    @property
    def name(self) -> str:
        """As the specification has it, e.g. ``file:corpus.txt``."""
        ...

    @property
    def interface(self) -> Interface:
        """What the model must look like."""
        ...

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """Make rows of the global batch of a step, all of them by default.

        ``batch(step).inputs[:, rows]`` and ``batch(step, rows).inputs`` are equal, bit for bit.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return plain values for the record: what this was, and how to tell it was the same elsewhere."""
        ...


def refused(spec: RunSpec, allowed: str) -> SpecError:
    """Make the error that says what another ``problem.workload`` would be accepted."""
    key = "problem.workload"
    return SpecError(key, spec.problem.workload, allowed)


def row_range(rows: slice | None, n_rows: int) -> range:
    """Return the indices of the rows a slice takes of a batch of ``n_rows``."""
    return range(n_rows)[slice(None) if rows is None else rows]


def uniform_rows(seed: int, step: int, rows: range, n_draws: int) -> npt.NDArray[np.float64]:
    """Draw uniform numbers for some rows of a step, but not those of the rows before.

    A counter-based generator can start anywhere: row ``r`` owns the counter values from ``r * n_blocks``
    on, where ``n_blocks`` is how many it needs (Salmon et al., *Parallel random numbers: as easy as
    1, 2, 3*, SC'11).

    Parameters
    ----------
    seed, step : int
        Name the stream.  The step goes in as a spawn key, which never collides with a plain seed.
    rows : range
        Rows of the global batch.
    n_draws : int
        Numbers a row gets.

    Returns
    -------
    float64 array (len(rows), n_draws)
        In [0, 1).
    """
    if not rows:
        return np.empty((0, n_draws))
    first, last = min(rows), max(rows)
    n_blocks = -(-n_draws // _DRAWS_A_BLOCK)
    philox = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(step,)))
    philox.advance(first * n_blocks)
    drawn = np.random.Generator(philox).random((last - first + 1, n_blocks * _DRAWS_A_BLOCK))
    return drawn[np.asarray(rows) - first, :n_draws]


def random_windows(series: Array, seed: int, step: int, rows: range, length: int, *, carry: bool = False) -> Array:
    """Cut windows of a series, one a row, each starting anywhere with equal probability.

    With ``carry`` only those of step 0 do: each later one starts at the last element of the one before, so that a
    row's windows, less their last element, make one sequence.  At the end of the series it goes on from the start.

    Parameters
    ----------
    series : array (N, ...)
        N >= length.
    seed, step : int
    rows : range
        Rows of the global batch.
    length : int
        Elements of a window.
    carry : bool, optional

    Returns
    -------
    array (length, len(rows), ...)
        C-contiguous.
    """
    starts = (uniform_rows(seed, 0 if carry else step, rows, 1)[:, 0] * (len(series) - length + 1)).astype(np.int64)
    if carry:
        starts += step * (length - 1)
    index = (starts[np.newaxis, :] + np.arange(length)[:, np.newaxis]) % len(series)
    return np.take(series, index, axis=0)
