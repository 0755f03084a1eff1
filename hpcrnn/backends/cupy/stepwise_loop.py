"""Tier 0: a matrix product and a kernel a step, for any size and any GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import cupy as cp
import numpy as np

from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import Device, DeviceArray, launch_flat, load_kernel, sorted_macros
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.kernels.variants import Variant

Step = Callable[[int], None]

GRAPH_STEPS = (64, 8, 1)
"""Steps in a captured graph: long ones hide the launch, short ones take what is left; a step by hand takes ten times
as long as one in a graph."""


class GraphedSteps:
    """Time steps replayed from captured graphs of :data:`GRAPH_STEPS`.

    The graphs hold the addresses of what their steps work on, which therefore must stay where it is.

    Parameters
    ----------
    device : Device

    Attributes
    ----------
    cursor : int32 array (1,)
        Where in the sequence the steps of a graph begin.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.cursor = cp.zeros(1, np.int32)
        self._graphs: dict[tuple[Any, ...], dict[int, Any]] = {}

    def run(self, step: Step, first: int, steps: int, direction: int, key: tuple[Any, ...]) -> None:
        """Take as many steps as there are, in the longest graphs that fit.

        Parameters
        ----------
        step : callable
            Takes the step so many after the cursor's.
        first, steps : int
        direction : {1, -1}
            Of time.
        key : tuple
            Names what the step works on.
        """
        self.cursor.fill(first)
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

    def _take(self, step: Step, steps: int, direction: int) -> None:
        for offset in range(steps):
            step(offset)
        self.cursor += np.int32(direction * steps)

    def _capture(self, step: Step, steps: int, direction: int) -> Any:
        """Record the steps of one graph: their order on the stream is their order in the graph."""
        stream = self._device.stream
        stream.begin_capture()
        try:
            self._take(step, steps, direction)
        finally:
            graph = stream.end_capture()
        return graph


class StepwiseLoop:
    """A GEMM and a pointwise kernel a step.

    Parameters
    ----------
    variant : Variant
    B, H : int
    arithmetic : Arithmetic
    device : Device
    reason : str
        Why it is not a persistent kernel.
    """

    def __init__(self, variant: Variant, B: int, H: int, arithmetic: Arithmetic, device: Device, reason: str) -> None:
        self._variant, self._B, self._H, self._arithmetic, self._reason = variant, B, H, arithmetic, reason
        self._steps = GraphedSteps(device)
        self._kernel = load_kernel("stepwise.cu", variant.direction, sorted_macros(variant.macros()))
        forward = variant.direction == "forward"
        self._now = arithmetic.zeros(B, H if forward else variant.reduction(H))
        self._product = cp.zeros((B, variant.n_gates * H if forward else H), np.float32)
        self._carry = cp.zeros((B, H), np.float32)

    @cached_property
    def _sizes(self) -> tuple[Any, ...]:
        return np.int32(self._B), np.int32(self._H)

    def forward(self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, *, training: bool) -> None:
        self._now[...] = tape.h[start]

        def step(offset: int) -> None:
            self._arithmetic.gemm(self._now, weights.R, self._product)
            states = (tape.xw, tape.gates, tape.h, tape.c, tape.q, self._now, self._steps.cursor, np.int32(offset))
            arguments = (self._product, weights.b, weights.bR, *states, *self._sizes, np.int32(training))
            launch_flat(self._kernel, self._B * self._H, arguments)

        self._steps.run(step, start, stop - start, 1, ("forward", tape.h.data.ptr, training))

    def backward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, dy: DeviceArray, dstate: dict[str, DeviceArray]
    ) -> None:
        self._product[...] = dstate["h"]
        if "c" in dstate:
            self._carry[...] = dstate["c"]
        else:
            self._carry.fill(0)

        def step(offset: int) -> None:
            states = (tape.gates, tape.h, tape.c, tape.q, dy, tape.d, self._now, self._steps.cursor, np.int32(offset))
            launch_flat(self._kernel, self._B * self._H, (self._product, self._carry, *states, *self._sizes))
            self._arithmetic.gemm(self._now, weights.R, self._product, transpose_b=True)

        key = ("backward", tape.h.data.ptr, tape.d.data.ptr, dy.data.ptr)
        self._steps.run(step, stop - 1, stop - start, -1, key)
        dstate["h"][...] = self._product
        if "c" in dstate:
            dstate["c"][...] = self._carry
        elif self._variant.cell == "gru":
            cp.add(dstate["h"], self._carry, out=dstate["h"])

    def describe(self) -> str:
        return f"stepwise {self._variant.direction}: cuBLAS and a kernel a step ({self._reason})"
