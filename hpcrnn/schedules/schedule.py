"""A schedule: a task graph, where it goes, in which order, and what its replicas exchange.

Everything that the programs of all ranks follow from is here; :mod:`hpcrnn.schedules.lowering` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from hpcrnn.compression.codecs import stage_sizes
from hpcrnn.compression.stages import CollectiveKind, FlatLayout
from hpcrnn.data_methods import EXACT, SERVED, SERVER
from hpcrnn.schedules.graph import TaskGraph, Value
from hpcrnn.schedules.lowering import lowered
from hpcrnn.schedules.nodes import Nodes
from hpcrnn.schedules.placement import Place, Placement
from hpcrnn.schedules.program import (
    AllReduce,
    AllReduceParameters,
    AllReduceScalar,
    Axes,
    Over,
    Program,
    Serve,
    SumStage,
    Vector,
)
from hpcrnn.spec import Axis, DataMethodName, OrderName, StepMode

_VERBS: dict[CollectiveKind, Literal["AllReduce", "AllToAll", "AllGather"]] = {
    "allreduce": "AllReduce",
    "alltoall": "AllToAll",
    "allgather": "AllGather",
}

Sum = tuple[AllReduce | AllReduceScalar | SumStage | None, ...]
"""The stages of a sum, one after another; None: one in which other ranks take part but this rank does not."""


class Sizes(Protocol):
    """Bytes of what crosses ranks."""

    def value_bytes(self, value: Value, place: Place) -> int:
        """Size of a value in the replica and tensor group of a place."""

    def gradient_bytes(self, block: int, place: Place) -> int:
        """Size of a block's gradient on a place that owns it."""

    @property
    def itemsize(self) -> int:
        """Size of a number of a gradient."""

    def gradient_layout(self, start: int, stop: int) -> FlatLayout:
        """What lies in the gradients of the blocks ``start:stop``, where all units are on one rank."""


