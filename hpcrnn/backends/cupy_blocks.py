"""The blocks of the CuPy engine: what F, B and W do to buffers on the GPU.

As in ``numpy_blocks``, blocks are joined by boundaries. Values and their gradients are stored in the engine's
precision, the gradients times ``gradient_scale``: a power of two that brings them to the size of one, which keeps
float16 from losing them; parameters' gradients are float32 and not scaled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Array, Extent
from hpcrnn.backends.cupy_arithmetic import Arithmetic, as_rows
from hpcrnn.backends.cupy_device import Device, DeviceArray, launch_flat
from hpcrnn.backends.cupy_loops import GpuTape, GpuWeights, Loop, make_loop, make_variant
from hpcrnn.cells import Cell
from hpcrnn.kernels.plan import Kernel
from hpcrnn.model.network import Block, Network


@dataclass(frozen=True)
class GpuBoundary:
    """What passes between two blocks.

    Attributes
    ----------
    value, gradient : list of array (T, B, N)
        One a micro-batch; no gradients where none are needed.
    """

    value: list[DeviceArray]
    gradient: list[DeviceArray]

    @classmethod
    def allocate(cls, extent: Extent, width: int, arithmetic: Arithmetic, *, gradient: bool) -> GpuBoundary:
        """Allocate arrays of zeros."""
        value = [arithmetic.zeros(extent.steps, m.stop - m.start, width) for m in extent.microbatches]
        return cls(value, [cp.zeros_like(v) for v in value] if gradient and extent.backward else [])


@dataclass
class GpuContext:
    """What every block is made from.

    Attributes
    ----------
    block : Block
    before : GpuBoundary
        Where the input comes from.
    parameters, gradients : dict of str to float32 array
        Views into the flat buffers.
    extent : Extent
    arithmetic : Arithmetic
    device : Device
    kernel : {"auto", "persistent", "stepwise"}
    gradient_scale : float
    gives_dx : bool
        Whether ``before`` wants a gradient.
    """

    block: Block
    before: GpuBoundary
    parameters: dict[str, DeviceArray]
    gradients: dict[str, DeviceArray]
    extent: Extent
    arithmetic: Arithmetic
    device: Device
    kernel: Kernel
    gradient_scale: float
    gives_dx: bool


class GpuBlock(ABC):
    """A block with its buffers; tasks are given by the index of micro-batch and chunk."""

    output: GpuBoundary

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
        return self._c.before.value[m][self._c.extent.chunks[c]]

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
        self.output = GpuBoundary.allocate(context.extent, context.block.outputs, context.arithmetic, gradient=True)

    def _load_parameters(self) -> None:
        self._c.arithmetic.round(self._c.parameters["E"], self._table)

    def forward(self, m: int, c: int) -> float:
        chunk = self._c.extent.chunks[c]
        self.output.value[m][chunk] = self._table[self._tokens[m][chunk]]
        return 0.0

    def backward(self, m: int, c: int) -> None:
        """Tokens have no gradient."""

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        """Add up the gradients of equal tokens in a fixed order, as a product with one-hot rows."""
        chunk = self._c.extent.chunks[c]
        tokens = self._tokens[m][chunk].ravel()
        one_hot = self._c.arithmetic.zeros(tokens.size, self._table.shape[0])
        one_hot[cp.arange(tokens.size), tokens] = self._c.arithmetic.ones(1)[0, 0]
        self._gemm_gradient(one_hot, as_rows(self.output.gradient[m][chunk]), self._c.gradients["E"], beta)


class AffineBlock(GpuBlock):
    """``y = x W + b``: the linear input layer, and what the head is made of."""

    def __init__(self, context: GpuContext) -> None:
        super().__init__(context)
        self._W = context.arithmetic.empty(*context.parameters["W"].shape)
        self._make_output()

    def _make_output(self) -> None:
        self.output = GpuBoundary.allocate(
            self._c.extent, self._c.block.outputs, self._c.arithmetic, gradient=self._c.extent.backward
        )

    def _load_parameters(self) -> None:
        self._c.arithmetic.round(self._c.parameters["W"], self._W)

    def _scores(self, m: int, c: int) -> DeviceArray:
        """Compute ``x W`` in float32, (T*B, N)."""
        x = as_rows(self._input(m, c))
        scores = cp.empty((x.shape[0], self._W.shape[1]), np.float32)
        self._c.arithmetic.gemm(x, self._W, scores)
        return scores

    def forward(self, m: int, c: int) -> float:
        scores, out = self._scores(m, c), self.output.value[m][self._c.extent.chunks[c]]
        sizes = np.int64(scores.size), np.int32(scores.shape[1])
        add_bias = self._c.arithmetic.kernel("add_bias")
        launch_flat(add_bias, scores.size, (scores, self._c.parameters["b"], out, *sizes))
        return 0.0

    def backward(self, m: int, c: int) -> None:
        if self._c.gives_dx:
            dx = self._c.before.gradient[m][self._c.extent.chunks[c]]
            self._c.arithmetic.gemm(self._dy(m, c), self._W, as_rows(dx), transpose_b=True)

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        dy = self._dy(m, c)
        self._gemm_gradient(as_rows(self._input(m, c)), dy, self._c.gradients["W"], beta)
        self._sum_rows(dy, self._c.gradients["b"], beta)

    def _dy(self, m: int, c: int) -> DeviceArray:
        return as_rows(self.output.gradient[m][self._c.extent.chunks[c]])


class HeadBlock(AffineBlock):
    """The linear head with its loss: the forward task leaves the gradient of the scores."""

    def __init__(self, context: GpuContext, loss: str) -> None:
        super().__init__(context)
        self._loss = loss
        parts = len(context.extent.microbatches)
        self._targets: list[DeviceArray] = [cp.empty(0)] * parts
        self._weights: list[DeviceArray | None] = [None] * parts

    def _make_output(self) -> None:
        made = GpuBoundary.allocate(self._c.extent, self._c.block.outputs, self._c.arithmetic, gradient=False)
        self.output = GpuBoundary([], made.value)

    def load_targets(self, m: int, targets: Array, weights: Array | None) -> None:
        """Take in a micro-batch's targets (T, B) or (T, B, O) and weights (T, B)."""
        kind = np.int32 if self._loss == "cross_entropy" else np.float32
        self._targets[m] = cp.asarray(np.ascontiguousarray(targets, kind))
        self._weights[m] = None if weights is None else cp.asarray(np.ascontiguousarray(weights, np.float32))

    def forward(self, m: int, c: int) -> float:
        chunk, extent = self._c.extent.chunks[c], self._c.extent
        scores, gradient = self._scores(m, c), self.output.gradient[m][chunk]
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
        return float(terms.sum()) * extent.scale


