"""How the data of a step is cut: rows, time steps, hidden units, and the bytes that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpcrnn.compression.stages import FlatLayout
from hpcrnn.model.network import Network
from hpcrnn.model.sharding import Shard, shard_shapes
from hpcrnn.schedules.graph import Value
from hpcrnn.schedules.placement import Place, Placement, split


@dataclass(frozen=True)
class Cut:
    """How the data of a step is cut, and so how large everything is that crosses ranks.

    Attributes
    ----------
    network : Network
    placement : Placement
    batch, n_microbatches : int
        Rows of the global batch; micro-batches of each replica.
    chunks : tuple of slice
        Time steps of every chunk.
    stored_itemsize : int
        Bytes of a number that passes between two blocks; states and parameters have those of the network's dtype.
    pieces : tuple of tuple of slice
        Where every data position has a piece of all rows, and not all of some rows: the chunks of each.
    """

    network: Network
    placement: Placement
    batch: int
    n_microbatches: int
    chunks: tuple[slice, ...]
    stored_itemsize: int
    pieces: tuple[tuple[slice, ...], ...] = ()

    def rows(self, place: Place) -> slice:
        """Rows of the global batch of a place."""
        return slice(0, self.batch) if self.pieces else self.placement.rows(self.batch, place)

    def chunks_of(self, place: Place) -> tuple[slice, ...]:
        """Time steps of every chunk of a place's replica."""
        return self.pieces[place.data] if self.pieces else self.chunks

    def terms(self, place: Place) -> int:
        """Terms of the loss of a place's replica: its rows times its time steps."""
        chunks = self.chunks_of(place)
        return length(self.rows(place)) * length(slice(chunks[0].start, chunks[-1].stop))

    def microbatches(self, place: Place) -> tuple[slice, ...]:
        """Rows of each micro-batch, counted from the place's first."""
        rows = self.rows(place)
        return split(rows.stop - rows.start, self.n_microbatches)

    def shard(self, place: Place) -> Shard:
        """Hidden units of a place."""
        return Shard(place.tensor, self.placement.grid.tensor)

    def value_bytes(self, value: Value, place: Place) -> int:
        """Size of a value in the replica and tensor group of a place."""
        block, rows = self.network.blocks[value.block], self.microbatches(place)[value.microbatch]
        part, n_rows = self.chunks[value.chunk], rows.stop - rows.start
        steps = part.stop - part.start
        units = self.shard(place).count(block.outputs) if block.cell is not None else block.outputs
        if value.kind == "y":
            return int(steps * n_rows * block.outputs * self.stored_itemsize)
        if value.kind == "dy":
            return int(steps * n_rows * units * self.stored_itemsize)
        states = () if block.cell is None else block.cell.state_names
        return int(len(states) * n_rows * units * self.itemsize)

    def gradient_bytes(self, block: int, place: Place) -> int:
        """Size of a block's gradient on a place."""
        shapes = shard_shapes(self.network.blocks[block], self.shard(place))
        return sum(math.prod(shape) for shape in shapes.values()) * self.itemsize

    def gradient_layout(self, start: int, stop: int) -> FlatLayout:
        """What lies in the gradients of the blocks ``start:stop``, where all units are on one rank."""
        blocks = self.network.blocks[start:stop]
        named = [(f"{block.name}.{name}", shape) for block in blocks for name, shape in block.shapes.items()]
        return FlatLayout(tuple(name for name, _ in named), tuple(shape for _, shape in named))

    @cached_property
    def itemsize(self) -> int:
        """Bytes of a parameter, and of a number of its gradient."""
        return int(np.dtype(self.network.dtype).itemsize)


def cut_time(segments: Sequence[slice], n_chunks: int) -> tuple[slice, ...]:
    """Cut each segment of the time axis into chunks."""
    return tuple(
        slice(segment.start + part.start, segment.start + part.stop)
        for segment in segments
        for part in split(length(segment), n_chunks)
    )


def length(part: slice) -> int:
    """Elements of a slice with a start and a stop."""
    return int(part.stop - part.start)
