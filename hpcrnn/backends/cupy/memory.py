"""What an engine will take of a GPU's memory, before it takes any."""

from __future__ import annotations

import math

from hpcrnn.backends.base import Extent
from hpcrnn.backends.boundaries import gradient_width, holds_cotangent
from hpcrnn.backends.cupy.tape import GpuTape
from hpcrnn.kernels.variants import Variant
from hpcrnn.model.network import Block, Network
from hpcrnn.model.sharding import shard_shapes
from hpcrnn.schedules.lifetimes import Family

_COPIES = 4
"""Of the parameters, in float32: themselves, their gradients, and what an optimizer keeps; two moments at the most."""

_WORKSPACE_BYTES = 64 << 20
"""Of cuBLAS, and what pools round up."""


def device_bytes(network: Network, extent: Extent, itemsize: int) -> int:
    """Estimate the bytes an engine takes.

    Parameters
    ----------
    network : Network
    extent : Extent
    itemsize : int
        Bytes of a stored number.
    """
    own = range(len(network.blocks)) if extent.blocks is None else extent.blocks
    total = _WORKSPACE_BYTES
    for index in own:
        block, shard = network.blocks[index], extent.shard
        total += _COPIES * 4 * sum(math.prod(shape) for shape in shard_shapes(block, shard).values())
        if block.cell is not None:
            reset_before = getattr(block.cell, "reset", "") == "before"
            variant = Variant(block.cell.name, "float32", "forward", reset_before=reset_before)
            H = shard.count(block.outputs)
            shapes = [
                GpuTape.shapes(
                    variant,
                    *extent.shape(*unit),
                    H,
                    backward=extent.backward,
                    again=extent.is_folded,
                    width=block.outputs,
                )
                for unit in extent.units()
            ]
            sizes = [itemsize * sum(map(math.prod, stored.values())) + 4 * math.prod(wide) for stored, wide in shapes]
            total += _of_slots(sizes, extent, "activation", index)
            total += itemsize * sum(math.prod(shape) for shape in shard_shapes(block, shard).values()) * 2
        elif block.kind == "cotangent":
            total += 4 * sum(_counts(extent, shard.count(block.inputs)))
        else:
            total += itemsize * _of_slots(_counts(extent, block.outputs), extent, "activation", index)
        if extent.backward and block.kind in ("embedding", "linear", "recurrent"):
            counts = _counts(extent, gradient_width(network, index, extent))
            given = holds_cotangent(network, index)
            total += itemsize * (sum(counts) if given else _of_slots(counts, extent, "gradient", index))
    if 0 in own and network.blocks[0].kind != "embedding":
        total += itemsize * 2 * sum(_counts(extent, network.blocks[0].inputs))
    return total + max(_transient_bytes(network.blocks[index], extent, itemsize) for index in own)


def _transient_bytes(block: Block, extent: Extent, itemsize: int) -> int:
    """What a task holds while it runs: scores in float32 and terms of the loss in float64, or one-hot rows."""
    rows = max(math.prod(extent.shape(*unit)) for unit in extent.units())
    if block.kind in ("linear", "head"):
        return rows * block.outputs * (4 + 8 * (block.kind == "head"))
    if block.kind == "embedding":
        return rows * block.inputs * itemsize * extent.backward
    if block.kind == "cotangent":
        return 8 * rows * extent.shard.count(block.inputs)
    return 8 * rows * block.outputs if extent.is_folded else 0


def _counts(extent: Extent, width: int) -> list[int]:
    """Numbers in an array (T, B, width) of each unit."""
    return [math.prod(extent.shape(*unit)) * width for unit in extent.units()]


def _of_slots(sizes: list[int], extent: Extent, family: Family, block: int) -> int:
    """Total of the slots that buffers of these sizes share."""
    if extent.slots is None:
        return sum(sizes)
    return max(sizes) * min(len(sizes), extent.slots.counts.get((family, block), len(sizes)))
