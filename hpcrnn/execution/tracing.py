"""The timeline of one step over all ranks, on one clock."""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np
from mpi4py import MPI

from hpcrnn.execution.executor import Executor
from hpcrnn.execution.world import World
from hpcrnn.records.record import IntArray
from hpcrnn.records.timeline import Timeline

_ROUNDS = 32
_TAG = 1


def clock_offset_ns(world: World) -> int:
    """How far this rank's clock is ahead of rank 0's.

    Ranks of one node read the same clock.  Another node's is read in the middle of the fastest of some round trips
    (Cristian 1989), wrong by at most half of that trip: microseconds.  Collective.
    """
    names = world.comm.allgather(MPI.Get_processor_name())
    offset = 0
    for rank, name in enumerate(names):
        if name == names[0]:
            continue
        if world.is_root:
            for _ in range(_ROUNDS):
                world.comm.recv(source=rank, tag=_TAG)
                world.comm.send(perf_counter_ns(), dest=rank, tag=_TAG)
        elif world.rank == rank:
            offset = min(_round_trip(world) for _ in range(_ROUNDS))[1]
    return offset


def _round_trip(world: World) -> tuple[int, int]:
    """Nanoseconds of one trip to rank 0 and back, and the offset it shows."""
    start = perf_counter_ns()
    world.comm.send(None, dest=0, tag=_TAG)
    there: int = world.comm.recv(source=0, tag=_TAG)
    end = perf_counter_ns()
    return end - start, (start + end) // 2 - there


def gather_timeline(
    world: World, executor: Executor | None, stamps_ns: IntArray | None, offset_ns: int, repetition: int
) -> Timeline | None:
    """Bring one step's time stamps of all ranks to rank 0.

    Parameters
    ----------
    world : World
    executor : Executor or None
        None on ranks that did not take part.
    stamps_ns : int64 array (n_instructions + 1,) or None
        As :attr:`Executor.stamps_ns` was after that step.
    offset_ns : int
        What :func:`clock_offset_ns` returned on this rank.
    repetition : int
        Which counted step it is.

    Returns
    -------
    Timeline or None
        On rank 0; times are seconds since the first rank began.
    """
    own = None
    if executor is not None and stamps_ns is not None:
        own = [str(i) for i in executor.program.instructions], stamps_ns - offset_ns
    gathered = world.comm.gather(own)
    rows = [(rank, *found) for rank, found in enumerate(gathered or ()) if found is not None]
    if not rows:
        return None
    begin = min(int(stamps[0]) for _, _, stamps in rows)
    return Timeline(
        np.concatenate([np.full(len(texts), rank, dtype=np.int64) for rank, texts, _ in rows]),
        tuple(text for _, texts, _ in rows for text in texts),
        np.concatenate([(stamps[:-1] - begin) * 1e-9 for _, _, stamps in rows]),
        np.concatenate([(stamps[1:] - begin) * 1e-9 for _, _, stamps in rows]),
        repetition,
    )
