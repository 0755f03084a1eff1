"""How far compressed steps are from the gradient: looked at between two steps, where no clock runs.

What was applied in a step and the gradient that all ranks together computed differ by what the ranks hold back after
the step less what they held back before it. So two dense sums of what is held back tell the error, and the step itself
is left as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from hpcrnn.execution.executor import Executor
from hpcrnn.records.compression import is_watched
from hpcrnn.records.record import FloatArray


class WatchedStep(NamedTuple):
    """What was found; see :class:`~hpcrnn.records.compression.Compression`."""

    step: int
    error: float
    backlog: float
    held_back: tuple[float, ...]


class CompressionWatch:
    """Looks at the steps of one executor whose gradients are compressed; every rank of it calls this.

    Parameters
    ----------
    executor : Executor
    communicator : Intracomm
        Of its ranks.

    Attributes
    ----------
    steps : list of WatchedStep
        On rank 0; those whose gradient was not zero.
    """

    def __init__(self, executor: Executor, communicator: MPI.Intracomm) -> None:
        self._executor, self._comm = executor, communicator
        self._held: FloatArray | None = None
        """What all ranks together held back before the step ``_next``; on rank 0."""
        self._next = -1
        self.steps: list[WatchedStep] = []

    def before(self, steps: range) -> None:
        """Look at what is held back before a leg, if it is one step that is to be looked at."""
        if _is_watched(steps) and self._next != steps.start:
            self._held, _ = self._look()

    def after(self, steps: range) -> list[WatchedStep]:
        """Look at it after the leg, and compare; return what was found so far, on rank 0."""
        if _is_watched(steps):
            self._compare(steps.start)
        return self.steps

    def _compare(self, step: int) -> None:
        before, (held, norms) = self._held, self._look()
        self._held, self._next = held, step + 1
        if held is None or before is None:
            return
        late = held - before
        size = float(np.linalg.norm(self._applied() + late))
        if size > 0:
            error, backlog = (float(np.linalg.norm(a)) / size for a in (late, held))
            self.steps.append(WatchedStep(step, error, backlog, tuple(norm / size for norm in norms)))

    def _look(self) -> tuple[FloatArray | None, list[float]]:
        """Sum what is held back; on rank 0 the sum, and the norm of each rank's."""
        own = self._executor.held_back().astype(np.float64)
        total = np.empty_like(own) if self._comm.rank == 0 else None
        self._comm.Reduce(own, total)
        return total, self._comm.gather(float(np.linalg.norm(own))) or []

    def _applied(self) -> FloatArray:
        """The last step's gradient as it was summed, before it was clipped."""
        gradient = self._executor.gradient().astype(np.float64)
        norm, clipped = self._executor.gradient_norm, float(np.linalg.norm(gradient))
        return gradient * (norm / clipped) if np.isfinite(norm) and clipped > 0 else gradient


def _is_watched(steps: range) -> bool:
    return len(steps) == 1 and is_watched(steps.start)
