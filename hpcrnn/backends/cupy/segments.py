"""A recurrent block on the GPU whose segments of time run at once, by the methods of :mod:`hpcrnn.methods`.

Segments are rows, so a sequence of one sample becomes as many rows as the kernels like. Halos, a row of each state for
every segment, come to the host between rounds, where the solver compares and corrects them; what happens within a round
is decided on the device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Array, LayerSolve
from hpcrnn.backends.cupy.arithmetic import as_rows
from hpcrnn.backends.cupy.blocks import GpuContext
from hpcrnn.backends.cupy.corrections import Correction, make_correction
from hpcrnn.backends.cupy.device import DeviceArray
from hpcrnn.backends.cupy.loops import make_variant
from hpcrnn.backends.cupy.passes import BackwardPass, ForwardPass, GpuLayer, GpuPass
from hpcrnn.backends.cupy.recurrent import RecurrentBlock
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.cells import Cell
from hpcrnn.kernels.variants import Direction
from hpcrnn.methods.codec import make_codec
from hpcrnn.methods.lyapunov import TRAJECTORY_STEPS
from hpcrnn.methods.solver import Solve, Solver, tolerance_of

_AT_A_TIME = 8
"""Steps a covector is carried back before it is scaled again: few enough for no number to leave its range."""


def _of_length_one(covectors: Array) -> tuple[Array, Array]:
    """Scale each row of (n, R, H) to length one, float32; and the logarithms (R,) of what the lengths were."""
    length = np.sqrt((covectors.astype(np.float64) ** 2).sum(axis=(0, 2)))
    with np.errstate(divide="ignore"):
        gained = np.log(length)
    scale = 1 / np.maximum(length, np.finfo(np.float32).tiny)
    return (covectors * scale[:, np.newaxis]).astype(np.float32), gained


class SegmentedBlock(RecurrentBlock):
    """One recurrent layer over a folded window of time; the ranks of all windows work on a task together."""

    def __init__(self, context: GpuContext, cell: Cell) -> None:
        super().__init__(context, cell)
        extent, H = context.extent, context.block.outputs
        tolerance = tolerance_of(extent.recurrence, np.float32)
        self._solver = Solver(extent.recurrence, context.line, make_codec(extent.recurrence.halo_codec), tolerance)
        self._corrections = {B: self._make_corrections(B, H) for B in self.loops}
        chunk = extent.own_chunks[0]
        self._passes: dict[str, list[GpuPass]] = {"forward": [], "backward": []}
        self._solves: dict[tuple[str, int], Solve] = {}
        for m in range(len(extent.microbatches)):
            folding, unit = extent.folding(m), (m, chunk)
            dy = self.output.gradient.get(unit)
            layer = GpuLayer(
                self,
                self.tapes[unit],
                context.before.value[unit],
                dy,
                folding,
                self.loops[folding.rows],
                self._corrections[folding.rows],
            )
            self._passes["forward"].append(ForwardPass(layer, context.line, tolerance))
            self._passes["backward"].append(BackwardPass(layer, context.line, tolerance))

    def _make_corrections(self, B: int, H: int) -> list[Correction]:
        """What runs rows again: forward and, where there is one, backward."""
        c, directions = self._c, get_args(Direction)
        pairs = zip(directions, self.loops[B], strict=False)
        return [
            make_correction(
                self.cell, make_variant(self.cell, way, c.arithmetic), loop, B, H, c.arithmetic, c.device, c.kernel
            )
            for way, loop in pairs
        ]

    def forward(self, m: int, c: int) -> float:  # noqa: ARG002 - there is one chunk
        handed = self._solve("forward", m, "initial")
        self.stacks["final"][m].set(np.ascontiguousarray(handed[:, -self._c.extent.samples(m) :]))
        return 0.0

    def backward(self, m: int, c: int) -> None:
        handed = self._solve("backward", m, "cotangent")
        self.stacks["carry"][m].set(np.ascontiguousarray(handed[:, : self._c.extent.samples(m)]))
        self._input_gradient(m, c)

    def _solve(self, direction: str, m: int, edge: str) -> Array:
        sweep = self._passes[direction][m]
        self._solves[direction, m] = self._solver.solve(sweep, cp.asnumpy(self.stacks[edge][m]))
        return sweep.handed

    def describe(self) -> list[str]:
        again = [f"run again in {way.describe()}" for way in next(iter(self._corrections.values()))]
        return [*super().describe(), *again]

    def exponent(self) -> float:
        """Estimate the largest Lyapunov exponent along the last step's trajectories, 1/step."""
        return float(np.mean([self._exponent_of(sweep.layer) for sweep in self._passes["backward"]]))

    def _exponent_of(self, layer: GpuLayer) -> float:
        """As ``methods.lyapunov.largest_exponent``, a few steps at a time."""
        n = min(TRAJECTORY_STEPS, layer.folding.common)
        tape = layer.tape.window(0, n)
        if layer.scratch is None:  # kept: graphs know what they work on by its address
            layer.scratch = cp.zeros_like(tape.d), self._c.arithmetic.zeros(*tape.sizes)
        d, no_dy = layer.scratch
        alone = replace(tape, d=d)
        rng, names = np.random.default_rng(0x1E), self.cell.state_names
        start = rng.standard_normal((len(names), layer.folding.rows, tape.sizes[2]))
        covector = _of_length_one(start)[0]
        growth, counted = np.zeros(layer.folding.rows), 0
        for last in range(n, 0, -_AT_A_TIME):
            first = max(last - _AT_A_TIME, 0)
            carried = cp.asarray(covector)
            by_name = dict(zip(names, carried, strict=True))
            layer.loops[1].backward(self._weights, alone, first, last, no_dy, by_name)
            covector, gained = _of_length_one(cp.asnumpy(carried))
            if n - last >= n // 2:
                growth += gained
                counted += last - first
        return float((growth / max(counted, 1)).mean())

    def solves(self) -> tuple[LayerSolve, ...]:
        rows = self._c.extent.microbatches
        return tuple(LayerSolve(self.name, way, rows[m], solve) for (way, m), solve in self._solves.items())

    @property
    def weights(self) -> GpuWeights:
        """The layer's weights as the kernels take them."""
        return self._weights

    def set_states(self, tape: GpuTape, step: int, states: dict[str, Array]) -> None:
        """Write states (R, H) of the host before a step."""
        self._c.arithmetic.round(cp.asarray(states["h"]), tape.h[step])
        if "c" in states:
            tape.c[step].set(np.ascontiguousarray(states["c"]))

    def multiply(self, x: DeviceArray, xw: DeviceArray) -> None:
        """``xw = x W``."""
        self._c.arithmetic.gemm(as_rows(x), self._weights.W, as_rows(xw))

    def widen(self, stored: DeviceArray) -> DeviceArray:
        """Return stored numbers as a new float32 array."""
        return self._c.arithmetic.widen(stored)

    def retention(self, tape: GpuTape, start: int, stop: int) -> DeviceArray:
        """What each step keeps of the cell's memory, (T, R, H): as ``Cell.retention`` has it."""
        H = self._c.block.outputs
        if self.variant.cell != "elman":
            return self.widen(tape.gates[start:stop, :, H : 2 * H])
        h, diagonal = (
            self.widen(tape.h[start + 1 : stop + 1]),
            self._c.parameters["R"].ravel()[:: self._c.block.outputs + 1],
        )
        slope = (h > 0).astype(np.float32) if self.variant.relu else 1 - h * h
        return slope * diagonal

    def exposure(self, tape: GpuTape, lengths: Array) -> dict[str, Array]:
        """As ``Cell.exposure`` has it, (R, H) at every row's last step."""
        if self.variant.cell != "lstm":
            return {}
        rows, ends, H = cp.arange(len(lengths)), cp.asarray(lengths), self._c.block.outputs
        o, tanh_c = self.widen(tape.gates[ends - 1, rows][:, 3 * H :]), cp.tanh(tape.c[ends, rows])
        return {"h": cp.asnumpy(o * (1 - tanh_c * tanh_c))}
