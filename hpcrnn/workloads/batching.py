"""Which units fill the rows of a step: drawn at random, sorted by length, and from what each row owns.

Every step can be had without those before it, on every rank, whatever the number of ranks:

``even``        all units in one random order, epoch after epoch; a step takes the next B.
``skewed:X``    row b owns the b-th of B equal shards of the sequences and visits it in random order, epoch after
                epoch; a rank owns the shards of its rows.  Sequences are dealt into shards by length: in their order
                for X = 1, at random for X = 0, in between by a mixture of the two.

No sequence leaves its row with ``skewed``: data that lie with a rank stay there.  With ``even`` any row may take any.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.workloads.packing import IntArray

POOL = 16
"""Steps whose units are sorted together: of neighbours in length, yet seldom the same ones twice."""

_SHARDS, _ORDER, _POOL = range(3)
"""What random numbers are drawn for: each has a stream of its own."""


def shards_by_length(lengths: IntArray, n_shards: int, degree: float, seed: int) -> list[IntArray]:
    """Deal sequences into shards of equal number whose lengths differ.

    Parameters
    ----------
    lengths : int64 array (n,)
        At least ``n_shards`` of them.
    n_shards : int
    degree : float
        1: the shortest in the first shard, the longest in the last; 0: at random.
    seed : int

    Returns
    -------
    list of int64 array
        Indices of each shard's sequences.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SHARDS,)))
    rank = np.empty(len(lengths))
    rank[np.argsort(lengths, kind="stable")] = np.arange(len(lengths)) / len(lengths)
    key = degree * rank + (1 - degree) * rng.random(len(lengths))
    return np.array_split(np.argsort(key, kind="stable"), n_shards)


class Drawing:
    """Units in random order, each once an epoch.

    Parameters
    ----------
    shards : sequence of int64 array
        Indices of units: one shard that all rows share, or one a row.
    n_rows : int
    seed : int
    """

    def __init__(self, shards: Sequence[IntArray], n_rows: int, seed: int) -> None:
        self.shared = len(shards) == 1
        self.n_rows, self._shards, self._seed = n_rows, shards, seed
        # A step of a shared shard may lie in two epochs.
        self._order = lru_cache(maxsize=2 * len(shards))(self._make_order)

    def units(self, step: int) -> IntArray:
        """Return the unit of each row (n_rows,)."""
        if self.shared:
            first = step * self.n_rows
            return np.array([self._at(0, first + row) for row in range(self.n_rows)], dtype=np.int64)
        return np.array([self._at(row, step) for row in range(self.n_rows)], dtype=np.int64)

    def _at(self, shard: int, position: int) -> int:
        epoch, place = divmod(position, len(self._shards[shard]))
        return int(self._order(shard, epoch)[place])

    def _make_order(self, shard: int, epoch: int) -> IntArray:
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_ORDER, shard, epoch)))
        return rng.permutation(self._shards[shard])


class SortedDrawing:
    """The units of several steps, sorted by length, so that those of a step are about equally long.

    Steps come in random order.  Units that all rows share are dealt so that any neighbouring rows get short and long
    ones alike, whichever rows a rank has; those that rows own stay in their rows.

    Parameters
    ----------
    drawing : Drawing
    tokens : int64 array
        Steps that each unit fills.
    seed : int
    """

    def __init__(self, drawing: Drawing, tokens: IntArray, seed: int) -> None:
        self._drawing, self._tokens, self._seed = drawing, tokens, seed
        self._deal = scattered(drawing.n_rows)
        self._pool = lru_cache(maxsize=2)(self._make_pool)

    def units(self, step: int) -> IntArray:
        """Return the unit of each row (n_rows,)."""
        pool, place = divmod(step, POOL)
        return np.asarray(self._pool(pool)[place])

    def _make_pool(self, pool: int) -> IntArray:
        drawn = np.stack([self._drawing.units(pool * POOL + place) for place in range(POOL)])
        if self._drawing.shared:
            flat = drawn.ravel()
            steps = flat[np.argsort(self._tokens[flat], kind="stable")].reshape(drawn.shape)[:, self._deal]
        else:
            steps = np.take_along_axis(drawn, np.argsort(self._tokens[drawn], axis=0, kind="stable"), axis=0)
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_POOL, pool)))
        return np.asarray(steps[rng.permutation(POOL)])


def scattered(n: int) -> npt.NDArray[np.integer[Any]]:
    """Order 0 to n - 1 so that neighbours are far apart and every run of them is spread over the whole.

    By their digits in base two read backwards (van der Corput, 1935).
    """
    n_bits = max(1, (n - 1).bit_length())
    return np.array([k for k in (int(f"{k:0{n_bits}b}"[::-1], 2) for k in range(2**n_bits)) if k < n])