class CotangentBlock(GpuBlock):
    """The loss ``scale * sum(cotangent * y)``: no parameters, and its gradient is known beforehand."""

    def __init__(self, context: GpuContext) -> None:
        super().__init__(context)
        self.output = context.before
        self._cotangent = [cp.zeros(v.shape, np.float32) for v in context.before.value]

    def load_targets(self, m: int, targets: Array, _: Array | None) -> None:
        """Take in a micro-batch's cotangent (T, B, H)."""
        self._cotangent[m].set(np.ascontiguousarray(targets, np.float32))
        if self._c.before.gradient:
            scale = self._c.extent.scale * self._c.gradient_scale
            self._c.arithmetic.round(self._cotangent[m], self._c.before.gradient[m], scale)

    def forward(self, m: int, c: int) -> float:
        y, cotangent = self._input(m, c), self._cotangent[m][self._c.extent.chunks[c]]
        terms = cp.empty(y.size, np.float64)
        launch_flat(self._c.arithmetic.kernel("inner_product"), y.size, (y, cotangent, terms, np.int64(y.size)))
        return float(terms.sum()) * self._c.extent.scale

    def backward(self, m: int, c: int) -> None:
        """The gradient lies in the boundary since the batch was loaded."""

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        """There are no parameters."""


class RecurrentBlock(GpuBlock):
    """One recurrent layer: a tape a micro-batch, two time loops for each number of rows."""

    def __init__(self, context: GpuContext, cell: Cell) -> None:
        super().__init__(context)
        self.cell = cell
        extent, arithmetic, H = context.extent, context.arithmetic, context.block.outputs
        rows = [m.stop - m.start for m in extent.microbatches]
        variant = make_variant(cell, "forward", arithmetic)
        self.tapes = [GpuTape.allocate(variant, extent.steps, B, H, arithmetic, backward=extent.backward) for B in rows]
        self._weights = GpuWeights.allocate(variant, context.block.inputs, H, arithmetic)
        self.loops = {B: self._make_loops(B, H) for B in sorted(set(rows))}
        self._of_microbatch = [self.loops[B] for B in rows]

        def states() -> list[dict[str, DeviceArray]]:
            return [{name: cp.zeros((B, H), np.float32) for name in cell.state_names} for B in rows]

        self.initial, self.cotangent, self.carry = states(), states(), states()
        value = [tape.h[1:] for tape in self.tapes]
        self.output = GpuBoundary(value, [cp.zeros_like(v) for v in value] if extent.backward else [])

    def _make_loops(self, B: int, H: int) -> list[Loop]:
        """Build the forward loop and, where there is one, the backward loop."""
        context = self._c
        rest = B, H, context.arithmetic, context.device, context.kernel
        loops = [make_loop(self.cell, "forward", *rest)]
        return [*loops, make_loop(self.cell, "backward", *rest)] if context.extent.backward else loops

    def _load_parameters(self) -> None:
        self._weights.load(self._c.parameters, self._c.arithmetic)

    def state(self, m: int, name: str, step: int) -> DeviceArray:
        """A state (B, H) before a step, in float32."""
        tape = self.tapes[m]
        return tape.c[step] if name == "c" else self._c.arithmetic.widen(tape.h[step])

    def forward(self, m: int, c: int) -> float:
        chunk, tape = self._c.extent.chunks[c], self.tapes[m]
        if c == 0:
            self._c.arithmetic.round(self.initial[m]["h"], tape.h[0])
            if "c" in self.initial[m]:
                tape.c[0] = self.initial[m]["c"]
        self._c.arithmetic.gemm(as_rows(self._input(m, c)), self._weights.W, as_rows(tape.gates[chunk]))
        training = self._c.extent.backward
        self._of_microbatch[m][0].forward(self._weights, tape, chunk.start, chunk.stop, training=training)
        return 0.0

    def backward(self, m: int, c: int) -> None:
        chunk, tape, carry = self._c.extent.chunks[c], self.tapes[m], self.carry[m]
        if c == len(self._c.extent.chunks) - 1:
            for name, gradient in self.cotangent[m].items():
                carry[name][...] = gradient
        dy = self.output.gradient[m]
        self._of_microbatch[m][1].backward(self._weights, tape, chunk.start, chunk.stop, dy, carry)
        if self._c.gives_dx:
            dx, W = as_rows(self._c.before.gradient[m][chunk]), self._weights.W
            for beta, (slots, columns) in enumerate(self._parts(tape, chunk)):
                self._c.arithmetic.gemm(slots, W[:, columns], dx, transpose_b=True, beta=float(beta))

    def _parts(self, tape: GpuTape, chunk: slice) -> list[tuple[DeviceArray, slice]]:
        """Gate gradients (T*B, n) and the columns of W and b they belong to; the GRU's dq lies between."""
        d, H = as_rows(tape.d[chunk]), self._c.block.outputs
        if self.cell.name != "gru":
            return [(d, slice(0, d.shape[1]))]
        return [(d[:, : 2 * H], slice(0, 2 * H)), (d[:, 3 * H :], slice(2 * H, 3 * H))]

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        chunk, tape, into = self._c.extent.chunks[c], self.tapes[m], self._c.gradients
        x, h, d, H = as_rows(self._input(m, c)), as_rows(tape.h[chunk]), as_rows(tape.d[chunk]), self._c.block.outputs
        for slots, columns in self._parts(tape, chunk):
            self._gemm_gradient(x, slots, into["W"][:, columns], beta)
            self._sum_rows(slots, into["b"][columns], beta)
        self._gemm_gradient(h, d[:, : into["R"].shape[1]], into["R"], beta)
        if "bR" in into:
            self._sum_rows(d[:, 2 * H : 3 * H], into["bR"], beta)


def make_block(context: GpuContext, tokens: Sequence[DeviceArray], network: Network) -> GpuBlock:
    """Build a block's buffers behind those of the block before it."""
    block = context.block
    if block.cell is not None:
        return RecurrentBlock(context, block.cell)
    if block.kind == "embedding":
        return EmbeddingBlock(context, tokens)
    if block.kind == "linear":
        return AffineBlock(context)
    if block.kind == "cotangent":
        return CotangentBlock(context)
    return HeadBlock(context, network.loss)
