"""Which part of a network each rank of a tensor group holds: the hidden units of every recurrent layer, split.

K shards own a contiguous range of hidden units each.  Arrays come in two forms: *canonical*, as the whole network
has them, and a shard's own::

    recurrent   W (D, G*H)  R (H, G*H)  b (G*H,)  bR (H,)     columns of every gate for the shard's units
    head        W (H, V)                                      rows of the shard's units: scores are summed over shards
                b (V,)                                        replicated
    embedding, linear                                         replicated

Pure functions on arrays: nothing here knows how a shard reaches the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.model.network import Block

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shard:
    """One of ``size`` shards.

    Attributes
    ----------
    index, size : int
    """

    index: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.size:
            msg = f"shard {self.index} of {self.size}"
            raise ValueError(msg)

    def units(self, H: int) -> slice:
        """The units this shard owns: parts differ by at most one, larger ones first.

        Of 7 units, three shards own 0:3, 3:5 and 5:7. With fewer units than shards the last ones own none.
        """
        base, extra = divmod(H, self.size)
        start = self.index * base + min(self.index, extra)
        return slice(start, start + base + (self.index < extra))

    def count(self, H: int) -> int:
        """How many units this shard owns."""
        units = self.units(H)
        return int(units.stop - units.start)


WHOLE = Shard()


@dataclass(frozen=True)
class _Cut:
    """An axis of a parameter made of ``groups`` times ``units`` entries, of which the units are split."""

    axis: int
    groups: int
    units: int


def is_sharded(block: Block, name: str) -> bool:
    """Whether the shards hold parts of a parameter, rather than a copy each."""
    return _cut(block, name) is not None


def shard_shapes(block: Block, shard: Shard) -> dict[str, tuple[int, ...]]:
    """Name and shape of a block's parameters as one shard holds them."""
    return {name: _shard_shape(block, name, shard) for name in block.shapes}


def take(block: Block, name: str, canonical: Array, shard: Shard) -> Array:
    """Take a shard's part of a parameter or its gradient.

    Parameters
    ----------
    block : Block
        Of the whole network.
    name : str
        Of the parameter, e.g. ``R``.
    canonical : array
    shard : Shard

    Returns
    -------
    array
        Of the shape in :func:`shard_shapes`; ``canonical`` itself where it is replicated.
    """
    if not is_sharded(block, name):
        return canonical
    return np.ascontiguousarray(canonical[positions(block, name, shard)])


def positions(block: Block, name: str, shard: Shard) -> tuple[Any, ...]:
    """Index of a shard's part: ``canonical[positions(...)]`` equals ``take(...)``."""
    cut = _cut(block, name)
    if cut is None:
        return (slice(None),) * len(block.shapes[name])
    index: list[Any] = [slice(None)] * len(block.shapes[name])
    index[cut.axis] = np.arange(cut.groups * cut.units).reshape(cut.groups, -1)[:, shard.units(cut.units)].ravel()
    return tuple(index)


def join(block: Block, name: str, parts: Sequence[Array]) -> Array:
    """Put the parts of all shards, in their order, together again: the inverse of :func:`take`.

    Of a replicated parameter it is the first shard's copy.
    """
    cut = _cut(block, name)
    if cut is None:
        return parts[0]
    split = [_split_axis(part, cut.axis, cut.groups) for part in parts]
    return np.concatenate(split, axis=cut.axis + 1).reshape(block.shapes[name])


def take_units(canonical: Array, shard: Shard) -> Array:
    """View a shard's units of an array (..., H): a state, or its gradient."""
    return canonical[..., shard.units(canonical.shape[-1])]


def join_units(parts: Sequence[Array]) -> Array:
    """Put the units (..., Hk) of all shards, in their order, together as (..., H)."""
    return np.concatenate(parts, axis=-1)


def _cut(block: Block, name: str) -> _Cut | None:
    """Where a parameter is split; None for a replicated one."""
    shape = block.shapes[name]
    if block.kind == "recurrent":
        return _Cut(len(shape) - 1, shape[-1] // block.outputs, block.outputs)
    if block.kind == "head" and name == "W":
        return _Cut(0, 1, block.inputs)
    return None


def _shard_shape(block: Block, name: str, shard: Shard) -> tuple[int, ...]:
    shape, cut = block.shapes[name], _cut(block, name)
    if cut is None:
        return shape
    return (*shape[: cut.axis], cut.groups * shard.count(cut.units), *shape[cut.axis + 1 :])


def _split_axis(a: Array, axis: int, groups: int) -> Array:
    """View an axis of ``groups`` times n entries as two."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])
