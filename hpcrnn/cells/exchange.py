"""What the shards of a layer tell each other: the one seam between a cell and the ranks that split its hidden units.

K shards own a contiguous range of hidden units each, and with it the columns of every gate of those units.
Pointwise work is local then; a product with ``R`` needs all units, one with its transpose makes a part of all::

    forward    h_k (B, Hk)  --gather-->          h (B, H)       then  h @ R_k
    backward   da_k @ R_k^T, a part of dh (B, H)  --reduce_scatter-->  dh_k (B, Hk)

A cell asks an :class:`Exchange` for both and never sees what carries the message.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]


class Exchange(Protocol):
    """The shards of a group; every call is made by all of them, in the same order.

    ``M`` below is any number of rows: the batch in a time step, ``T*B`` for a whole chunk. The N columns are cut as
    the hidden units are: contiguous ranges in the order of the shards, sizes that differ by at most one, larger ones
    first. All arrays are contiguous. A sum is bitwise the same in every run and on every shard.
    """

    @property
    def rank(self) -> int:
        """Index of this shard."""

    @property
    def size(self) -> int:
        """Number of shards."""

    @property
    def sent_bytes(self) -> int:
        """Bytes this shard has sent so far."""

    def gather(self, own: Array, full: Array) -> None:
        """Bring the columns of all shards together.

        Parameters
        ----------
        own : array (M, Nk)
        full : array (M, N)
            Overwritten. With one shard it must be ``own``.
        """

    def reduce_scatter(self, partial: Array, own: Array) -> None:
        """Sum over the shards, each of which is left with its own columns of the sum.

        Parameters
        ----------
        partial : array (M, N)
        own : array (M, Nk)
            Overwritten. With one shard it must be ``partial``.
        """

    def sum(self, array: Array) -> None:
        """Sum an array of any shape over the shards, in place."""


class Alone:
    """The only shard: its part is the whole, in the same memory, and there is nothing to move."""

    rank = 0
    size = 1
    sent_bytes = 0

    def gather(self, own: Array, full: Array) -> None:
        pass

    def reduce_scatter(self, partial: Array, own: Array) -> None:
        pass

    def sum(self, array: Array) -> None:
        pass


ALONE = Alone()
