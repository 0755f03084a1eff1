"""The blocks around the recurrent layers on the GPU: what F, B and W do to buffers there.

As in :mod:`hpcrnn.backends.numpy.blocks`, blocks are joined by boundaries. Values and their gradients are stored in the
engine's precision, the gradients times ``gradient_scale``: a power of two that brings them to the size of one, which
keeps float16 from losing them; parameters' gradients are float32 and not scaled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Array, Extent, LayerSolve
from hpcrnn.backends.boundaries import Boundary, UnitKey, gradient_arrays, unit_arrays
from hpcrnn.backends.cupy.arithmetic import Arithmetic, as_rows
from hpcrnn.backends.cupy.device import Device, DeviceArray, launch_flat
from hpcrnn.backends.cupy.exchange import GpuExchange
from hpcrnn.kernels.plan import Kernel
from hpcrnn.methods.line import Line
from hpcrnn.model.network import Block, Network


@dataclass
class GpuContext:
    """What every block is made from.

    Attributes
    ----------
    index : int
        Of the block in the network.
    network : Network
    before : Boundary
        Where the input comes from.
    parameters, gradients : dict of str to float32 array
        Views into the flat buffers.
    extent : Extent
    arithmetic : Arithmetic
    device : Device
    kernel : {"auto", "persistent", "stepwise"}
    gradient_scale : float
    exchange : GpuExchange
        With the other shards of the hidden units.
    line : Line
        With the other windows of time.
    poll : callable
        Called once a time step.
    """

    index: int
    network: Network
    before: Boundary
    parameters: dict[str, DeviceArray]
    gradients: dict[str, DeviceArray]
    extent: Extent
    arithmetic: Arithmetic
    device: Device
    kernel: Kernel
    gradient_scale: float
    exchange: GpuExchange
    line: Line
    poll: Callable[[], None]

    @property
    def block(self) -> Block:
        """The block."""
        return self.network.blocks[self.index]

    @property
    def gives_dx(self) -> bool:
        """Whether ``before`` wants a gradient."""
        return self.network.gives_dx(self.index)


class GpuBlock(ABC):
    """A block with its buffers; tasks are given by the index of micro-batch and chunk."""

    output: Boundary

    def __init__(self, context: GpuContext) -> None:
        self.name = context.block.name
        self.stale = True
        self._c = context
        self._has_gradient = False

    def begin_step(self) -> None:
        """The next weight gradient is the first: it overwrites."""
        self._has_gradient = False

    def refresh(self) -> None:
        """Round the parameters anew where they have changed."""
        if self.stale:
            self._load_parameters()
            self.stale = False

    def solves(self) -> tuple[LayerSolve, ...]:
        """What the step's solves did, in a block that has any."""
        return ()

    def _load_parameters(self) -> None:  # noqa: B027 - a block may have none
        """Take over the float32 parameters."""

    @abstractmethod
    def forward(self, m: int, c: int) -> float:
        """Run F; return the loss terms it made."""

    @abstractmethod
    def backward(self, m: int, c: int) -> None:
        """Run B."""

    def weight_gradient(self, m: int, c: int) -> None:
        """Run W: write the gradients the first time in a step, add to them afterwards."""
        if self._c.gradients:
            self._add_gradient(m, c, 1.0 if self._has_gradient else 0.0)
            self._has_gradient = True

    @abstractmethod
    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        """Make the gradients ``beta`` times what they were, plus those of one task."""

    def _input(self, m: int, c: int) -> DeviceArray:
        return self._c.before.value[m, c]

    def _output_arrays(self) -> dict[UnitKey, DeviceArray]:
        """One array a unit for this block's output."""
        c = self._c
        return unit_arrays(c.extent, "activation", c.index, c.block.outputs, c.arithmetic.memory)[0]

    def _gradient_arrays(self) -> dict[UnitKey, DeviceArray]:
        """One array a unit for the gradient of this block's output, where there is one."""
        c = self._c
        return gradient_arrays(c.network, c.index, c.extent, c.arithmetic.memory)[0] if c.extent.backward else {}

    def _gemm_gradient(self, a: DeviceArray, d: DeviceArray, into: DeviceArray, beta: float) -> None:
        """``into = a^T d`` over all rows of a chunk, with the scale taken off."""
        alpha = 1.0 / self._c.gradient_scale
        self._c.arithmetic.gemm(a, d, into, transpose_a=True, alpha=alpha, beta=beta)

    def _sum_rows(self, d: DeviceArray, into: DeviceArray, beta: float) -> None:
        """Sum over rows: a product with ones."""
        ones = self._c.arithmetic.ones(d.shape[0])
        alpha = 1.0 / self._c.gradient_scale
        self._c.arithmetic.gemm(ones, d, into.reshape(1, -1), alpha=alpha, beta=beta)


