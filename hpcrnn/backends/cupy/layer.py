"""One recurrent layer on the GPU, to be timed beside another library's: no network, no executor around it."""

from __future__ import annotations

import gc
from collections.abc import Callable

import cupy as cp
import numpy as np

from hpcrnn.backends.cupy.arithmetic import Arithmetic, as_rows
from hpcrnn.backends.cupy.device import Device, open_device
from hpcrnn.backends.cupy.loops import make_loop, make_variant
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.backends.layer_case import Array, LayerArrays, LayerCase, Pass
from hpcrnn.kernels.plan import Kernel
from hpcrnn.kernels.variants import Precision


class CupyLayer:
    """A layer with its tape; every array is on the device before a pass begins.

    Parameters
    ----------
    case : LayerCase
    arrays : LayerArrays
    kernel : {"auto", "persistent", "stepwise"}
    device : Device, optional
    """

    def __init__(
        self, case: LayerCase, arrays: LayerArrays, kernel: Kernel = "auto", device: Device | None = None
    ) -> None:
        self._case, self._device = case, device or open_device(shared=True)
        cell = case.make_cell()
        with self._device.stream:
            self._arithmetic = arithmetic = Arithmetic(case.precision)
            variant = make_variant(cell, "forward", arithmetic)
            self._tape = GpuTape.allocate(variant, case.T, case.B, case.H, arithmetic, backward=True)
            self._weights = GpuWeights.allocate(variant, case.D, case.H, arithmetic)
            parameters = {name: cp.asarray(a) for name, a in arrays.parameters(case).items()}
            self._weights.load(parameters, arithmetic)
            self._x = arithmetic.round(cp.asarray(arrays.x), arithmetic.empty(*arrays.x.shape))
            self._dy = arithmetic.round(cp.asarray(arrays.dy), arithmetic.empty(*arrays.dy.shape))
            self._dx = arithmetic.empty(*arrays.x.shape)
            self._gradients = {name: cp.zeros_like(a) for name, a in parameters.items()}
            self._dstate = {name: cp.zeros((case.B, case.H), np.float32) for name in cell.state_names}
            self._ones = arithmetic.ones(case.T * case.B)
            sizes = case.B, case.H, arithmetic, self._device, kernel
            self._forward, self._backward = (make_loop(cell, d, *sizes) for d in ("forward", "backward"))
            self._device.synchronize()
        self._begin, self._end = cp.cuda.Event(), cp.cuda.Event()
        self.kernel = f"{self._forward.describe()}; {self._backward.describe()}"

    def run(self, which: Pass) -> float:
        with self._device.stream as stream:
            self._begin.record(stream)
            self._run_forward(training=which == "training")
            if which == "training":
                self._run_backward()
            self._end.record(stream)
            self._end.synchronize()
        return float(cp.cuda.get_elapsed_time(self._begin, self._end)) * 1e-3

    def _run_forward(self, *, training: bool) -> None:
        tape = self._tape
        tape.h[0].data.memset_async(0, tape.h[0].nbytes)
        tape.c[0].data.memset_async(0, tape.c[0].nbytes)
        self._arithmetic.gemm(as_rows(self._x), self._weights.W, as_rows(tape.gates))
        self._forward.forward(self._weights, tape, 0, self._case.T, training=training)

    def _run_backward(self) -> None:
        tape, H = self._tape, self._case.H
        for gradient in self._dstate.values():
            gradient.data.memset_async(0, gradient.nbytes)
        self._backward.backward(self._weights, tape, 0, self._case.T, self._dy, self._dstate)
        x, h, d, into = as_rows(self._x), as_rows(tape.h[:-1]), as_rows(tape.d), self._gradients
        gemm = self._arithmetic.gemm
        parts = [(d, slice(0, d.shape[1]))]
        if "bR" in into:
            parts = [(d[:, : 2 * H], slice(0, 2 * H)), (d[:, 3 * H :], slice(2 * H, 3 * H))]
            gemm(self._ones, d[:, 2 * H : 3 * H], into["bR"].reshape(1, -1))
        for beta, (slots, columns) in enumerate(parts):
            gemm(slots, self._weights.W[:, columns], as_rows(self._dx), transpose_b=True, beta=float(beta))
            gemm(x, slots, into["W"][:, columns], transpose_a=True)
            gemm(self._ones, slots, into["b"][columns].reshape(1, -1))
        gemm(h, d[:, : into["R"].shape[1]], into["R"], transpose_a=True)

    def results(self) -> dict[str, Array]:
        with self._device.stream:
            found = {"y": self._arithmetic.widen(self._tape.h[1:]), "dx": self._arithmetic.widen(self._dx)}
            found |= {f"d{name}": a for name, a in self._gradients.items()}
            return {name: cp.asnumpy(a).astype(np.float64) for name, a in found.items()}

    def solve_facts(self) -> dict[str, float]:
        return {}


def device_facts(device: Device) -> dict[str, object]:
    """Return what is worth recording of the GPU and what drives it."""
    runtime = cp.cuda.runtime
    limits = device.limits
    return {
        "name": device.name,
        "compute_capability": ".".join(map(str, limits.capability)),
        "multiprocessors": limits.n_multiprocessors,
        "shared_bytes_of_a_block": limits.shared_bytes,
        "memory_bytes": device.memory_bytes()[1],
        "cupy": cp.__version__,
        "driver_supports_cuda": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "nvrtc": ".".join(map(str, cp.cuda.nvrtc.getVersion())),
    }


def store_and_widen(device: Device, precision: Precision, a: Array) -> Array:
    """Return what a float32 array is after being stored."""
    with device.stream:
        arithmetic = Arithmetic(precision)
        values = cp.asarray(a)
        return np.asarray(cp.asnumpy(arithmetic.widen(arithmetic.round(values, arithmetic.empty(*a.shape)))))


def free_memory() -> None:
    """Give cached memory back, for the peer's own cache beside ours; an engine's blocks refer to one another."""
    gc.collect()
    cp.get_default_memory_pool().free_all_blocks()


def copy_rate(device: Device, n_bytes: int = 4 << 30) -> float:
    """Measure a large copy on the device: bytes read and written a second, the best of twelve."""
    with device.stream:
        a, b = cp.ones(n_bytes // 8, np.float32), cp.empty(n_bytes // 8, np.float32)
        seconds = _best(device, lambda: b.data.copy_from_device_async(a.data, a.nbytes))
    return 2.0 * int(a.nbytes) / seconds


def matrix_rate(device: Device, precision: Precision, n: int = 8192) -> float:
    """Measure an n x n x n product of random numbers in a precision: operations a second, the best of twelve."""
    with device.stream:
        arithmetic = Arithmetic(precision)
        random = cp.random.standard_normal((2, n, n), dtype=np.float32)
        a, b = (arithmetic.round(m, arithmetic.empty(n, n)) for m in random)
        out = arithmetic.empty(n, n)
        seconds = _best(device, lambda: arithmetic.gemm(a, b, out))
    return 2.0 * n**3 / seconds


def _best(device: Device, work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(12):
        begin, end = cp.cuda.Event(), cp.cuda.Event()
        begin.record(device.stream)
        work()
        end.record(device.stream)
        end.synchronize()
        best = min(best, float(cp.cuda.get_elapsed_time(begin, end)) * 1e-3)
    return best
