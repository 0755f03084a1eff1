"""The blocks of the NumPy engine: what F, B and W do to its buffers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hpcrnn.backends.arena import Arena, Memory
from hpcrnn.backends.base import Array, Extent, LayerSolve
from hpcrnn.backends.boundaries import (
    Boundary,
    UnitKey,
    gradient_arrays,
    holds_cotangent,
    unit_arena,
    unit_arrays,
)
from hpcrnn.backends.filling import Filling
from hpcrnn.cells import Cell, Tape
from hpcrnn.cells.base import as_rows, sum_rows
from hpcrnn.cells.exchange import Exchange
from hpcrnn.cells.products import ProductLibrary
from hpcrnn.cells.starts import starts_of
from hpcrnn.methods.line import Line
from hpcrnn.model.layers import cross_entropy, embed, embed_gradient, squared_error
from hpcrnn.model.network import Block, Network

States = dict[str, Array]
"""One array (B, H) a state of the cell."""


@dataclass
class Context:
    """What every block is made from.

    Attributes
    ----------
    index : int
        Of the block in the network.
    network : Network
    before : Boundary
        Where the input comes from.
    parameters, gradients : dict of str to array
        Views into the flat buffers.
    extent : Extent
    library : ProductLibrary
    exchange : Exchange
        With the other shards.
    line : Line
        With the other windows of time.
    filling : Filling
        What the batch at hand fills of all this.
    poll : callable
        Called once a time step.
    """

    index: int
    network: Network
    before: Boundary
    parameters: dict[str, Array]
    gradients: dict[str, Array]
    extent: Extent
    library: ProductLibrary
    exchange: Exchange
    line: Line
    filling: Filling
    poll: Callable[[], None]

    @property
    def block(self) -> Block:
        """The block."""
        return self.network.blocks[self.index]

    @property
    def dtype(self) -> npt.DTypeLike:
        """Of everything that is computed."""
        return self.network.dtype

    @property
    def memory(self) -> Memory:
        """Where buffers lie."""
        return Memory(self.network.dtype)

    @property
    def gives_dx(self) -> bool:
        """Whether ``before`` wants a gradient."""
        return self.network.gives_dx(self.index)


class NumpyBlock(ABC):
    """A block with its buffers; tasks are given by the index of micro-batch and chunk."""

    output: Boundary

    def __init__(self, context: Context) -> None:
        self.name = context.block.name
        self._c = context
        self._has_gradient = False
        self._dx_partial = self._make_dx_partial()

    def begin_step(self) -> None:
        """The next weight gradient is the first: it overwrites."""
        self._has_gradient = False

    def solves(self) -> tuple[LayerSolve, ...]:
        """What the step's solves did, in a block that has any."""
        return ()

    def _run(self, arrays: Mapping[UnitKey, Array], m: int, c: int) -> Array:
        """The steps of a chunk's array that are run: all, but for padding."""
        return self._c.filling.view(arrays[m, c], m, c)

    def _run_of_window(self, array: Array, m: int, c: int) -> Array:
        """The same of an array of the micro-batch's whole window."""
        return self._c.filling.view(array[self._c.extent.local(c)], m, c)

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
        if self._c.filling.steps(m, c):
            self._compute_gradient(m, c, accumulate=self._has_gradient)
        elif not self._has_gradient:
            for gradient in self._c.gradients.values():
                gradient[...] = 0
        self._has_gradient = True

    @abstractmethod
    def _compute_gradient(self, m: int, c: int, *, accumulate: bool) -> None:
        """Overwrite, or add to, the gradients with those of one task."""

    def _make_dx_partial(self) -> Array | None:
        """Scratch for this shard's part of ``dx``, where the sum over the shards is to be scattered."""
        c = self._c
        scattered = c.index > 0 and c.network.blocks[c.index - 1].is_recurrent and c.block.is_recurrent
        if c.exchange.size == 1 or not scattered or not c.extent.backward:
            return None
        largest = max(steps * rows for steps, rows in (c.extent.shape(*unit) for unit in c.extent.units()))
        return np.empty((largest, c.block.inputs), c.dtype)

    def _gradient_arrays(self) -> tuple[dict[UnitKey, Array], list[Arena[UnitKey]]]:
        """Gradients of this block's output; a cotangent makes the loss too, so it is there in every mode."""
        c = self._c
        if not c.extent.backward and not holds_cotangent(c.network, c.index):
            return {}, []
        arrays, arena = gradient_arrays(c.network, c.index, c.extent, c.memory)
        return arrays, [arena]

    @property
    def memory_bytes(self) -> int:
        """What this block has allocated beside parameters and gradients."""
        return self.output.memory_bytes + (0 if self._dx_partial is None else self._dx_partial.nbytes)