class EmbeddingBlock(GpuBlock):
    """Tokens to vectors."""

    def __init__(self, context: GpuContext, tokens: Sequence[DeviceArray]) -> None:
        super().__init__(context)
        self._tokens = tokens
        self._table = context.arithmetic.empty(*context.parameters["E"].shape)
        value = self._output_arrays()
        self.output = Boundary(value, value, self._gradient_arrays())

    def _load_parameters(self) -> None:
        self._c.arithmetic.round(self._c.parameters["E"], self._table)

    def forward(self, m: int, c: int) -> float:
        self.output.value[m, c][...] = self._table[self._tokens[m][self._c.extent.local(c)]]
        return 0.0

    def backward(self, m: int, c: int) -> None:
        """Tokens have no gradient."""

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        """Add up the gradients of equal tokens in a fixed order, as a product with one-hot rows."""
        tokens = self._tokens[m][self._c.extent.local(c)].ravel()
        one_hot = self._c.arithmetic.zeros(tokens.size, self._table.shape[0])
        one_hot[cp.arange(tokens.size), tokens] = self._c.arithmetic.ones(1)[0, 0]
        self._gemm_gradient(one_hot, as_rows(self.output.gradient[m, c]), self._c.gradients["E"], beta)


class AffineBlock(GpuBlock):
    """``y = x W + b``: the linear input layer, and what the head is made of."""

    def __init__(self, context: GpuContext) -> None:
        super().__init__(context)
        self._W = context.arithmetic.empty(*context.parameters["W"].shape)
        self._make_output()

    def _make_output(self) -> None:
        value = self._output_arrays()
        self.output = Boundary(value, value, self._gradient_arrays())

    def _load_parameters(self) -> None:
        self._c.arithmetic.round(self._c.parameters["W"], self._W)

    def _scores(self, m: int, c: int) -> DeviceArray:
        """Compute ``x W`` in float32, (T*B, N)."""
        x = as_rows(self._input(m, c))
        scores = cp.zeros((x.shape[0], self._W.shape[1]), np.float32)
        self._c.arithmetic.gemm(x, self._W, scores)
        self._complete(scores)
        return scores

    def _complete(self, scores: DeviceArray) -> None:
        """Make the product whole where a shard has only a part of it."""

    def forward(self, m: int, c: int) -> float:
        scores, out = self._scores(m, c), self.output.value[m, c]
        sizes = np.int64(scores.size), np.int32(scores.shape[1])
        add_bias = self._c.arithmetic.kernel("add_bias")
        launch_flat(add_bias, scores.size, (scores, self._c.parameters["b"], out, *sizes))
        return 0.0

    def backward(self, m: int, c: int) -> None:
        if self._c.gives_dx:
            dx = self._c.before.gradient[m, c]
            self._c.arithmetic.gemm(self._dy(m, c), self._W, as_rows(dx), transpose_b=True)

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        dy = self._dy(m, c)
        self._gemm_gradient(as_rows(self._input(m, c)), dy, self._c.gradients["W"], beta)
        self._sum_rows(dy, self._c.gradients["b"], beta)

    def _dy(self, m: int, c: int) -> DeviceArray:
        return as_rows(self.output.gradient[m, c])


