"""The ranks that hold consecutive windows of time, by MPI: see :mod:`hpcrnn.methods.line`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcrnn.methods.line import ALONE, Line

Array = npt.NDArray[Any]


def make_line(communicator: MPI.Comm) -> Line:
    """Return the line of a communicator's ranks, in its order.

    Parameters
    ----------
    communicator : MPI.Comm
        Carries nothing else.
    """
    return ALONE if communicator.Get_size() == 1 else MpiLine(communicator)


class MpiLine:
    """Messages to the neighbours, and collectives of a few numbers.

    Parameters
    ----------
    communicator : MPI.Comm
        Carries nothing else.
    """

    def __init__(self, communicator: MPI.Comm) -> None:
        self._comm = communicator
        self.sent_bytes = 0
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())

    def pass_right(self, own: Array) -> Array:
        return self._pass(own, self.rank + 1, self.rank - 1)

    def pass_left(self, own: Array) -> Array:
        return self._pass(own, self.rank - 1, self.rank + 1)

    def _pass(self, own: Array, to: int, source: int) -> Array:
        sent, arrived = np.ascontiguousarray(own), np.array(own)
        destination = to if 0 <= to < self.size else MPI.PROC_NULL
        origin = source if 0 <= source < self.size else MPI.PROC_NULL
        # As bytes: MPI has no type for half precision everywhere.
        self._comm.Sendrecv(sent.view(np.uint8), destination, 0, arrived.view(np.uint8), origin, 0)
        self.sent_bytes += sent.nbytes if destination != MPI.PROC_NULL else 0
        return arrived

    def gather(self, own: Array) -> list[Array]:
        sent = np.ascontiguousarray(own)
        arrived = np.empty((self.size, *own.shape), own.dtype)
        self._comm.Allgather(sent.view(np.uint8), arrived.view(np.uint8))
        self.sent_bytes += sent.nbytes
        return list(arrived)

    def largest(self, own: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # MPI leaves the maximum of a NaN open: it goes as a flag of its own.
        sent = np.concatenate([np.nan_to_num(own, nan=0.0, posinf=np.inf, neginf=-np.inf), np.isnan(own)])
        found = np.empty_like(sent)
        self._comm.Allreduce(sent, found, op=MPI.MAX)
        self.sent_bytes += sent.nbytes
        return np.where(found[len(own) :] > 0, np.nan, found[: len(own)])