@dataclass(frozen=True)
class Schedule:
    """Everything a program is made from.

    Attributes
    ----------
    graph : TaskGraph
    placement : Placement
    order : {"fill_drain", "1f1b", "seq_1f1b", "zb_h1", "interleaved"}
    mode : {"train", "gradient", "forward"}
    data_method : str
        What replicas exchange: see :mod:`hpcrnn.data_methods`.
    carry : bool
        Whether a step starts from the final states of the step before.
    blocks : tuple of str
        Names.
    sizes : Sizes
    nodes : Nodes, optional
        Of a method that sums through nodes; all ranks on one if not given.
    staleness : int
        Steps that a worker may be ahead of the slowest when its parameter server lets it go on.
    averages : bool
        Whether the step ends in an average of the models.
    codec : str
        What gradients are compressed with before they are summed.
    """

    graph: TaskGraph
    placement: Placement
    order: OrderName
    mode: StepMode
    data_method: DataMethodName
    carry: bool
    blocks: tuple[str, ...]
    sizes: Sizes
    nodes: Nodes | None = None
    staleness: int = 0
    averages: bool = False
    codec: str = "none"

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.placement.n_ranks

    def axes(self, *wanted: Axis) -> Axes:
        """Of the wanted axes those longer than one."""
        return tuple(axis for axis in wanted if getattr(self.placement.grid, axis) > 1)

    def replicated_over(self, block: int) -> Axes:
        """Axes along which a block's parameters are copies of one another, so their gradients must be summed.

        Tensor ranks share recurrent blocks and the head out; the input block they all have, each with a part
        of its gradient.
        """
        whole = block == 0 and not self.graph.recurrent[block]
        return self.axes("data", "time", "tensor") if whole else self.axes("data", "time")

    @property
    def is_symmetric(self) -> bool:
        """Whether replicas have the same programs."""
        return self.data_method not in (*SERVED, "hierarchical")

    @property
    def workers(self) -> tuple[int, ...]:
        """Ranks that a parameter server serves; empty where there is none."""
        return tuple(range(1, self.n_ranks)) if self.data_method in SERVED else ()

    def is_server(self, rank: int) -> bool:
        """Whether a rank keeps the parameters, and does no tasks."""
        return bool(self.workers) and rank == SERVER

    @property
    def loss_axes(self) -> Axes:
        """Axes along which the loss is summed in the step: none where each rank has a loss of its own."""
        return self.axes("data", "pipeline", "time", "tensor") if self.data_method in EXACT else ()

    def group(self, rank: int, over: Over) -> tuple[int, ...]:
        """Ranks that take part in a collective of a rank, ascending; itself included."""
        if not isinstance(over, str):
            return self.placement.group(self.placement.place(rank), over)
        nodes = self.nodes or Nodes((0,) * self.n_ranks)
        return nodes.within(rank) if over == "within node" else nodes.across(rank)

    def sum_of(self, start: int, stop: int, place: Place) -> Sum:
        """Stages of the sum of the gradients of neighbouring blocks that are replicated alike; none: it is complete.

        This is where a method of summing says what it puts on the wire, and when.
        """
        axes = self.replicated_over(start)
        n_bytes = sum(self.sizes.gradient_bytes(block, place) for block in range(start, stop))
        if not axes or not n_bytes or self.data_method not in EXACT or self.workers:
            return ()
        if self.data_method == "hierarchical":
            return self._through_nodes(start, stop, self.placement.rank(place), n_bytes)
        if self.codec != "none":
            return self._compressed(start, stop, axes)
        return (AllReduce(start, stop, axes, n_bytes),)

    def _compressed(self, start: int, stop: int, axes: Axes) -> Sum:
        """Stages of the codec."""
        sizes = stage_sizes(
            self.codec, self.sizes.gradient_layout(start, stop), self.sizes.itemsize, self.placement.grid.data
        )
        return tuple(SumStage(_VERBS[s.kind], start, stop, axes, s.n_bytes, s.operand) for s in sizes)

    def _through_nodes(self, start: int, stop: int, rank: int, n_bytes: int) -> Sum:
        """Reduce-scatter within the node, sum of each part across nodes, allgather within the node."""
        nodes = self.nodes or Nodes((0,) * self.n_ranks)
        counts, index = nodes.counts(rank, n_bytes // self.sizes.itemsize), nodes.index(rank)
        own = counts[index] * self.sizes.itemsize
        shared, crosses = len(nodes.within(rank)) > 1, nodes.n_nodes > 1 and index < nodes.n_parts
        return (
            SumStage("ReduceScatter", start, stop, "within node", n_bytes) if shared else None,
            SumStage("AllReduce", start, stop, "across nodes", own) if crosses else None,
            SumStage("AllGather", start, stop, "within node", own) if shared else None,
        )

    def vector(self, kind: Literal["gradient", "parameters"], place: Place) -> tuple[Vector, int]:
        """All parameters of a place, or their gradient, and their bytes."""
        blocks = range(self.graph.n_blocks)
        whole = Vector(kind, blocks.start, blocks.stop)
        return whole, sum(self.sizes.gradient_bytes(block, place) for block in blocks)

    def serve(self) -> Serve:
        """What the server of an asynchronous method does in a step."""
        whole, n_bytes = self.vector("gradient", Place())
        return Serve(whole, self.workers, self.staleness, n_bytes)

    def average(self) -> AllReduceParameters:
        """The sum of all models."""
        return AllReduceParameters(self.axes("data"), self.vector("parameters", Place())[1])

    def program(self, rank: int) -> Program:
        """Build the program of one rank; nothing about the others is built."""
        return Program(rank, self.placement.grid, self.blocks, tuple(lowered(self, rank)))

    def programs(self) -> tuple[Program, ...]:
        """Build the program of every rank."""
        return tuple(self.program(rank) for rank in range(self.n_ranks))
