"""A parameter server that takes gradients as they come, and lets no worker run away from the slowest.

Stale synchronous parallel (Ho et al., NIPS 2013): every worker counts its steps, and gets parameters for its next one
only while it is at most ``staleness`` steps ahead of the slowest.  Until then its answer waits; its gradient has been
applied.  The *staleness* of a gradient is how many other updates the server made between handing out the parameters it
was computed with and applying it.  With W workers it is at most (W - 1) (2 staleness + 1): when a worker at step c gets
its answer no other is before c - staleness, and none comes beyond c + staleness + 1 before that worker's next gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcrnn.schedules.program import Serve

Array = npt.NDArray[Any]

_TAG = 0
"""Workers send one vector, and receive one: their messages have the first tag there is."""


class LateServer:
    """The server's side of asynchronous training.

    Between two legs no message is under way: every worker has made the same number of steps and has its parameters.

    Parameters
    ----------
    serve : Serve
    communicator : MPI.Comm
        That of the workers' messages.
    gradient, parameters : array (n,)
        The server's own.
    update : callable
        Applies the gradient to the parameters.

    Attributes
    ----------
    staleness : int64 array (n_workers - 1) (2 bound + 1) + 1
        How many gradients of each staleness were applied.
    """

    def __init__(
        self, serve: Serve, communicator: MPI.Comm, gradient: Array, parameters: Array, update: Callable[[], None]
    ) -> None:
        self._comm, self._workers, self._bound = communicator, serve.peers, serve.staleness
        self._gradient, self._parameters, self._update = gradient, parameters, update
        # What a worker is sent must not change while it is under way, and updates go on.
        self._answers = {worker: np.empty_like(parameters) for worker in serve.peers}
        self._under_way: dict[int, MPI.Request] = {}
        self._steps = dict.fromkeys(serve.peers, 0)
        self._handed_out = dict.fromkeys(serve.peers, 0)
        self._n_updates = 0
        self._waiting: list[int] = []
        self.staleness = np.zeros((len(serve.peers) - 1) * (2 * serve.staleness + 1) + 1, dtype=np.int64)

    def serve(self) -> None:
        """Take as many gradients as there are workers."""
        status = MPI.Status()
        for _ in self._workers:
            self._comm.Probe(MPI.ANY_SOURCE, _TAG, status)
            worker = status.Get_source()
            self._comm.Recv(self._gradient, worker, _TAG)
            self.staleness[self._n_updates - self._handed_out[worker]] += 1
            self._update()
            self._n_updates += 1
            self._steps[worker] += 1
            self._waiting.append(worker)
            self._answer()

    def _answer(self) -> None:
        """Send parameters to those that wait and are not too far ahead, in the order in which they came."""
        slowest = min(self._steps.values())
        ready = [worker for worker in self._waiting if self._steps[worker] - slowest <= self._bound]
        for worker in ready:
            self._waiting.remove(worker)
            if worker in self._under_way:  # it came back, so it has the answer before
                self._under_way.pop(worker).Wait()
            np.copyto(self._answers[worker], self._parameters)
            self._under_way[worker] = self._comm.Isend(self._answers[worker], worker, _TAG)
            self._handed_out[worker] = self._n_updates
        for worker in [w for w, request in self._under_way.items() if request.Test()]:
            del self._under_way[worker]

    @property
    def memory_bytes(self) -> int:
        """What this has allocated."""
        return sum(answer.nbytes for answer in self._answers.values())
