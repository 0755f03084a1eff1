"""The time loop of a layer on the GPU, in two ways: one persistent kernel a chunk, or a GEMM and a kernel a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import cupy as cp
import numpy as np

from hpcrnn.backends.arena import Allocate, Shape
from hpcrnn.backends.cupy_arithmetic import Arithmetic
from hpcrnn.backends.cupy_device import (
    Device,
    DeviceArray,
    PersistentKernel,
    launch_flat,
    load_kernel,
    sorted_macros,
)
from hpcrnn.backends.cupy_exchange import GpuExchange
from hpcrnn.errors import LaunchError
from hpcrnn.kernels.plan import Kernel, make_plan
from hpcrnn.kernels.variants import Direction, Variant

GRAPH_STEPS = (64, 8, 1)
"""Steps in a captured graph: long ones hide the launch, short ones take what is left; a step by hand takes ten times
as long as one in a graph."""


@dataclass(frozen=True)
class GpuTape:
    """What the forward pass leaves for the backward pass; shapes as in ``persistent.cu``.

    Attributes
    ----------
    xw : array (T, B, G*H)
        ``x W``; the memory of ``gates``, unless the steps are to be run again.
    gates : array (T, B, G*H)
    h : array (T + 1, B, H)
    hidden : array (T + 1, B, N)
        ``h`` of all shards; the memory of ``h`` where there is one.
    c : float32 array (T + 1, B, H)
        LSTM only; elsewhere one element.
    q : array (T, B, H)
        GRU only.
    d : array (T, B, SLOTS*H)
    """

    xw: DeviceArray
    gates: DeviceArray
    h: DeviceArray
    hidden: DeviceArray
    c: DeviceArray
    q: DeviceArray
    d: DeviceArray

    @staticmethod
    def shapes(
        variant: Variant, T: int, B: int, H: int, *, backward: bool, again: bool = False, width: int | None = None
    ) -> tuple[dict[str, Shape], Shape]:
        """Shapes of the stored arrays, by name, and of ``c``.

        Parameters
        ----------
        variant : Variant
        T, B, H : int
        backward : bool
        again : bool
            The steps are to be run again.
        width : int, optional
            Hidden units of all shards.
        """
        nothing: Shape = (1, 1, 1)
        stored: dict[str, Shape] = {
            "gates": (T, B, variant.n_gates * H),
            "h": (T + 1, B, H),
            "q": (T, B, H) if variant.cell == "gru" else nothing,
            "d": (T, B, variant.n_slots * H) if backward else nothing,
        }
        if again:
            stored["xw"] = stored["gates"]
        if width not in (None, H):
            stored["hidden"] = (T + 1, B, width or 0)
        return stored, (T + 1, B, H) if variant.cell == "lstm" else nothing

    @classmethod
    def make(cls, shapes: tuple[dict[str, Shape], Shape], stored: Allocate, float32: Allocate) -> GpuTape:
        """Build a tape from allocators of its two types."""
        arrays = {name: stored(shape) for name, shape in shapes[0].items()}
        xw, c = arrays.get("xw", arrays["gates"]), float32(shapes[1])
        return cls(xw, arrays["gates"], arrays["h"], arrays.get("hidden", arrays["h"]), c, arrays["q"], arrays["d"])

    @classmethod
    def allocate(cls, variant: Variant, T: int, B: int, H: int, arithmetic: Arithmetic, *, backward: bool) -> GpuTape:
        """Allocate a tape of T steps by itself; all states start at zero."""
        shapes = cls.shapes(variant, T, B, H, backward=backward)
        return cls.make(shapes, lambda shape: arithmetic.zeros(*shape), lambda shape: cp.zeros(shape, np.float32))

    @property
    def steps(self) -> int:
        """T."""
        return len(self.gates)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """T, B and H."""
        return self.steps, int(self.h.shape[1]), int(self.h.shape[2])

    def window(self, start: int, stop: int) -> GpuTape:
        """Views of the steps ``start:stop``; neighbouring windows share the state between them."""
        has_c, has_q, has_d = (len(a) > 1 or self.steps == 1 for a in (self.c, self.q, self.d))
        return GpuTape(
            self.xw[start:stop],
            self.gates[start:stop],
            self.h[start : stop + 1],
            self.hidden[start : stop + 1],
            self.c[start : stop + 1] if has_c else self.c,
            self.q[start:stop] if has_q else self.q,
            self.d[start:stop] if has_d else self.d,
        )


@dataclass
class GpuWeights:
    """A layer's weights as the kernels take them.

    Attributes
    ----------
    W (D, G*H), R (N, G*H), RT (G*H, N) : array
        Stored; RT is R transposed. N: hidden units of all shards.
    b (G*H,), bR (H,) : float32 array
        Their own arrays: the kernels read them in pairs, and a view may begin between two.
    """

    W: DeviceArray
    R: DeviceArray
    RT: DeviceArray
    b: DeviceArray
    bR: DeviceArray  # noqa: N815 - the field's name

    @classmethod
    def allocate(cls, variant: Variant, D: int, H: int, arithmetic: Arithmetic, width: int | None = None) -> GpuWeights:
        """Allocate, not set; ``width``: hidden units of all shards."""
        gates, width = variant.n_gates * H, H if width is None else width
        return cls(
            arithmetic.empty(D, gates),
            arithmetic.empty(width, gates),
            arithmetic.empty(gates, width),
            cp.zeros(gates, np.float32),
            cp.zeros(H, np.float32),
        )

    def load(self, parameters: dict[str, DeviceArray], arithmetic: Arithmetic) -> None:
        """Take over float32 parameters."""
        arithmetic.round(parameters["W"], self.W)
        arithmetic.round(parameters["R"], self.R)
        self.RT[...] = self.R.T
        self.b[...] = parameters["b"]
        if "bR" in parameters:
            self.bR[...] = parameters["bR"]


class Loop(Protocol):
    """One direction of a layer's time loop, for one number of rows."""

    def forward(self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, *, training: bool) -> None:
        """Run the steps ``start:stop`` from the state in row ``start``; the gates hold ``x W``."""

    def backward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, dy: DeviceArray, dstate: dict[str, DeviceArray]
    ) -> None:
        """Backpropagate; ``dy`` (T, B, H) is of the whole tape, ``dstate`` float32 as in ``Cell.backward``."""

    def describe(self) -> str:
        """Say what runs, on one line."""


