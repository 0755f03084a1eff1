"""The blocks of the NumPy engine: what F, B and W do to its buffers.

Blocks are joined by *boundaries*: one array a micro-batch that the block before writes and the block after
reads, and its gradient, that the block after writes and the block before reads.  Chunks are views.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from hpcrnn.backends.base import Array, Extent
from hpcrnn.cells import Cell
from hpcrnn.cells.base import as_rows
from hpcrnn.cells.products import ProductLibrary
from hpcrnn.model.layers import cross_entropy, embed, embed_gradient, squared_error
from hpcrnn.model.network import Block, Network


@dataclass(frozen=True)
class Boundary:
    """What passes between two blocks.

    Attributes
    ----------
    value, gradient : list of array (T, B, N)
        One a micro-batch; no gradients where none are needed.
    """

    value: list[Array]
    gradient: list[Array]

    @classmethod
    def allocate(cls, extent: Extent, width: int, dtype: npt.DTypeLike, *, gradient: bool) -> Boundary:
        """Allocate arrays of zeros."""
        value = [np.zeros((extent.steps, m.stop - m.start, width), dtype) for m in extent.microbatches]
        return cls(value, [np.zeros_like(v) for v in value] if gradient and extent.backward else [])


@dataclass
class Context:
    """What every block is made from.

    Attributes
    ----------
    block : Block
    before : Boundary
        Where the input comes from.
    parameters, gradients : dict of str to array
        Views into the flat buffers.
    extent : Extent
    dtype : dtype
    library : ProductLibrary
    gives_dx : bool
        Whether ``before`` wants a gradient.
    """

    block: Block
    before: Boundary
    parameters: dict[str, Array]
    gradients: dict[str, Array]
    extent: Extent
    dtype: npt.DTypeLike
    library: ProductLibrary
    gives_dx: bool


class NumpyBlock(ABC):
    """A block with its buffers; tasks are given by the index of micro-batch and chunk."""

    output: Boundary

    def __init__(self, context: Context) -> None:
        self.name = context.block.name
        self._c = context
        several = len(context.extent.microbatches) * len(context.extent.chunks) > 1
        self._scratch = (
            {name: np.empty_like(g) for name, g in context.gradients.items()}
            if several and context.extent.backward
            else None
        )
        self._has_gradient = False

    def begin_step(self) -> None:
        """The next weight gradient is the first: it overwrites."""
        self._has_gradient = False

    @abstractmethod
    def forward(self, m: int, c: int) -> float:
        """Run F; return the loss terms it made."""

    @abstractmethod
    def backward(self, m: int, c: int) -> None:
        """Run B."""

    def weight_gradient(self, m: int, c: int) -> None:
        """Run W: write the gradients the first time in a step, add to them afterwards."""
        if not self._c.gradients:
            return
        if not self._has_gradient:
            self._compute_gradient(m, c, self._c.gradients)
            self._has_gradient = True
            return
        scratch = cast("dict[str, Array]", self._scratch)
        self._compute_gradient(m, c, scratch)
        for name, gradient in self._c.gradients.items():
            np.add(gradient, scratch[name], out=gradient)

    @abstractmethod
    def _compute_gradient(self, m: int, c: int, into: dict[str, Array]) -> None:
        """Overwrite ``into`` with the gradient of one task."""

    def _input(self, m: int, c: int) -> Array:
        return self._c.before.value[m][self._c.extent.chunks[c]]


class EmbeddingBlock(NumpyBlock):
    """Tokens to vectors."""

    def __init__(self, context: Context, tokens: Sequence[Array]) -> None:
        super().__init__(context)
        self._tokens = tokens
        self.output = Boundary.allocate(context.extent, context.block.outputs, context.dtype, gradient=True)

    def forward(self, m: int, c: int) -> float:
        chunk = self._c.extent.chunks[c]
        embed(self._c.parameters["E"], self._tokens[m][chunk], self.output.value[m][chunk])
        return 0.0

    def backward(self, m: int, c: int) -> None:
        """Tokens have no gradient."""

    def _compute_gradient(self, m: int, c: int, into: dict[str, Array]) -> None:
        chunk = self._c.extent.chunks[c]
        embed_gradient(self._tokens[m][chunk], self.output.gradient[m][chunk], into["E"])


class AffineBlock(NumpyBlock):
    """``y = x W + b``: the linear input layer, and what the head is made of."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        own = context.block.kind == "linear"  # the head's scores become their own gradient
        self.output = Boundary.allocate(context.extent, context.block.outputs, context.dtype, gradient=own)

    def forward(self, m: int, c: int) -> float:
        out = as_rows(self.output.value[m][self._c.extent.chunks[c]])
        self._c.library.matmul(as_rows(self._input(m, c)), self._c.parameters["W"], out)
        np.add(out, self._c.parameters["b"], out=out)
        return 0.0

    def backward(self, m: int, c: int) -> None:
        if self._c.gives_dx:
            dx = self._c.before.gradient[m][self._c.extent.chunks[c]]
            self._c.library.matmul(as_rows(self._dy(m, c)), self._c.parameters["W"].T, as_rows(dx))

    def _compute_gradient(self, m: int, c: int, into: dict[str, Array]) -> None:
        dy = as_rows(self._dy(m, c))
        self._c.library.matmul(as_rows(self._input(m, c)).T, dy, into["W"])
        np.sum(dy, axis=0, out=into["b"])

    def _dy(self, m: int, c: int) -> Array:
        return self.output.gradient[m][self._c.extent.chunks[c]]


