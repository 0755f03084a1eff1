"""One flat buffer for all parameters, with a named view of each.

Flat, so that an optimizer is a handful of vector operations and an allreduce one message a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class FlatBuffer:
    """A contiguous array and views into it, block by block.

    Parameters
    ----------
    shapes : sequence of mapping of str to tuple of int
        Names and shapes, one mapping a block.
    dtype : dtype
    zeros : callable, optional
        From size and dtype to a flat array of zeros.

    Attributes
    ----------
    flat : array (n,)
    blocks : list of dict of str to array
        Views, one dictionary a block.
    """

    def __init__(
        self,
        shapes: Sequence[Mapping[str, tuple[int, ...]]],
        dtype: npt.DTypeLike,
        zeros: Callable[[int, npt.DTypeLike], Array] = np.zeros,
    ) -> None:
        sizes = [[math.prod(shape) for shape in block.values()] for block in shapes]
        self.flat: Array = zeros(sum(map(sum, sizes)), dtype)
        self.blocks: list[dict[str, Array]] = []
        self._ranges: list[slice] = []
        position = 0
        for block, counts in zip(shapes, sizes, strict=True):
            start, views = position, {}
            for (name, shape), count in zip(block.items(), counts, strict=True):
                views[name] = self.flat[position : position + count].reshape(shape)
                position += count
            self.blocks.append(views)
            self._ranges.append(slice(start, position))

    def range(self, start: int, stop: int) -> Array:
        """The part of the flat array that the blocks ``start:stop`` own."""
        return self.flat[self._ranges[start].start : self._ranges[stop - 1].stop]
