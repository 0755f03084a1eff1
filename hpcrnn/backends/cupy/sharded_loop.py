"""The time loop of a layer whose hidden units are split over ranks: they meet in every step."""

from __future__ import annotations

from collections.abc import Callable

import cupy as cp
import numpy as np

from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import DeviceArray, launch_flat, load_kernel, sorted_macros
from hpcrnn.backends.cupy.exchange import GpuExchange
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.kernels.variants import Variant


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