class EmbeddingBlock(NumpyBlock):
    """Tokens to vectors."""

    def __init__(self, context: Context, tokens: Sequence[Array]) -> None:
        super().__init__(context)
        self._tokens = tokens
        width = context.block.outputs
        value, arena = unit_arrays(context.extent, "activation", context.index, width, context.memory)
        gradient, arenas = self._gradient_arrays()
        self.output = Boundary(value, value, gradient, [arena, *arenas])

    def forward(self, m: int, c: int) -> float:
        embed(self._c.parameters["E"], self._run_of_window(self._tokens[m], m, c), self._run(self.output.value, m, c))
        return 0.0

    def backward(self, m: int, c: int) -> None:
        """Tokens have no gradient."""

    def _compute_gradient(self, m: int, c: int, *, accumulate: bool) -> None:
        tokens, dy = self._run_of_window(self._tokens[m], m, c), self._run(self.output.gradient, m, c)
        embed_gradient(tokens, dy, self._c.gradients["E"], self._c.filling.held(m, c), accumulate=accumulate)


class AffineBlock(NumpyBlock):
    """``y = x W + b``: the linear input layer, and what the head is made of."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        width = context.block.outputs
        value, arena = unit_arrays(context.extent, "activation", context.index, width, context.memory)
        # The head's scores become their own gradient.
        gradient, arenas = self._gradient_arrays() if context.block.kind == "linear" else (value, [])
        self.output = Boundary(value, value, gradient, [arena, *arenas])
        self._sums = np.empty(width, context.dtype)

    def forward(self, m: int, c: int) -> float:
        out = as_rows(self._run(self.output.value, m, c))
        self._c.library.matmul(as_rows(self._input(m, c)), self._c.parameters["W"], out)
        self._complete(out)
        np.add(out, self._c.parameters["b"], out=out)
        return 0.0

    def _complete(self, out: Array) -> None:
        """Make the product whole where a shard has only a part of it."""

    def _input(self, m: int, c: int) -> Array:
        return self._run(self._c.before.value, m, c)

    def backward(self, m: int, c: int) -> None:
        if self._c.gives_dx and self._c.filling.steps(m, c):
            dx, dy = self._run(self._c.before.gradient, m, c), self._run(self.output.gradient, m, c)
            self._c.library.matmul(as_rows(dy), self._c.parameters["W"].T, as_rows(dx))

    def _compute_gradient(self, m: int, c: int, *, accumulate: bool) -> None:
        dy = as_rows(self._run(self.output.gradient, m, c))
        into = self._c.gradients
        self._c.library.matmul(as_rows(self._input(m, c)).T, dy, into["W"], accumulate=accumulate)
        sum_rows(dy, into["b"], self._sums, accumulate=accumulate)


class HeadBlock(AffineBlock):
    """The linear head with its loss; the scores become their own gradient in the forward task.

    A shard multiplies its own hidden units with its own rows of W; the scores are summed over the shards, and
    every shard computes the loss, of which one is counted.
    """

    def __init__(self, context: Context, loss: str) -> None:
        super().__init__(context)
        self._loss = loss
        parts = len(context.extent.microbatches)
        self._targets: list[Array] = [np.empty(0)] * parts
        self._weights: list[Array | None] = [None] * parts
        width = () if loss == "cross_entropy" else (context.block.outputs,)
        wanted = context.extent.mode == "forward"
        shapes = [(*context.extent.window_shape(m), *width) for m in range(parts)] if wanted else []
        self.predictions: list[Array] = [np.zeros(shape) for shape in shapes]

    @property
    def memory_bytes(self) -> int:
        """What this block has allocated beside parameters and gradients."""
        return super().memory_bytes + sum(array.nbytes for array in self.predictions)

    def load_targets(self, m: int, targets: Array, weights: Array | None) -> None:
        """Take in a micro-batch's targets (T, B) or (T, B, O) and weights (T, B)."""
        self._targets[m] = np.ascontiguousarray(targets)
        self._weights[m] = None if weights is None else np.ascontiguousarray(weights)

    def forward(self, m: int, c: int) -> float:
        super().forward(m, c)
        scores = as_rows(self._run(self.output.value, m, c))
        all_weights = self._weights[m]
        weights = None if all_weights is None else self._run_of_window(all_weights, m, c).ravel()
        targets = self._run_of_window(self._targets[m], m, c)
        told = self._run_of_window(self.predictions[m], m, c) if self.predictions else None
        if self._loss == "cross_entropy":
            flat = None if told is None else told.reshape(-1)
            loss = cross_entropy(scores, targets.ravel(), weights, self._c.extent.scale, flat)
        else:
            if told is not None:
                told[...] = scores.reshape(told.shape)
            loss = squared_error(scores, as_rows(targets), weights, self._c.extent.scale)
        return loss if self._c.exchange.rank == 0 else 0.0

    def _complete(self, out: Array) -> None:
        self._c.exchange.sum(out)

    def _input(self, m: int, c: int) -> Array:
        return self._run(self._c.before.own, m, c)


