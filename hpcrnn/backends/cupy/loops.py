"""The time loop of a layer on the GPU: one persistent kernel a chunk, or one of the loops of single steps."""

from __future__ import annotations

from typing import Any, Protocol

from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import Device, DeviceArray, PersistentKernel
from hpcrnn.backends.cupy.reset_loop import ResetLoop
from hpcrnn.backends.cupy.stepwise_loop import StepwiseLoop
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.errors import LaunchError
from hpcrnn.kernels.plan import Kernel, make_plan
from hpcrnn.kernels.variants import Direction, Variant


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
    if variant.reset_before and kernel != "persistent":
        return ResetLoop(variant, B, H, arithmetic, device)
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
    return Variant(
        cell.name,
        arithmetic.precision,
        direction,
        relu=getattr(cell, "activation", "") == "relu",
        reset_before=getattr(cell, "reset", "") == "before",
    )
