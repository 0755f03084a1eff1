"""The least a step moves between memory and processor: bytes beside the operations of :mod:`hpcrnn.model.network`.

A model, not a measurement.  Counted, once each, is what lies too far from its next use to stay in a cache::

    forward    every weight is read; a block's input is read, its output written
    backward   the weights that the gradient passes are read again, and input, output and the gradient of the output;
               the gradient of the input is written, and every parameter's gradient
    tape       what a cell keeps for its backward pass is written, and read
    update     gradient and parameter are read, the parameter is written, the optimizer's state read and written

Not counted: scratch that may stay in a cache (gates before and after their activation's slope), sums of gradients over
micro-batches and over ranks, messages, the norm.  Of an embedding no more rows are read than there are tokens.

One thing decides whether a recurrent network is bound by memory and is not in any count: whether the recurrent weights,
which every time step needs, stay in a cache.  So there are two counts: weights *cached*, read once a pass, and
*streamed*, read at every time step of every micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from hpcrnn.model.network import Block, BlockKind, Network
from hpcrnn.model.sharding import WHOLE, Shard, shard_shapes
from hpcrnn.spec import StepMode

INDEX_BYTES = 4
"""Of a token."""

OPTIMIZER_STATES = {"sgd": 1, "adam": 2}
"""Values an optimizer keeps of a parameter: a velocity; two moments."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of a step.

    Attributes
    ----------
    cached, streamed : int
        With the recurrent weights read once a pass, and at every time step.
    """

    cached: int = 0
    streamed: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.cached + other.cached, self.streamed + other.streamed)

    def __mul__(self, times: int) -> Traffic:
        return Traffic(self.cached * times, self.streamed * times)


@dataclass(frozen=True)
class Work:
    """How a rank goes through its part of a step.

    Attributes
    ----------
    mode : {"train", "gradient", "forward"}
    optimizer : {"sgd", "adam"}
    stored_itemsize : int
        Bytes of a stored weight or activation; parameters, gradients and moments have those of the network's dtype.
    n_microbatches : int
        Each goes through all time steps of its own.
    fold : int
        Segments of time that run together, as rows: there are so many times fewer time steps.
    """

    mode: StepMode
    optimizer: str
    stored_itemsize: int
    n_microbatches: int = 1
    fold: int = 1


def step_traffic(
    network: Network, blocks: Iterable[int], steps: int, rows: int, work: Work, shard: Shard = WHOLE
) -> Traffic:
    """Count what a rank moves for its blocks, time steps, rows of the batch and hidden units.

    Parameters
    ----------
    network : Network
    blocks : iterable of int
    steps, rows : int
        T and B of the rank.
    work : Work
    shard : Shard
        Hidden units of the rank.
    """
    if not steps * rows:  # a rank without rows still updates its parameters
        return sum((_update(network, network.blocks[index], work, shard) for index in blocks), Traffic())
    return sum((_block(network, index, steps, rows, work, shard) for index in blocks), Traffic())


def _block(network: Network, index: int, steps: int, rows: int, work: Work, shard: Shard) -> Traffic:
    block, stored = network.blocks[index], work.stored_itemsize
    weights = {name: math.prod(shape) * stored for name, shape in shard_shapes(block, shard).items()}
    passes = _PASSES[block.kind](network, index, steps, rows, stored, shard, weights)
    n_passes = 1 if work.mode == "forward" else 2
    moved = sum(passes[:n_passes])
    again = n_passes * _read_again(weights.get("R", 0), steps, rows, work)
    return Traffic(moved, moved + again) + _update(network, block, work, shard)


# Each returns the bytes of the forward pass and those of the backward pass, weights cached.


def _recurrent(
    network: Network, index: int, steps: int, rows: int, stored: int, shard: Shard, weights: dict[str, int]
) -> tuple[int, int]:
    block, row = network.blocks[index], steps * rows * stored
    cell, units = block.cell, shard.count(block.outputs)
    if cell is None:
        raise ValueError(block.name)
    x, y, dy = row * block.inputs, row * block.outputs, row * units
    kept = sum(math.prod(shape) for shape in cell.saved_shapes(rows, units, block.outputs).values())
    kept += (len(cell.state_names) - 1) * rows * units  # h is the output
    tape = steps * kept * stored
    dx, W = (x, weights["W"]) if network.gives_dx(index) else (0, 0)
    forward = x + y + sum(weights.values())
    return forward, x + y + dy + dx + W + weights.get("R", 0) + 2 * tape


def _embedding(
    network: Network, index: int, steps: int, rows: int, stored: int, _shard: Shard, _weights: dict[str, int]
) -> tuple[int, int]:
    block, elements = network.blocks[index], steps * rows
    tokens, y = elements * INDEX_BYTES, elements * block.outputs * stored
    return tokens + y + min(block.inputs, elements) * block.outputs * stored, tokens + y


def _linear(
    network: Network, index: int, steps: int, rows: int, stored: int, _shard: Shard, weights: dict[str, int]
) -> tuple[int, int]:
    block, row = network.blocks[index], steps * rows * stored
    x, y = row * block.inputs, row * block.outputs
    dx, W = (x, weights["W"]) if network.gives_dx(index) else (0, 0)
    return x + y + sum(weights.values()), x + y + dx + W


def _head(
    network: Network, index: int, steps: int, rows: int, stored: int, shard: Shard, weights: dict[str, int]
) -> tuple[int, int]:
    """Its scores need not leave the processor, as the loss is summed; their gradient is kept for the backward pass."""
    block, elements = network.blocks[index], steps * rows
    x, scores = elements * shard.count(block.inputs) * stored, elements * block.outputs * stored
    targets = elements * INDEX_BYTES if network.loss == "cross_entropy" else scores
    return x + sum(weights.values()) + targets, x + x + weights["W"] + 2 * scores


def _cotangent(
    network: Network, index: int, steps: int, rows: int, stored: int, shard: Shard, _weights: dict[str, int]
) -> tuple[int, int]:
    """Reads the last layer's output and what it is multiplied by; writes the latter as the gradient."""
    x = steps * rows * shard.count(network.blocks[index].inputs) * stored
    return 2 * x, x


_PASSES: dict[BlockKind, Callable[..., tuple[int, int]]] = {
    "recurrent": _recurrent,
    "embedding": _embedding,
    "linear": _linear,
    "head": _head,
    "cotangent": _cotangent,
}


def _read_again(recurrent_bytes: int, steps: int, rows: int, work: Work) -> int:
    """Bytes of recurrent weights that a pass reads beyond the first time, where they do not stay in a cache."""
    times = min(work.n_microbatches, rows) * math.ceil(steps / work.fold)
    return (times - 1) * recurrent_bytes


def _update(network: Network, block: Block, work: Work, shard: Shard) -> Traffic:
    """Bytes of a block's gradient and of its optimizer."""
    if work.mode == "forward":
        return Traffic()
    n_bytes = sum(map(math.prod, shard_shapes(block, shard).values())) * np.dtype(network.dtype).itemsize
    touched = 1  # the gradient is written
    if work.mode == "train":  # read; the parameter read and written; each state read and written
        touched += 1 + 2 + 2 * OPTIMIZER_STATES[work.optimizer]
    return Traffic(touched * n_bytes, touched * n_bytes)
