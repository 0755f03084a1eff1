"""The time loop of the GRU whose reset gate comes before the recurrent product: two products a step, in a row."""

from __future__ import annotations

import cupy as cp
import numpy as np

from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import Device, DeviceArray, launch_flat, load_kernel, sorted_macros
from hpcrnn.backends.cupy.stepwise_loop import GraphedSteps
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.kernels.variants import Variant

_KERNELS = {"forward": ("forward_gates", "forward_state"), "backward": ("backward_state", "backward_gates")}


class ResetLoop:
    """Tier 0 as in :class:`~hpcrnn.backends.cupy.stepwise_loop.StepwiseLoop`.

    Parameters
    ----------
    variant : Variant
    B, H : int
    arithmetic : Arithmetic
    device : Device
    """

    def __init__(self, variant: Variant, B: int, H: int, arithmetic: Arithmetic, device: Device) -> None:
        self._variant, self._H, self._n, self._arithmetic = variant, H, B * H, arithmetic
        macros = sorted_macros(variant.macros())
        self._first, self._second = (
            load_kernel("stepwise_reset.cu", name, macros) for name in _KERNELS[variant.direction]
        )
        self._steps = GraphedSteps(device)
        self._sizes = np.int32(B), np.int32(H)
        # Each product's operand and result; forward r and z come first, backward n.
        self._one, self._two = arithmetic.zeros(B, H), arithmetic.zeros(B, 2 * H)
        self._narrow, self._wide = cp.zeros((B, H), np.float32), cp.zeros((B, 2 * H), np.float32)
        self._dh, self._carry = cp.zeros((B, H), np.float32), cp.zeros((B, H), np.float32)
        self._now = arithmetic.zeros(B, H)

    def forward(self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, *, training: bool) -> None:
        self._now[...] = tape.h[start]
        R_rz, R_n = weights.R[:, : 2 * self._H], weights.R[:, 2 * self._H :]

        def step(offset: int) -> None:
            at = self._steps.cursor, np.int32(offset), *self._sizes
            self._arithmetic.gemm(self._now, R_rz, self._wide)
            gates = (self._wide, weights.b, tape.xw, tape.gates, tape.h, tape.q, self._one)
            launch_flat(self._first, self._n, (*gates, *at))
            self._arithmetic.gemm(self._one, R_n, self._narrow)
            state = (self._narrow, weights.b, tape.xw, tape.gates, tape.h, self._now)
            launch_flat(self._second, self._n, (*state, *at))

        self._steps.run(step, start, stop - start, 1, ("forward", tape.h.data.ptr, training))

    def backward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, dy: DeviceArray, dstate: dict[str, DeviceArray]
    ) -> None:
        self._dh[...] = dstate["h"]
        self._carry.fill(0)
        R_rz, R_n = weights.R[:, : 2 * self._H], weights.R[:, 2 * self._H :]

        def step(offset: int) -> None:
            at = self._steps.cursor, np.int32(offset), *self._sizes
            state = (self._dh, self._carry, tape.gates, tape.h, dy, tape.d, self._one)
            launch_flat(self._first, self._n, (*state, *at))
            self._arithmetic.gemm(self._one, R_n, self._narrow, transpose_b=True)
            gates = (self._narrow, self._carry, tape.gates, tape.h, tape.d, self._two)
            launch_flat(self._second, self._n, (*gates, *at))
            self._arithmetic.gemm(self._two, R_rz, self._dh, transpose_b=True)

        key = ("backward", tape.h.data.ptr, tape.d.data.ptr, dy.data.ptr)
        self._steps.run(step, stop - 1, stop - start, -1, key)
        cp.add(self._dh, self._carry, out=dstate["h"])

    def describe(self) -> str:
        return f"stepwise {self._variant.direction}: cuBLAS and a kernel, twice a step (reset before the product)"
