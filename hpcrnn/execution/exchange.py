"""The exchange between the shards of a layer, carried out by MPI: see :mod:`hpcrnn.cells.exchange`.

Every rank sends each other rank its part once, in ``size - 1`` rounds of ``MPI_Sendrecv``: in round i to the rank i
places after it, from the rank i places before it.  That is the least volume there is, every message is one part long,
and parts of different sizes need no padding.  Sums are not left to the MPI library: the parts of a sum arrive
unadded and are added in the order of the ranks, so the result does not depend on which algorithm the library takes.

Measured on two ranks of one node (MPICH 5, shared memory), for a (64, 512) float32 hidden state, copies between the
strided columns and the contiguous messages included, one call after another:

==========================================  ======  ==============
                                            gather  reduce_scatter
==========================================  ======  ==============
``Sendrecv``                                 32 µs           50 µs
``Irecv``, ``Isend``, ``Waitall``            38 µs           73 µs
persistent requests, from a staged copy      49 µs           54 µs
``Allgatherv``, ``Reduce_scatter``           55 µs           68 µs
``Sendrecv`` with a subarray datatype        33 µs           83 µs
==========================================  ======  ==============
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcrnn.cells.exchange import ALONE, Exchange
from hpcrnn.model.sharding import Shard

Array = npt.NDArray[Any]

# The longest message. Whole chunks go in blocks of rows, so that a block is packed, sent and added while it is in
# the cache, and the staging buffers stay small: (4096, 512) float32 is summed in 3.7 ms in blocks of half a MiB, in
# 4.8 in one piece.
_MESSAGE_BYTES = 1 << 19


def make_exchange(communicator: MPI.Comm) -> Exchange:
    """Return the exchange between the ranks of a communicator, each of which is one shard.

    Parameters
    ----------
    communicator : MPI.Comm
        Carries nothing else.
    """
    return ALONE if communicator.Get_size() == 1 else MpiExchange(communicator)


class MpiExchange:
    """Sends and receives between two or more ranks; allocates when it first meets a shape, then no more.

    Parameters
    ----------
    communicator : MPI.Comm
        Carries nothing else.
    """

    def __init__(self, communicator: MPI.Comm) -> None:
        self._comm = communicator
        self.sent_bytes = 0
        self.rank = int(communicator.Get_rank())
        self.size = int(communicator.Get_size())
        self._rounds = [((self.rank + i) % self.size, (self.rank - i) % self.size) for i in range(1, self.size)]
        self._plans: dict[tuple[tuple[int, ...], np.dtype[Any]], _Plan] = {}

    def gather(self, own: Array, full: Array) -> None:
        plan = self._plan(full)
        for rows in plan.blocks:
            part, whole = own[rows], full[rows]
            np.copyto(whole[:, plan.columns[self.rank]], part)
            for to, source in self._rounds:
                arrived = plan.parts[source][: len(part)]
                self._comm.Sendrecv(part, to, 0, arrived, source, 0)
                self.sent_bytes += part.nbytes
                np.copyto(whole[:, plan.columns[source]], arrived)

    def reduce_scatter(self, partial: Array, own: Array) -> None:
        plan = self._plan(partial)
        for rows in plan.blocks:
            whole, out = partial[rows], own[rows]
            terms = [whole[:, plan.columns[self.rank]]] * self.size
            for to, source in self._rounds:
                packed, terms[source] = plan.parts[to][: len(out)], plan.terms[source][: len(out)]
                np.copyto(packed, whole[:, plan.columns[to]])
                self._comm.Sendrecv(packed, to, 0, terms[source], source, 0)
                self.sent_bytes += packed.nbytes
            _add_in_order(terms, plan.terms[self.rank][: len(out)], out)

    def sum(self, array: Array) -> None:
        # A reduce-scatter and a gather: each element is added up by one rank, so all ranks hold the same bits.
        flat = array.reshape(1, -1)
        length = self.size * _MESSAGE_BYTES // array.itemsize
        for start in range(0, flat.shape[1], length):
            piece = flat[:, start : start + length]
            own = piece[:, self._plan(piece).columns[self.rank]]
            self.reduce_scatter(piece, own)
            self.gather(own, piece)

    def _plan(self, full: Array) -> _Plan:
        """Return the staging buffers for arrays of this shape."""
        key = (full.shape, full.dtype)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _Plan(full, self.rank, self.size)
        return plan


class _Plan:
    """Blocks of rows of an (M, N) array and the staging of one block.

    Attributes
    ----------
    columns : list of slice
        Of each rank.
    blocks : list of slice
        Rows that go in one message.
    parts : list of array (rows, Nj)
        Room for the columns of each rank j.
    terms : list of array (rows, Nk)
        Room for what each rank adds to this rank's columns; its own entry is scratch.
    """

    def __init__(self, full: Array, rank: int, size: int) -> None:
        M, N = full.shape
        shards = [Shard(index, size) for index in range(size)]
        row_bytes = max(1, shards[0].count(N) * full.itemsize)
        rows = min(M, max(1, _MESSAGE_BYTES // row_bytes))
        self.columns = [shard.units(N) for shard in shards]
        self.blocks = [slice(start, min(start + rows, M)) for start in range(0, M, rows)] if M else []
        self.parts = [np.empty((rows, shard.count(N)), full.dtype) for shard in shards]
        self.terms = [np.empty((rows, shards[rank].count(N)), full.dtype) for _ in shards]


def _add_in_order(terms: Sequence[Array], scratch: Array, out: Array) -> None:
    """Add two or more terms from left to right; ``out`` may be one of them."""
    total = terms[0]
    for term in terms[1:-1]:
        np.add(total, term, out=scratch)
        total = scratch
    np.add(total, terms[-1], out=out)