class PersistentLoop:
    """Tier 1: one cooperative launch a chunk."""

    def __init__(self, kernel: PersistentKernel) -> None:
        self._kernel = kernel

    def forward(self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, *, training: bool) -> None:
        part = tape.window(start, stop)
        arrays = (weights.RT, weights.b, weights.bR, part.xw, part.gates, part.h, part.c, part.q)
        self._kernel.launch(arrays, part.h[1:], (*part.sizes, int(training)))

    def backward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, dy: DeviceArray, dstate: dict[str, DeviceArray]
    ) -> None:
        part = tape.window(start, stop)
        dh = dstate["h"]
        states = (part.gates, part.h, part.c, part.q, dy[start:stop])
        self._kernel.launch((weights.R, *states, part.d, dh, dstate.get("c", dh)), part.d, part.sizes)

    def describe(self) -> str:
        return self._kernel.describe()


class StepwiseLoop:
    """Tier 0: a GEMM and a pointwise kernel a step, replayed from captured graphs of :data:`GRAPH_STEPS`.

    The graphs hold the addresses of a tape and of the weights, which therefore must stay where they are.
    """

    def __init__(self, variant: Variant, B: int, H: int, arithmetic: Arithmetic, device: Device, reason: str) -> None:
        self._variant, self._B, self._H, self._arithmetic, self._reason = variant, B, H, arithmetic, reason
        self._device = device
        self._kernel = load_kernel("stepwise.cu", variant.direction, sorted_macros(variant.macros()))
        self._cursor = cp.zeros(1, np.int32)
        self._graphs: dict[tuple[Any, ...], dict[int, Any]] = {}
        forward = variant.direction == "forward"
        self._now = arithmetic.zeros(B, H if forward else variant.reduction(H))
        self._product = cp.zeros((B, variant.n_gates * H if forward else H), np.float32)
        self._carry = cp.zeros((B, H), np.float32)

    @cached_property
    def _sizes(self) -> tuple[Any, ...]:
        return np.int32(self._B), np.int32(self._H)

    def forward(self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, *, training: bool) -> None:
        self._now[...] = tape.h[start]
        self._cursor.fill(start)

        def step(offset: int) -> None:
            self._arithmetic.gemm(self._now, weights.R, self._product)
            states = (tape.xw, tape.gates, tape.h, tape.c, tape.q, self._now, self._cursor, np.int32(offset))
            arguments = (self._product, weights.b, weights.bR, *states, *self._sizes, np.int32(training))
            launch_flat(self._kernel, self._B * self._H, arguments)

        self._run(step, stop - start, 1, ("forward", tape.h.data.ptr, training))

    def backward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, dy: DeviceArray, dstate: dict[str, DeviceArray]
    ) -> None:
        self._product[...] = dstate["h"]
        if "c" in dstate:
            self._carry[...] = dstate["c"]
        else:
            self._carry.fill(0)
        self._cursor.fill(stop - 1)

        def step(offset: int) -> None:
            states = (tape.gates, tape.h, tape.c, tape.q, dy, tape.d, self._now, self._cursor, np.int32(offset))
            launch_flat(self._kernel, self._B * self._H, (self._product, self._carry, *states, *self._sizes))
            self._arithmetic.gemm(self._now, weights.R, self._product, transpose_b=True)

        self._run(step, stop - start, -1, ("backward", tape.h.data.ptr, dy.data.ptr))
        dstate["h"][...] = self._product
        if "c" in dstate:
            dstate["c"][...] = self._carry
        elif self._variant.cell == "gru":
            cp.add(dstate["h"], self._carry, out=dstate["h"])

    def _run(self, step: Any, steps: int, direction: int, key: tuple[Any, ...]) -> None:
        """Take as many steps as there are, in the longest graphs that fit."""
        if key not in self._graphs and steps:
            # Modules and cuBLAS load at their first use, which a capture does not allow: the first step by hand.
            self._take(step, 1, direction)
            steps -= 1
            self._graphs[key] = {}
        for size in GRAPH_STEPS:
            count, steps = divmod(steps, size)
            if count and size not in self._graphs[key]:
                self._graphs[key][size] = self._capture(step, size, direction)
            for _ in range(count):
                self._graphs[key][size].launch(self._device.stream)

    def _take(self, step: Any, steps: int, direction: int) -> None:
        for offset in range(steps):
            step(offset)
        self._cursor += np.int32(direction * steps)

    def _capture(self, step: Any, steps: int, direction: int) -> Any:
        """Record the steps of one graph: their order on the stream is their order in the graph."""
        stream = self._device.stream
        stream.begin_capture()
        try:
            self._take(step, steps, direction)
        finally:
            graph = stream.end_capture()
        return graph

    def describe(self) -> str:
        return f"stepwise {self._variant.direction}: cuBLAS and a kernel a step ({self._reason})"


