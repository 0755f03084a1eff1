"""What passes between two blocks, and its memory: the same for every engine that works on parts of a network.

A *boundary* is what the block before writes and the block after reads, and its gradient, that goes the other way. One
of the two blocks may lie on another rank: the boundary is then where a message arrives, and neither block can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from hpcrnn.backends.arena import Arena, Memory, Shape
from hpcrnn.backends.base import Array, Extent
from hpcrnn.model.network import Network
from hpcrnn.schedules.lifetimes import Buffer, Family
from hpcrnn.workloads import Batch

UnitKey = tuple[int, int]
"""Micro-batch and chunk."""


@dataclass(frozen=True)
class Boundary:
    """The output of a block, or the network's input.

    Attributes
    ----------
    value : dict of (m, c) to array (T, B, N)
        Of all shards.
    own : dict of (m, c) to array (T, B, Nk)
        The same of this shard's units; of what is not sharded, ``value`` itself.
    gradient : dict of (m, c) to array (T, B, Nk)
        Empty where none is needed. Of what is not sharded, each shard holds a part of a sum.
    arenas : list of Arena
        Memory of the above, where it belongs to this boundary.
    """

    value: dict[UnitKey, Array]
    own: dict[UnitKey, Array]
    gradient: dict[UnitKey, Array]
    arenas: list[Arena[UnitKey]] = field(default_factory=list)

    @property
    def memory_bytes(self) -> int:
        """Memory that belongs to this boundary."""
        return sum(arena.n_bytes for arena in self.arenas)


def unit_arena(
    extent: Extent, family: Family, block: int, memory: Memory, shapes: Mapping[UnitKey, Sequence[Shape]]
) -> Arena[UnitKey]:
    """Memory for one buffer a (micro-batch, chunk); buffers share slots where the schedule says they may."""
    slots = {}
    for number, (m, c) in enumerate(shapes):
        slots[m, c] = number if extent.slots is None else extent.slots.of[Buffer(family, block, m, c)]
    return Arena(shapes, slots, memory)


def unit_arrays(
    extent: Extent, family: Family, block: int, width: int, memory: Memory
) -> tuple[dict[UnitKey, Array], Arena[UnitKey]]:
    """One array (T, B, width) a (micro-batch, chunk)."""
    shapes = {unit: [(*extent.shape(*unit), width)] for unit in extent.units()}
    arena = unit_arena(extent, family, block, memory, shapes)
    return {unit: arena.allocator(unit)(wanted[0]) for unit, wanted in shapes.items()}, arena


def input_boundary(extent: Extent, features: Sequence[Array], dx: Sequence[Array]) -> Boundary:
    """The network's own input: views of each micro-batch's whole window of time; empty where it is tokens."""

    def chunked(arrays: Sequence[Array]) -> dict[UnitKey, Array]:
        return {(m, c): arrays[m][extent.local(c)] for m, c in extent.units()} if arrays else {}

    value = chunked(features)
    return Boundary(value, value, chunked(dx))


def microbatch_of(batch: Batch, extent: Extent, m: int, dtype: npt.DTypeLike) -> Batch:
    """Take the rows and steps of one micro-batch out of an engine's rows, folded.

    Where segments of time are of unequal length there are always weights: steps that the shorter lack weigh nothing.
    ``dtype`` is the network's.
    """
    window, rows, folding = extent.window, extent.microbatches[m], extent.folding(m)
    weights = None if batch.weights is None else batch.weights[window, rows]
    if weights is None and not folding.is_even:
        weights = np.ones((folding.steps, folding.samples), dtype)
    return Batch(
        folding.fold(batch.inputs[window, rows]),
        folding.fold(batch.targets[window, rows]),
        None if weights is None else folding.fold(weights),
    )


def gradient_width(network: Network, index: int, extent: Extent) -> int:
    """Columns of the gradient of a block's output that one shard holds."""
    block = network.blocks[index]
    return extent.shard.count(block.outputs) if block.is_recurrent else block.outputs


def holds_cotangent(network: Network, index: int) -> bool:
    """Whether the gradient of a block's output is given, not computed."""
    return index + 1 < len(network.blocks) and network.blocks[index + 1].kind == "cotangent"


def gradient_arrays(
    network: Network, index: int, extent: Extent, memory: Memory
) -> tuple[dict[UnitKey, Array], Arena[UnitKey]]:
    """One gradient of a block's output a (micro-batch, chunk).

    They share slots where the schedule says they may; but a cotangent is there, for all units, before the step begins.
    """
    width = gradient_width(network, index, extent)
    if not holds_cotangent(network, index):
        return unit_arrays(extent, "gradient", index, width, memory)
    return unit_arrays(replace(extent, slots=None), "gradient", index, width, memory)


def received_boundary(network: Network, index: int, extent: Extent, memory: Memory) -> Boundary:
    """The output of a block that lies on another rank."""
    value, arena = unit_arrays(extent, "activation", index, network.blocks[index].outputs, memory)
    arenas = [arena]
    gradient: dict[UnitKey, Array] = {}
    if extent.backward:
        gradient, arena = gradient_arrays(network, index, extent, memory)
        arenas.append(arena)
    return Boundary(value, value, gradient, arenas)
