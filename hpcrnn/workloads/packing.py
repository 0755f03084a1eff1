"""Whole sequences side by side in rows of one length: best-fit decreasing, over a histogram of the lengths.

Sequences of one length are alike, so that what is packed is counts, not sequences: the work grows with the number of
different lengths, not with that of sequences (histogram packing: Krell, Kosec, Perez & Fitzgibbon, *Efficient sequence
packing without cross-contamination*, arXiv 2107.02027, 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Units:
    """What fills a row each: one sequence, or several side by side.

    Attributes
    ----------
    offsets : int64 array (n_units + 1,)
        Unit ``u`` holds ``members[offsets[u] : offsets[u + 1]]``.
    members : int64 array (n_sequences,)
        Every sequence once.
    tokens : int64 array (n_units,)
        Steps that are filled.
    """

    offsets: IntArray
    members: IntArray
    tokens: IntArray

    def __len__(self) -> int:
        return len(self.tokens)

    def of(self, unit: int) -> IntArray:
        """Return the sequences of a unit, as they follow one another."""
        return self.members[self.offsets[unit] : self.offsets[unit + 1]]


def one_by_one(which: npt.NDArray[np.integer[Any]], lengths: IntArray) -> Units:
    """Let every sequence be a unit.

    Parameters
    ----------
    which : int array (n,)
        Indices of sequences.
    lengths : int64 array
        Of all sequences.
    """
    members = np.asarray(which, dtype=np.int64)
    return Units(np.arange(len(members) + 1, dtype=np.int64), members, lengths[members])


def pack(which: npt.NDArray[np.integer[Any]], lengths: IntArray, room: int) -> Units:
    """Pack sequences into rows, the longest first, each where it leaves the least room.

    Of sequences of one length the first of ``which`` is taken first.

    Parameters
    ----------
    which : int array (n,)
        Indices of sequences.
    lengths : int64 array
        Of all sequences, each 1 to ``room``.
    room : int
        Steps of a row.
    """
    members = np.asarray(which, dtype=np.int64)
    ordered = members[np.argsort(lengths[members], kind="stable")]
    counts = np.bincount(lengths[members], minlength=room + 1)
    first = np.cumsum(counts) - counts  # of each length, in ``ordered``
    rows: list[IntArray] = []
    for n_rows, pattern in pack_counts(counts.tolist(), room):
        columns = []
        for length in pattern:
            columns.append(ordered[first[length] : first[length] + n_rows])
            first[length] += n_rows
        rows.append(np.stack(columns, axis=1))
    sizes = np.concatenate([np.full(len(row), row.shape[1], dtype=np.int64) for row in rows] or [np.empty(0, np.int64)])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    flat = np.concatenate([row.ravel() for row in rows] or [np.empty(0, np.int64)])
    tokens = np.add.reduceat(lengths[flat], offsets[:-1]) if len(sizes) else np.empty(0, np.int64)
    return Units(offsets, flat, tokens)


def pack_counts(counts: list[int], room: int) -> list[tuple[int, tuple[int, ...]]]:
    """Pack so many sequences of each length into rows.

    Parameters
    ----------
    counts : list of int
        Sequences of length 0, 1, ..., ``room``.
    room : int

    Returns
    -------
    list of (int, tuple of int)
        How many rows hold sequences of these lengths, in this order.
    """
    # Rows that are not full yet, by the room they have left: alike ones together.
    open_rows: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in range(room + 1)]
    for length in range(room, 0, -1):
        left, space = counts[length], length
        while left:
            if space < room and not open_rows[space]:
                space += 1
                continue
            n_rows, pattern = open_rows[space].pop() if open_rows[space] else (left, ())  # else new rows
            # No row has less room that would do, so the first to be taken is filled until it has.
            each = space // length
            n_full = min(n_rows, left // each)
            left -= n_full * each
            last = left if n_full < n_rows and left < each else 0
            left -= last
            for n_taken, n_more in ((n_full, each), (int(last > 0), last)):
                if n_taken:
                    open_rows[space - n_more * length].append((n_taken, pattern + (length,) * n_more))
                    n_rows -= n_taken
            if n_rows and pattern:
                open_rows[space].append((n_rows, pattern))
    return [rows for alike in open_rows for rows in alike]
