"""The ranks MPI started: who they are, how they wait, agree, and fail together."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcrnn.errors import FileError, HpcrnnError, LaunchError
from hpcrnn.execution.cuda_aware import cuda_awareness
from hpcrnn.execution.farewell import Farewell
from hpcrnn.execution.local_rank import gpus_in_sight, local_rank
from hpcrnn.execution.transport import GridCommunicators
from hpcrnn.schedules.nodes import Nodes, nodes_named
from hpcrnn.spec import Grid

_NAP_S = 0.0005
_AGREE_S = 2.0

INTERRUPTED = 130
"""Exit code of what SIGINT ended: 128 and its number, as shells have it."""

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """All ranks of a run.

    Attributes
    ----------
    comm : MPI.Comm
        For the measurement.
    failures : MPI.Comm
        Of the same ranks, for nothing but agreeing on an error.
    node : MPI.Comm
        Of the ranks that share this node's memory.
    local_rank : int
        Number of this rank among those of its node that see the same GPUs.
    farewell : Farewell
        What to say where a signal ends the run.
    """

    comm: MPI.Intracomm
    failures: MPI.Intracomm
    node: MPI.Comm
    local_rank: int
    farewell: Farewell
    _grids: dict[tuple[Grid, Nodes | None], GridCommunicators] = field(default_factory=dict)

    @classmethod
    def start(cls) -> World:
        """Return the ranks of ``MPI.COMM_WORLD``."""
        comm = MPI.COMM_WORLD.Dup()
        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        farewell = Farewell(lambda code: _end(comm, code), comm.Get_rank(), comm.Get_size())
        return cls(comm, comm.Dup(), node, local_rank(node.allgather(gpus_in_sight()), node.Get_rank()), farewell)

    @property
    def rank(self) -> int:
        """Number of this rank."""
        return int(self.comm.Get_rank())

    @property
    def size(self) -> int:
        """Number of ranks."""
        return int(self.comm.Get_size())

    @property
    def is_root(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def largest(self, array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the largest of all ranks' values, element by element; every rank calls this.

        Parameters
        ----------
        array : float64 array (...)
        """
        found = np.empty_like(array)
        self.comm.Allreduce(np.ascontiguousarray(array), found, op=MPI.MAX)
        return found

    def total(self, array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum of all ranks' values, element by element; every rank calls this."""
        found = np.empty_like(array)
        self.comm.Allreduce(np.ascontiguousarray(array), found, op=MPI.SUM)
        return found

    def communicators(self, grid: Grid, nodes: Nodes | None = None) -> GridCommunicators:
        """Communicators over a grid of all ranks, or, for a grid of one, of this rank alone; made once.

        The first call for a grid of all ranks, and their nodes where sums go through these, is collective.
        """
        if (grid, nodes) not in self._grids:
            everyone = grid.n_ranks > 1 or self.size == 1
            comm = self.comm if everyone else MPI.COMM_SELF
            self._grids[grid, nodes] = GridCommunicators(comm, grid, self.local_rank, nodes)
        return self._grids[grid, nodes]

    def nodes(self) -> Nodes:
        """Which ranks share memory; every rank calls this."""
        return nodes_named(self.comm.allgather(self.node.bcast(self.rank)))

    def quiet_barrier(self) -> float:
        """Wait for all ranks without spinning: a rank that measures alone wants the cores' turbo and caches.

        Returns
        -------
        float
            Seconds this rank waited.
        """
        start = time.monotonic()
        request = self.comm.Ibarrier()
        while not request.Test():
            time.sleep(_NAP_S)
        return time.monotonic() - start

    def on_any_rank(self, said: bool) -> bool:
        """Whether it is true on any rank; all ranks call this."""
        return bool(self.comm.allreduce(said, MPI.LOR))

    def on_root(self, function: Callable[[], T]) -> T:
        """Run a function on rank 0 and give its result, or its :class:`HpcrnnError`, to all ranks."""
        result: list[T] = []
        failure: HpcrnnError | None = None
        if self.is_root:
            try:
                result = [function()]
            except HpcrnnError as error:
                failure = error
        self.quiet_barrier()  # rank 0 may take long, and the others may share its core
        shared: tuple[list[T], HpcrnnError | None] = self.comm.bcast((result, failure))
        if shared[1] is not None:
            raise shared[1]
        return shared[0][0]

    def ranks_on_node(self) -> int:
        """Ranks that share this node's memory."""
        return int(self.node.Get_size())

    def facts(self) -> dict[str, Any]:
        """Describe the MPI library: plain values for the record; every rank calls this."""
        first_line = MPI.Get_library_version().rstrip("\x00").partition("\n")[0]
        library = " ".join(first_line.replace("Version:", "").split())
        levels = {
            MPI.THREAD_SINGLE: "single",
            MPI.THREAD_FUNNELED: "funneled",
            MPI.THREAD_SERIALIZED: "serialized",
            MPI.THREAD_MULTIPLE: "multiple",
        }
        cuda = cuda_awareness(self.comm)
        return {
            "library": library,
            "standard": ".".join(map(str, MPI.Get_version())),
            "thread_level": levels.get(MPI.Query_thread(), "unknown"),
            "cuda_aware": cuda.aware,
            "cuda_aware_how": cuda.how,
            "n_ranks": self.size,
            "n_nodes": len(set(self.comm.allgather(MPI.Get_processor_name()))),
        }


def fail(world: World, error: BaseException) -> NoReturn:
    """End the run after an error: together where all ranks have it, at once where only this one has.

    Parameters
    ----------
    world : World
    error : BaseException
        An :class:`HpcrnnError` is shown as one line, anything else with its traceback.
    """
    if isinstance(error, MemoryError):
        error = HpcrnnError(f"out of memory: {error}; a smaller batch, seq, hidden or layers needs less")
    code = error.exit_code if isinstance(error, HpcrnnError) else 1
    if isinstance(error, KeyboardInterrupt):  # before signals were listened to
        error, code = HpcrnnError("interrupted"), INTERRUPTED
    if isinstance(error, HpcrnnError):
        text = f"hpcrnn: error: {error}\n"
    else:
        text = f"hpcrnn: rank {world.rank} of {world.size} failed:\n{''.join(traceback.format_exception(error))}"
    told = isinstance(error, FileError) or not world.farewell.remains  # a file's error says itself what is left
    remains = "" if told else f"hpcrnn: note: {world.farewell.remains}\n"
    if world.size > 1 and not (isinstance(error, HpcrnnError) and _all_failed(world)):
        if isinstance(error, HpcrnnError):
            text = f"hpcrnn: error on rank {world.rank} of {world.size}: {error}\n"
        _write_error(text + remains)
        world.comm.Abort(code)
    if world.is_root and not (isinstance(error, LaunchError) and not error.told):
        _write_error(text + remains)
    sys.exit(code)


def _end(comm: MPI.Intracomm, code: int) -> NoReturn:
    """End all ranks, whatever they are doing."""
    if comm.Get_size() > 1 and not MPI.Is_finalized():
        comm.Abort(code)
    os._exit(code)


def _all_failed(world: World) -> bool:
    """Whether every rank arrives here within a short time."""
    request = world.failures.Ibarrier()
    end = time.monotonic() + _AGREE_S
    while not request.Test():
        if time.monotonic() > end:
            return False
        time.sleep(_NAP_S)
    return True


def _write_error(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