class CotangentBlock(NumpyBlock):
    """The loss ``scale * sum(cotangent * y)``: no parameters, and its gradient is known beforehand."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.output = Boundary({}, {}, {})

    def load_targets(self, m: int, targets: Array, _: Array | None) -> None:
        """Take in a micro-batch's cotangent (T, B, H)."""
        units = self._c.extent.shard.units(self._c.block.inputs)
        for c in self._c.extent.own_chunks:
            part = targets[self._c.extent.local(c)][..., units]
            np.multiply(part, self._c.extent.scale, out=self._c.before.gradient[m, c])

    def forward(self, m: int, c: int) -> float:
        y, cotangent = self._c.before.own[m, c], self._c.before.gradient[m, c]
        # A step at a time in the model's dtype, the steps in float64: fast, and as exact as it needs to be.
        return float(sum(float(np.dot(a.ravel(), b.ravel())) for a, b in zip(y, cotangent, strict=True)))

    def backward(self, m: int, c: int) -> None:
        """The gradient lies in the boundary since the batch was loaded."""

    def _compute_gradient(self, m: int, c: int, *, accumulate: bool) -> None:
        """There are no parameters."""


class RecurrentBlock(NumpyBlock):
    """One recurrent layer: a tape a chunk of a micro-batch, a workspace for each number of rows.

    States have buffers of their own, one a micro-batch: a halo arrives in ``initial`` and leaves from ``final``,
    its gradient arrives in ``cotangent`` and leaves from ``carry``.  On the first and last segment of time these
    are what their names say.

    Attributes
    ----------
    initial, final, cotangent, carry : list of States
        One a micro-batch.

    Where rows are of unequal length ``final`` is the state after a row's own last step, and ``cotangent`` is not read.
    """

    def __init__(self, context: Context, cell: Cell) -> None:
        super().__init__(context)
        self.cell = cell
        self.stale = True
        extent, width, dtype = context.extent, context.block.outputs, context.dtype
        H = extent.shard.count(width)
        samples = [extent.samples(m) for m in range(len(extent.microbatches))]
        rows = [extent.window_shape(m)[1] for m in range(len(samples))]
        shapes = {unit: list(cell.tape_shapes(*extent.shape(*unit), H, width).values()) for unit in extent.units()}
        arena = unit_arena(extent, "activation", context.index, context.memory, shapes)
        self._run_tapes: dict[UnitKey, Tape] = {}
        self.tapes: dict[UnitKey, Tape] = {
            unit: cell.make_tape(*extent.shape(*unit), H, dtype, width, arena.allocator(unit)) for unit in shapes
        }
        workspaces = {
            B: cell.make_workspace(B, H, dtype, context.library, width, context.exchange, context.poll)
            for B in sorted(set(rows))
        }
        self._workspaces = [workspaces[B] for B in rows]
        self._distinct = list(workspaces.values())

        def states() -> list[States]:
            # All states of a micro-batch in one array: a halo is then one message.
            stacks = [np.zeros((len(cell.state_names), B, H), dtype) for B in samples]
            return [dict(zip(cell.state_names, stack, strict=True)) for stack in stacks]

        self.initial, self.final, self.cotangent, self.carry = states(), states(), states(), states()
        gradient, arenas = self._gradient_arrays()
        own = {unit: tape.states["h"][1:] for unit, tape in self.tapes.items()}
        self.output = Boundary({unit: tape.y for unit, tape in self.tapes.items()}, own, gradient, [arena, *arenas])

    def _lay_out_weights(self) -> None:
        """Load the recurrent weights, if they have changed."""
        if self.stale:
            for work in self._distinct:
                self.cell.load(self._c.parameters, work, backward=self._c.extent.backward)
            self.stale = False

    def begin_step(self) -> None:
        super().begin_step()
        self._run_tapes.clear()

    def _tape(self, m: int, c: int) -> Tape:
        """The steps of a tape that are run, and where sequences start in them."""
        filling, tape = self._c.filling, self.tapes[m, c]
        if not filling.is_ragged:
            return tape
        if (m, c) not in self._run_tapes:
            tape, where = tape.window(0, filling.steps(m, c)), filling.starts(m, c)
            starts = tape.starts if where is None else starts_of(where, tape.states)
            self._run_tapes[m, c] = replace(tape, starts=starts)
        return self._run_tapes[m, c]

    def forward(self, m: int, c: int) -> float:
        self._lay_out_weights()
        tape, own = self._tape(m, c), self._c.extent.own_chunks
        for name, state in tape.states.items():
            np.copyto(state[0], self.initial[m][name] if c == own[0] else self.tapes[m, c - 1].states[name][-1])
        self.cell.forward(self._c.parameters, self._run(self._c.before.value, m, c), tape, self._workspaces[m])
        self._keep_final(m, c, tape)
        return 0.0

    def _keep_final(self, m: int, c: int, tape: Tape) -> None:
        """Keep the states after the last step, that of each row's own where rows are of unequal length."""
        if self._c.filling.is_ragged:
            rows, after = self._c.filling.ends(m, c)
            for name, state in tape.states.items():
                self.final[m][name][rows] = state[after, rows]
        elif c == self._c.extent.own_chunks[-1]:
            for name, state in tape.states.items():
                np.copyto(self.final[m][name], state[-1])

    def backward(self, m: int, c: int) -> None:
        """Run B; nothing wants a gradient of the last state of a row that ends before the others."""
        tape, work, carry = self._tape(m, c), self._workspaces[m], self.carry[m]
        if c == self._c.extent.own_chunks[-1]:
            for name, gradient in self.cotangent[m].items():
                np.copyto(carry[name], 0 if self._c.filling.is_ragged else gradient)
        if self._c.filling.steps(m, c):
            self.cell.backward(self._run(self.output.gradient, m, c), carry, tape, work)
            self._input_gradient(m, c)

    def _input_gradient(self, m: int, c: int) -> None:
        """Compute ``dx`` from the gate gradients, where the block before wants it."""
        tape, work = self._tape(m, c), self._workspaces[m]
        if not self._c.gives_dx:
            return
        dx = self._run(self._c.before.gradient, m, c)
        if self._dx_partial is None:
            self.cell.input_gradient(self._c.parameters, tape, dx, work)
        else:
            partial = self._dx_partial[: len(as_rows(dx))].reshape(*dx.shape[:2], -1)
            self.cell.input_gradient(self._c.parameters, tape, partial, work)
            self._c.exchange.reduce_scatter(as_rows(partial), as_rows(dx))

    def _compute_gradient(self, m: int, c: int, *, accumulate: bool) -> None:
        x, tape = self._run(self._c.before.value, m, c), self._tape(m, c)
        self.cell.weight_gradient(x, tape, self._c.gradients, self._workspaces[m], accumulate=accumulate)

    @property
    def memory_bytes(self) -> int:
        """What this block has allocated beside parameters and gradients."""
        rows = (*self.initial, *self.final, *self.cotangent, *self.carry)
        states = [array for states in rows for array in states.values()]
        scratch = [array for work in self._distinct for array in (work.bias, *work.scratch.values())]
        return super().memory_bytes + sum(array.nbytes for array in states + scratch)


def make_block(context: Context, tokens: Sequence[Array]) -> NumpyBlock:
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
    return HeadBlock(context, context.network.loss)
