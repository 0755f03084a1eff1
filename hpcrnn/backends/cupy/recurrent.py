"""A recurrent layer of the CuPy engine: tapes, weights as the kernels take them, and time loops."""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np

from hpcrnn.backends.arena import Memory
from hpcrnn.backends.base import Extent
from hpcrnn.backends.boundaries import Boundary, UnitKey, unit_arena
from hpcrnn.backends.cupy.arithmetic import as_rows
from hpcrnn.backends.cupy.blocks import GpuBlock, GpuContext
from hpcrnn.backends.cupy.device import DeviceArray
from hpcrnn.backends.cupy.loops import Loop, make_loop, make_variant
from hpcrnn.backends.cupy.sharded_loop import ShardedLoop
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.cells import Cell
from hpcrnn.errors import LaunchError
from hpcrnn.kernels.variants import Direction, Variant

States = dict[str, DeviceArray]
"""One float32 array (B, H) a state of the cell."""


class RecurrentBlock(GpuBlock):
    """One recurrent layer: a tape a chunk of a micro-batch, two time loops for each number of rows.

    States have buffers of their own, one a micro-batch: a halo arrives in ``initial`` and leaves from ``final``, its
    gradient arrives in ``cotangent`` and leaves from ``carry``, both times ``gradient_scale``. On the first and last
    segment of time these are what their names say.

    Attributes
    ----------
    hidden : int
        H, of this shard.
    stacks : dict of str to list of float32 array (n, B, H)
        ``initial``, ``final``, ``cotangent`` and ``carry``: all states of a micro-batch in one array, one message.
    """

    def __init__(self, context: GpuContext, cell: Cell) -> None:
        super().__init__(context)
        self.cell = cell
        extent, arithmetic, width = context.extent, context.arithmetic, context.block.outputs
        self.hidden = H = extent.shard.count(width)
        samples = [extent.samples(m) for m in range(len(extent.microbatches))]
        rows = [extent.window_shape(m)[1] for m in range(len(samples))]
        self.variant = make_variant(cell, "forward", arithmetic)
        self.tapes = _make_tapes(context, self.variant)
        self._weights = GpuWeights.allocate(self.variant, context.block.inputs, H, arithmetic, width)
        self.loops = {B: self._make_loops(B, H) for B in sorted(set(rows))}
        self._of_microbatch = [self.loops[B] for B in rows]
        self.stacks = {
            role: [cp.zeros((len(cell.state_names), B, H), np.float32) for B in samples]
            for role in ("initial", "final", "cotangent", "carry")
        }
        value = {unit: tape.hidden[1:] for unit, tape in self.tapes.items()}
        own = {unit: tape.h[1:] for unit, tape in self.tapes.items()}
        self.output = Boundary(value, own, self._gradient_arrays())

    def describe(self) -> list[str]:
        """Say what runs, a line a loop: of the first number of rows, as it is made of the same in all."""
        return [loop.describe() for loop in next(iter(self.loops.values()))]

    def states(self, role: str, m: int) -> States:
        """Views of one of the stacks by the states' names."""
        return dict(zip(self.cell.state_names, self.stacks[role][m], strict=True))

    def _make_loops(self, B: int, H: int) -> list[Loop]:
        """Build the forward loop and, where there is one, the backward loop."""
        directions: tuple[Direction, ...] = ("forward", "backward") if self._c.extent.backward else ("forward",)
        return [self._make_loop(direction, B, H) for direction in directions]

    def _make_loop(self, direction: Direction, B: int, H: int) -> Loop:
        c = self._c
        if c.exchange.size == 1:
            return make_loop(self.cell, direction, B, H, c.arithmetic, c.device, c.kernel)
        if c.kernel == "persistent":
            raise LaunchError(
                "machine.kernel = persistent: not where hidden units are split over ranks; allowed is auto"
            )
        variant = make_variant(self.cell, direction, c.arithmetic)
        return ShardedLoop(variant, B, H, c.block.outputs, c.arithmetic, c.exchange, c.poll)

    def _load_parameters(self) -> None:
        self._weights.load(self._c.parameters, self._c.arithmetic)

    def forward(self, m: int, c: int) -> float:
        own, tape = self._c.extent.own_chunks, self.tapes[m, c]
        if c == own[0]:
            self._start(tape, self.states("initial", m))
        else:
            before = self.tapes[m, c - 1]
            tape.h[0] = before.h[-1]
            if tape.hidden is not tape.h:
                tape.hidden[0] = before.hidden[-1]
            if self.variant.cell == "lstm":
                tape.c[0] = before.c[-1]
        self._multiply_input(m, c)
        self._of_microbatch[m][0].forward(self._weights, tape, 0, tape.steps, training=self._c.extent.backward)
        if c == own[-1]:
            for name, state in self.states("final", m).items():
                state[...] = self.state(tape, name, tape.steps)
        return 0.0

    def _start(self, tape: GpuTape, states: States) -> None:
        """Let a tape start from float32 states."""
        self._c.arithmetic.round(states["h"], tape.h[0])
        self._c.exchange.gather(tape.h[0], tape.hidden[0])
        if "c" in states:
            tape.c[0] = states["c"]

    def state(self, tape: GpuTape, name: str, step: int) -> DeviceArray:
        """A state (B, H) before a step, in float32."""
        return tape.c[step] if name == "c" else self._c.arithmetic.widen(tape.h[step])

    def _multiply_input(self, m: int, c: int) -> None:
        self._c.arithmetic.gemm(as_rows(self._input(m, c)), self._weights.W, as_rows(self.tapes[m, c].xw))

    def backward(self, m: int, c: int) -> None:
        tape, carry = self.tapes[m, c], self.states("carry", m)
        if c == self._c.extent.own_chunks[-1]:
            self.stacks["carry"][m][...] = self.stacks["cotangent"][m]
        dy = self.output.gradient[m, c]
        self._of_microbatch[m][1].backward(self._weights, tape, 0, tape.steps, dy, carry)
        self._input_gradient(m, c)

    def _input_gradient(self, m: int, c: int) -> None:
        """Compute ``dx`` from the gate gradients, where the block before wants it."""
        context = self._c
        if not context.gives_dx:
            return
        dx, W = as_rows(context.before.gradient[m, c]), self._weights.W
        # Each shard has a part of the sum; of a layer's output its own units' whole is wanted.
        scattered = context.exchange.size > 1 and context.network.blocks[context.index - 1].is_recurrent
        into = cp.zeros((dx.shape[0], W.shape[0]), np.float32) if scattered else dx
        for beta, (slots, columns) in enumerate(self._parts(self.tapes[m, c])):
            context.arithmetic.gemm(slots, W[:, columns], into, transpose_b=True, beta=float(beta))
        if scattered:
            own = cp.zeros(dx.shape, np.float32)
            context.exchange.reduce_scatter(into, own)
            context.arithmetic.round(own, dx)

    def _parts(self, tape: GpuTape) -> list[tuple[DeviceArray, slice]]:
        """Gate gradients (T*B, n) and the columns of W and b they belong to; the GRU's dq lies between."""
        d, H = as_rows(tape.d), self.hidden
        if self.variant.n_slots == self.variant.n_gates:
            return [(d, slice(0, d.shape[1]))]
        return [(d[:, : 2 * H], slice(0, 2 * H)), (d[:, 3 * H :], slice(2 * H, 3 * H))]

    def _add_gradient(self, m: int, c: int, beta: float) -> None:
        tape, into, H = self.tapes[m, c], self._c.gradients, self.hidden
        x, h, d = as_rows(self._input(m, c)), as_rows(tape.hidden[:-1]), as_rows(tape.d)
        for slots, columns in self._parts(tape):
            self._gemm_gradient(x, slots, into["W"][:, columns], beta)
            self._sum_rows(slots, into["b"][columns], beta)
        if self.variant.reset_before:
            self._gemm_gradient(h, d[:, : 2 * H], into["R"][:, : 2 * H], beta)
            self._gemm_gradient(as_rows(tape.q), d[:, 2 * H :], into["R"][:, 2 * H :], beta)
        else:
            self._gemm_gradient(h, d[:, : into["R"].shape[1]], into["R"], beta)
        if "bR" in into:
            self._sum_rows(d[:, 2 * H : 3 * H], into["bR"], beta)


def _make_tapes(context: GpuContext, variant: Variant) -> dict[UnitKey, GpuTape]:
    """A tape a unit; those whose lives do not overlap lie in the same memory."""
    extent: Extent = context.extent
    width, backward, again = context.block.outputs, extent.backward, extent.is_folded
    H = extent.shard.count(width)
    shapes = {
        unit: GpuTape.shapes(variant, *extent.shape(*unit), H, backward=backward, again=again, width=width)
        for unit in extent.units()
    }
    float32 = Memory(np.float32, context.arithmetic.memory.zeros)
    parts: list[tuple[Memory, dict[UnitKey, list[Any]]]] = [
        (context.arithmetic.memory, {unit: list(stored.values()) for unit, (stored, _) in shapes.items()}),
        (float32, {unit: [wide] for unit, (_, wide) in shapes.items()}),
    ]
    arenas = [unit_arena(extent, "activation", context.index, memory, wanted) for memory, wanted in parts]
    return {unit: GpuTape.make(shapes[unit], *(arena.allocator(unit) for arena in arenas)) for unit in shapes}
