"""Sequences of unequal length: the lines or files of a text, padded, sorted or packed into the rows of a batch.

Every byte of the text is the target of one time step, and the byte before it is that step's input.  A sequence longer
than T is cut, and goes on as a further sequence: nothing is dropped.  Every sequence starts from zeros.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import SpecError
from hpcrnn.spec import RunSpec
from hpcrnn.workloads.base import Array, Batch, Interface, row_range
from hpcrnn.workloads.batching import Drawing, SortedDrawing, shards_by_length
from hpcrnn.workloads.packing import IntArray, Units, one_by_one, pack

_LINE_BREAK = ord("\n")


@dataclass(frozen=True, eq=False)
class Sequences:
    """Parts of a text that follow one another and leave nothing out.

    Attributes
    ----------
    starts, lengths : int64 array (n,)
        First byte, and bytes.
    """

    starts: IntArray
    lengths: IntArray

    def __len__(self) -> int:
        return len(self.starts)


class Draws(Protocol):
    """What says which unit fills each row of a step."""

    def units(self, step: int) -> IntArray:
        """Return the unit of each row (n_rows,)."""


@dataclass(frozen=True, eq=False)
class SequenceWorkload:
    """Rows that each hold a sequence or several, the rest of a row padding.

    Attributes
    ----------
    name : str
    corpus : uint8 array (N,)
    n_files : int
    sequences : Sequences
    units : Units
        What fills a row.
    draws : Draws
    n_rows, seq : int
        B and T.
    dtype : {"float32", "float64"}
        Of the weights.
    interface : Interface
    """

    name: str
    corpus: npt.NDArray[np.uint8]
    n_files: int
    sequences: Sequences
    units: Units
    draws: Draws
    n_rows: int
    seq: int
    dtype: str
    interface: Interface

    def tokens(self, step: int) -> IntArray:
        """Return the steps of each row that hold anything (B,); what follows them is padding."""
        return self.units.tokens[self.draws.units(step)]

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """Set sequences side by side: inputs and targets int32 (T, B), weights whose sum over the batch is T B.

        So the loss is the mean over the bytes that are there, and padding does not dilute it.
        """
        taken = row_range(rows, self.n_rows)
        drawn = self.draws.units(step)
        units = [self.units.of(drawn[row]) for row in taken]
        which = np.concatenate([*units, np.empty(0, np.int64)])
        column = np.repeat(np.arange(len(taken)), [len(unit) for unit in units])
        length = self.sequences.lengths[which]
        before = np.cumsum(length) - length  # of the sequence, in all those taken
        first_of_row = np.concatenate([np.ones(1, bool), np.diff(column) > 0])[: len(column)]
        offset = before - before[first_of_row][column]  # in its row
        within = np.arange(int(length.sum())) - np.repeat(before, length)
        place = np.repeat(offset, length) + within, np.repeat(column, length)
        at = np.repeat(self.sequences.starts[which], length) + within
        shape = (self.seq, len(taken))
        inputs, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        inputs[place] = self.corpus[at - 1]  # of the first byte of all, the last
        targets[place] = self.corpus[at]
        weights, starts = np.zeros(shape, self.dtype), np.zeros(shape, bool)
        weights[place] = self.seq * self.n_rows / self.units.tokens[drawn].sum()
        starts[offset, column] = True
        return Batch(inputs, targets, weights, np.bincount(column, length, len(taken)).astype(np.int64), starts)

    def describe(self) -> dict[str, Any]:
        """Return size and SHA-256 of the corpus, the Python it came with, and how many sequences it was cut into."""
        return {
            "name": self.name,
            "n_files": self.n_files,
            "n_bytes": int(self.corpus.size),
            "sha256": hashlib.sha256(self.corpus.data).hexdigest(),
            "python": platform.python_version(),
            "n_sequences": len(self.sequences),
            "n_units": len(self.units),
        }

    def histogram(self) -> IntArray:
        """Return how many sequences there are of each length 1 to T (T,)."""
        return np.bincount(self.sequences.lengths, minlength=self.seq + 1)[1:].astype(np.int64)


def cut(corpus: Array, file_ends: IntArray, by: Literal["lines", "files"], longest: int) -> Sequences:
    """Cut a text into lines, each with its line break, or files; longer ones than allowed into several.

    Parameters
    ----------
    corpus : uint8 array (N,)
    file_ends : int64 array
        Where each file ends, in the corpus; ends beyond the corpus are taken for its end.
    by : {"lines", "files"}
    longest : int
        Steps of a sequence at the most.
    """
    ends = np.minimum(file_ends, corpus.size)
    if by == "lines":
        ends = np.union1d(ends, np.flatnonzero(corpus == _LINE_BREAK) + 1)
    ends = np.unique(np.append(ends, corpus.size))
    ends = ends[ends > 0]
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    n_parts = -(-(ends - starts) // longest)
    part = np.arange(int(n_parts.sum())) - np.repeat(np.cumsum(n_parts) - n_parts, n_parts)
    first = np.repeat(starts, n_parts) + part * longest
    return Sequences(first, np.minimum(longest, np.repeat(ends, n_parts) - first))


def check_sequences(spec: RunSpec) -> None:
    """Refuse sequences of what is no text, and ways to batch them where there are none.

    Raises
    ------
    SpecError
    """
    problem = spec.problem
    if problem.sequences != "windows":
        if problem.workload.partition(":")[0] not in ("stdlib", "file"):
            raise SpecError("problem.sequences", problem.sequences, f"windows, with workload {problem.workload}")
        if spec.training.carry:
            allowed = f"false, with sequences = {problem.sequences}: each starts from zeros"
            raise SpecError("training.carry", value=True, allowed=allowed)
        return
    for key, value, plain in (("batching", problem.batching, "naive"), ("spread", problem.spread, "even")):
        if value != plain:
            raise SpecError(f"problem.{key}", value, f"{plain}, unless sequences are lines or files")


def open_sequences(
    spec: RunSpec, corpus: npt.NDArray[np.uint8], file_ends: IntArray, n_files: int, interface: Interface
) -> SequenceWorkload:
    """Cut a text as ``problem.sequences`` says, and batch it as ``problem.batching`` and ``problem.spread`` do.

    Raises
    ------
    SpecError
        The text has fewer sequences than a skewed batch has rows.
    """
    problem = spec.problem
    if problem.sequences == "windows":
        raise TypeError(problem.sequences)
    sequences = cut(corpus, file_ends, problem.sequences, problem.seq)
    degree = problem.skew
    if degree is None:
        shards = [np.arange(len(sequences))]
    elif len(sequences) < problem.batch:
        allowed = f"even where there are fewer sequences ({len(sequences)}) than rows of the batch ({problem.batch})"
        raise SpecError("problem.spread", problem.spread, allowed)
    else:
        shards = shards_by_length(sequences.lengths, problem.batch, degree, problem.seed)
    made = [
        pack(shard, sequences.lengths, problem.seq)
        if problem.batching == "packed"
        else one_by_one(shard, sequences.lengths)
        for shard in shards
    ]
    ends = np.cumsum([len(units) for units in made])
    drawing = Drawing(np.split(np.arange(ends[-1]), ends[:-1]), problem.batch, problem.seed)
    units = _joined(made)
    draws = SortedDrawing(drawing, units.tokens, problem.seed) if problem.batching == "sorted" else drawing
    sizes = problem.batch, problem.seq
    return SequenceWorkload(
        problem.workload, corpus, n_files, sequences, units, draws, *sizes, spec.model.dtype, interface
    )


def _joined(made: list[Units]) -> Units:
    """Put the units of all shards one after another."""
    sizes = np.concatenate([np.diff(units.offsets) for units in made])
    return Units(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
        np.concatenate([units.members for units in made]),
        np.concatenate([units.tokens for units in made]),
    )