class HeadBlock(AffineBlock):
    """The linear head with its loss; the scores become their own gradient in the forward task."""

    def __init__(self, context: Context, loss: str) -> None:
        super().__init__(context)
        self.output = Boundary(self.output.value, self.output.value)
        self._loss = loss
        parts = len(context.extent.microbatches)
        self._targets: list[Array] = [np.empty(0)] * parts
        self._weights: list[Array | None] = [None] * parts

    def load_targets(self, m: int, targets: Array, weights: Array | None) -> None:
        """Take in a micro-batch's targets (T, B) or (T, B, O) and weights (T, B)."""
        self._targets[m] = np.ascontiguousarray(targets)
        self._weights[m] = None if weights is None else np.ascontiguousarray(weights)

    def forward(self, m: int, c: int) -> float:
        super().forward(m, c)
        chunk = self._c.extent.chunks[c]
        scores = as_rows(self.output.value[m][chunk])
        all_weights = self._weights[m]
        weights = None if all_weights is None else all_weights[chunk].ravel()
        targets = self._targets[m][chunk]
        if self._loss == "cross_entropy":
            return cross_entropy(scores, targets.ravel(), weights, self._c.extent.scale)
        return squared_error(scores, as_rows(targets), weights, self._c.extent.scale)


class CotangentBlock(NumpyBlock):
    """The loss ``scale * sum(cotangent * y)``: no parameters, and its gradient is known beforehand."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.output = context.before
        self._cotangent = context.before.gradient or [np.empty_like(v) for v in context.before.value]

    def load_targets(self, m: int, targets: Array, _: Array | None) -> None:
        """Take in a micro-batch's cotangent (T, B, H)."""
        np.multiply(targets, self._c.extent.scale, out=self._cotangent[m])

    def forward(self, m: int, c: int) -> float:
        chunk = self._c.extent.chunks[c]
        y, cotangent = self._c.before.value[m][chunk], self._cotangent[m][chunk]
        # A step at a time in the model's dtype, the steps in float64: fast, and as exact as it needs to be.
        return float(sum(float(np.dot(a.ravel(), b.ravel())) for a, b in zip(y, cotangent, strict=True)))

    def backward(self, m: int, c: int) -> None:
        """The gradient lies in the boundary since the batch was loaded."""

    def _compute_gradient(self, m: int, c: int, into: dict[str, Array]) -> None:
        """There are no parameters."""


class RecurrentBlock(NumpyBlock):
    """One recurrent layer: a tape a micro-batch, a workspace for each number of rows."""

    def __init__(self, context: Context, cell: Cell) -> None:
        super().__init__(context)
        self.cell = cell
        self.stale = True
        extent, H = context.extent, context.block.outputs
        rows = [m.stop - m.start for m in extent.microbatches]
        self.tapes = [cell.make_tape(extent.steps, B, H, context.dtype) for B in rows]
        self._windows = [[tape.window(c.start, c.stop) for c in extent.chunks] for tape in self.tapes]
        workspaces = {B: cell.make_workspace(B, H, context.dtype, context.library) for B in sorted(set(rows))}
        self._workspaces = [workspaces[B] for B in rows]
        self._distinct = list(workspaces.values())

        def states() -> list[dict[str, Array]]:
            return [{name: np.zeros((B, H), context.dtype) for name in cell.state_names} for B in rows]

        self.initial, self.cotangent, self.carry = states(), states(), states()
        value = [tape.y for tape in self.tapes]
        self.output = Boundary(value, [np.zeros_like(v) for v in value] if extent.backward else [])

    def forward(self, m: int, c: int) -> float:
        if self.stale:
            for work in self._distinct:
                self.cell.load(self._c.parameters, work, backward=self._c.extent.backward)
            self.stale = False
        window = self._windows[m][c]
        if c == 0:
            for name, state in self.initial[m].items():
                np.copyto(window.states[name][0], state)
        self.cell.forward(self._c.parameters, self._input(m, c), window, self._workspaces[m])
        return 0.0

    def backward(self, m: int, c: int) -> None:
        chunk, window, work, carry = self._c.extent.chunks[c], self._windows[m][c], self._workspaces[m], self.carry[m]
        if c == len(self._c.extent.chunks) - 1:
            for name, gradient in self.cotangent[m].items():
                np.copyto(carry[name], gradient)
        self.cell.backward(self.output.gradient[m][chunk], carry, window, work)
        if self._c.gives_dx:
            self.cell.input_gradient(self._c.parameters, window, self._c.before.gradient[m][chunk], work)

    def _compute_gradient(self, m: int, c: int, into: dict[str, Array]) -> None:
        self.cell.weight_gradient(self._input(m, c), self._windows[m][c], into, self._workspaces[m])


def make_block(
    block: Block,
    before: Boundary,
    tokens: Sequence[Array],
    parameters: dict[str, Array],
    gradients: dict[str, Array],
    extent: Extent,
    network: Network,
    library: ProductLibrary,
) -> NumpyBlock:
    """Build a block's buffers behind those of the block before it."""
    gives_dx = network.gives_dx(network.blocks.index(block))
    context = Context(block, before, parameters, gradients, extent, network.dtype, library, gives_dx)
    if block.cell is not None:
        return RecurrentBlock(context, block.cell)
    if block.kind == "embedding":
        return EmbeddingBlock(context, tokens)
    if block.kind == "linear":
        return AffineBlock(context)
    if block.kind == "cotangent":
        return CotangentBlock(context)
    return HeadBlock(context, network.loss)