class HeadBlock(AffineBlock):
    """The linear head with its loss: the forward task leaves the gradient of the scores.

    A shard multiplies its own units, the scores are summed over the shards, and one of them counts its loss.
    """

    def __init__(self, context: GpuContext, loss: str) -> None:
        super().__init__(context)
        self._loss = loss
        parts = len(context.extent.microbatches)
        self._targets: list[DeviceArray] = [cp.empty(0)] * parts
        self._weights: list[DeviceArray | None] = [None] * parts

    def _make_output(self) -> None:
        # The gradient lives as long as the scores would.
        self.output = Boundary({}, {}, self._output_arrays())

    def load_targets(self, m: int, targets: Array, weights: Array | None) -> None:
        """Take in a micro-batch's targets (T, B) or (T, B, O) and weights (T, B)."""
        kind = np.int32 if self._loss == "cross_entropy" else np.float32
        self._targets[m] = cp.asarray(np.ascontiguousarray(targets, kind))
        self._weights[m] = None if weights is None else cp.asarray(np.ascontiguousarray(weights, np.float32))

    def forward(self, m: int, c: int) -> float:
        extent = self._c.extent
        chunk, scores, gradient = extent.local(c), self._scores(m, c), self.output.gradient[m, c]
        rows, columns = scores.shape
        all_weights = self._weights[m]
        weights = np.intp(0) if all_weights is None else all_weights[chunk]
        inputs = scores, self._c.parameters["b"], self._targets[m][chunk], weights, gradient
        scale = np.float32(extent.scale * self._c.gradient_scale)
        kernel = self._c.arithmetic.kernel(self._loss)
        if self._loss == "cross_entropy":
            terms = cp.empty(rows, np.float64)
            kernel((rows, 1, 1), (128, 1, 1), (*inputs, terms, scale, np.int32(columns)))
        else:
            terms = cp.empty(rows * columns, np.float64)
            launch_flat(kernel, terms.size, (*inputs, terms, scale, np.int64(terms.size), np.int32(columns)))
        return float(terms.sum()) * extent.scale if self._c.exchange.rank == 0 else 0.0

    def _complete(self, scores: DeviceArray) -> None:
        self._c.exchange.sum(scores)

    def _input(self, m: int, c: int) -> DeviceArray:
        return self._c.before.own[m, c]


class CotangentBlock(GpuBlock):
    """The loss ``scale * sum(cotangent * y)``: no parameters, and its gradient is known beforehand."""

    def __init__(self, context: GpuContext) -> None:
        super().__init__(context)
        self.output = Boundary({}, {}, {})
        self._cotangent = {unit: cp.zeros(v.shape, np.float32) for unit, v in context.before.own.items()}

    def load_targets(self, m: int, targets: Array, _: Array | None) -> None:
        """Take in a micro-batch's cotangent (T, B, H)."""
        units = self._c.extent.shard.units(self._c.block.inputs)
        for c in self._c.extent.own_chunks:
            part = targets[self._c.extent.local(c)][..., units]
            self._cotangent[m, c].set(np.ascontiguousarray(part, np.float32))
            if self._c.before.gradient:
                scale = self._c.extent.scale * self._c.gradient_scale
                self._c.arithmetic.round(self._cotangent[m, c], self._c.before.gradient[m, c], scale)

    def forward(self, m: int, c: int) -> float:
        y, terms = self._c.before.own[m, c], cp.empty(self._cotangent[m, c].size, np.float64)
        kernel = self._c.arithmetic.kernel("inner_product")
        launch_flat(kernel, y.size, (y, self._cotangent[m, c], terms, np.int64(y.size)))
        return float(terms.sum()) * self._c.extent.scale

    def backward(self, m: int, c: int) -> None:
        """The gradient lies in the boundary since the batch was loaded."""

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        """There are no parameters."""
