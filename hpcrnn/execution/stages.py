"""Sums of gradients that take several stages, carried out by MPI.

A stage is a collective between two computations: what begins it and returns its request, and what takes its result.
The executor begins a stage where the program has its post, and takes the result where the program waits; between these
it may compute something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from mpi4py.util.dtlib import from_numpy_dtype

from hpcrnn.compression.stages import Stage as CodecStage
from hpcrnn.schedules.nodes import Nodes
from hpcrnn.schedules.program import Span, SumStage

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Stage:
    """One stage of a sum, on its memory.

    Attributes
    ----------
    begin : callable
        Computes what is contributed, and begins the collective.
    end : callable
        Takes what the collective has brought.
    """

    begin: Callable[[], MPI.Request]
    end: Callable[[], None]


def _nothing() -> None:
    """What a stage does whose result lies where it belongs."""


def stages_through_nodes(
    gradient: Array, posts: Sequence[SumStage], nodes: Nodes, rank: int, groups: Mapping[Span, MPI.Intracomm]
) -> dict[SumStage, Stage]:
    """Sum one gradient within the node, part by part across nodes, and hand it back within the node.

    Parameters
    ----------
    gradient : array (n,)
        Summed in place.
    posts : sequence of SumStage
        This rank's stages.
    nodes : Nodes
    rank : int
    groups : mapping of str to MPI.Intracomm
        Ranks of each span.
    """
    counts = list(nodes.counts(rank, gradient.size))
    alone = len(counts) == 1
    part = gradient if alone else np.empty(counts[nodes.index(rank)], gradient.dtype)
    displacements = [0, *np.cumsum(counts)[:-1].tolist()]
    kind = from_numpy_dtype(gradient.dtype)

    def reduce_scatter() -> MPI.Request:
        return groups["within node"].Ireduce_scatter(gradient, part, recvcounts=counts, op=MPI.SUM)

    def allreduce() -> MPI.Request:
        return groups["across nodes"].Iallreduce(MPI.IN_PLACE, part, op=MPI.SUM)

    def allgather() -> MPI.Request:
        return groups["within node"].Iallgatherv(part, [gradient, counts, displacements, kind])

    begins = {"ReduceScatter": reduce_scatter, "AllReduce": allreduce, "AllGather": allgather}
    return {post: Stage(begins[post.verb], _nothing) for post in posts}


def compressed_stages(
    posts: Sequence[SumStage], coded: Sequence[CodecStage], communicator: MPI.Intracomm
) -> dict[SumStage, Stage]:
    """Sum one gradient by the stages of a codec.

    Parameters
    ----------
    posts : sequence of SumStage
        This rank's stages.
    coded : sequence of CodecStage
        One each.
    communicator : MPI.Intracomm
        Of the ranks that sum.
    """
    pairs = zip(posts, coded, strict=True)
    return {post: Stage(partial(_begin_compressed, stage, communicator), stage.end) for post, stage in pairs}


def _begin_compressed(stage: CodecStage, communicator: MPI.Intracomm) -> MPI.Request:
    stage.begin()
    if stage.kind == "allreduce":
        return communicator.Iallreduce(MPI.IN_PLACE, stage.send, op=MPI.SUM)
    begin = communicator.Ialltoall if stage.kind == "alltoall" else communicator.Iallgather
    return begin(stage.send, stage.receive)