class ShardedLoop:
    """A GEMM, a pointwise kernel and a message a step: the hidden units are split over ranks.

    Parameters
    ----------
    variant : Variant
    B, H, width : int
        H of this shard, ``width`` of all.
    arithmetic : Arithmetic
    exchange : GpuExchange
    poll : callable
        Called once a time step.
    """

    def __init__(
        self,
        variant: Variant,
        B: int,
        H: int,
        width: int,
        arithmetic: Arithmetic,
        exchange: GpuExchange,
        poll: Callable[[], None],
    ) -> None:
        self._variant, self._arithmetic, self._exchange, self._poll = variant, arithmetic, exchange, poll
        self._kernel = load_kernel("stepwise.cu", variant.direction, sorted_macros(variant.macros()))
        self._sizes, self._n = (np.int32(B), np.int32(H)), B * H
        self._cursor = cp.zeros(1, np.int32)
        forward = variant.direction == "forward"
        self._now = arithmetic.zeros(B, H if forward else variant.n_gates * H)
        self._product = cp.zeros((B, variant.n_gates * H if forward else width), np.float32)
        self._dh, self._carry = cp.zeros((B, H), np.float32), cp.zeros((B, H), np.float32)

    def forward(self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, *, training: bool) -> None:
        for t in range(start, stop):
            self._arithmetic.gemm(tape.hidden[t], weights.R, self._product)
            states = (tape.xw, tape.gates, tape.h, tape.c, tape.q, self._now, self._cursor, np.int32(t))
            arguments = (self._product, weights.b, weights.bR, *states, *self._sizes, np.int32(training))
            launch_flat(self._kernel, self._n, arguments)
            self._exchange.gather(tape.h[t + 1], tape.hidden[t + 1])
            self._poll()

    def backward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, dy: DeviceArray, dstate: dict[str, DeviceArray]
    ) -> None:
        self._dh[...] = dstate["h"]
        if "c" in dstate:
            self._carry[...] = dstate["c"]
        else:
            self._carry.fill(0)
        for t in reversed(range(start, stop)):  # the kernel's step is the cursor, zero, less the offset
            states = (tape.gates, tape.h, tape.c, tape.q, dy, tape.d, self._now, self._cursor, np.int32(-t))
            launch_flat(self._kernel, self._n, (self._dh, self._carry, *states, *self._sizes))
            self._arithmetic.gemm(self._now, weights.R, self._product, transpose_b=True)
            self._exchange.reduce_scatter(self._product, self._dh)
            self._poll()
        dstate["h"][...] = self._dh
        if "c" in dstate:
            dstate["c"][...] = self._carry
        elif self._variant.cell == "gru":
            cp.add(dstate["h"], self._carry, out=dstate["h"])

    def describe(self) -> str:
        return f"sharded {self._variant.direction}: cuBLAS, a kernel and a message a step"


def make_loop(
    cell: Any, direction: Direction, B: int, H: int, arithmetic: Arithmetic, device: Device, kernel: Kernel
) -> Loop:
    """Build one direction of a layer's time loop for B rows.

    Raises
    ------
    LaunchError
        A persistent kernel was asked for and cannot be had.
    """
    variant = make_variant(cell, direction, arithmetic)
    plan = make_plan(variant, B, H, device.limits, kernel)
    for tile in plan.tiles:
        made = PersistentKernel(variant, tile, B, H)
        if made.fits(device.limits):
            return PersistentLoop(made)
    reason = plan.reason or "no tile fits without spilling"
    if kernel == "persistent":
        raise LaunchError(f"machine.kernel = persistent: not for B = {B}, H = {H} on {device.name}: {reason}")
    return StepwiseLoop(variant, B, H, arithmetic, device, reason)


def make_variant(cell: Any, direction: Direction, arithmetic: Arithmetic) -> Variant:
    """Return the kernel variant of a cell."""
    return Variant(cell.name, arithmetic.precision, direction, relu=getattr(cell, "activation", "") == "relu")
