"""Posts and waits of a program, carried out by MPI."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from mpi4py import MPI

from hpcrnn.schedules.program import Post

Array = npt.NDArray[Any]
Communicator = MPI.Comm


class Transport:
    """Nonblocking sums over the ranks of a communicator.

    Parameters
    ----------
    communicator : Communicator
        The ranks of one program; of one rank, sums are the operand itself.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._comm = communicator
        self._pending: dict[Post, tuple[MPI.Request, Array]] = {}

    def post_sum(self, post: Post, buffer: Array) -> None:
        """Begin to sum ``buffer`` over all ranks, in place."""
        request = self._comm.Iallreduce(MPI.IN_PLACE, buffer, op=MPI.SUM)
        self._pending[post] = (request, buffer)

    def progress(self) -> None:
        """Let MPI work on what is under way: without a progress thread it does so only inside its calls."""
        for request, _ in self._pending.values():
            request.Test()

    def wait(self, post: Post) -> Array:
        """Wait for a begun sum and return it."""
        request, buffer = self._pending.pop(post)
        request.Wait()
        return buffer
