"""A recurrent block on the GPU whose segments of time run at once, by the methods of :mod:`hpcrnn.methods`.

Segments are rows, so a sequence of one sample becomes as many rows as the kernels like. Halos, a row of each state for
every segment, come to the host between rounds, where the solver compares and corrects them; what happens within a round
is decided on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Array, LayerSolve
from hpcrnn.backends.cupy_arithmetic import as_rows
from hpcrnn.backends.cupy_blocks import GpuContext
from hpcrnn.backends.cupy_corrections import Correction, make_correction
from hpcrnn.backends.cupy_device import DeviceArray
from hpcrnn.backends.cupy_loops import GpuTape, GpuWeights, Loop, make_variant
from hpcrnn.backends.cupy_recurrent import RecurrentBlock
from hpcrnn.cells import Cell
from hpcrnn.kernels.variants import Direction
from hpcrnn.methods.codec import make_codec
from hpcrnn.methods.folding import Folding
from hpcrnn.methods.line import Line
from hpcrnn.methods.lyapunov import TRAJECTORY_STEPS
from hpcrnn.methods.passes import GateProducts, Pass, Rerun, Rows, gradient_scale, relative_to_size
from hpcrnn.methods.solver import Solve, Solver, tolerance_of
from hpcrnn.records.certificate import UNMET

_AT_A_TIME = 8
"""Steps a covector is carried back before it is scaled again: few enough for no number to leave its range."""

_EVERY = 16
"""Of the gradients that set the scale of a correction, one step in so many is looked at."""


@dataclass
class GpuLayer:
    """One micro-batch of a layer, folded.

    Attributes
    ----------
    block : SegmentedBlock
    tape : GpuTape
        Of S steps of R rows.
    x : array (S, R, D)
    dy : array (S, R, H), or None in mode ``forward``
    folding : Folding
    loops : list of Loop
        Forward, and backward where there is one.
    corrections : list of Correction
        Likewise.
    """

    block: SegmentedBlock
    tape: GpuTape
    x: DeviceArray
    dy: DeviceArray | None
    folding: Folding
    loops: list[Loop]
    corrections: list[Correction]


class _GpuPass(Pass):
    """A pass over arrays on the GPU.

    Parameters
    ----------
    layer : GpuLayer
    line : Line
    tolerance : float
    """

    def __init__(self, layer: GpuLayer, line: Line, tolerance: float) -> None:
        super().__init__(layer.block.cell, layer.folding, layer.tape.sizes[2], np.float32)
        self._l, self._line, self._tolerance = layer, line, tolerance

    def gate_products(self) -> GateProducts:
        block, tape, folding = self._l.block, self._l.tape, self.folding
        kept = cp.asnumpy(block.retention(tape, 0, folding.common).prod(axis=0))
        if not folding.is_even:
            last = cp.asnumpy(block.retention(tape, folding.common, folding.longest))[0]
            kept[: folding.long_rows] *= last[: folding.long_rows]
        return GateProducts(kept, block.exposure(tape, folding.lengths))

    @property
    def layer(self) -> GpuLayer:
        """What is passed over."""
        return self._l

    def jacobians(self) -> Array:
        raise TypeError("there are no Jacobians of segments on a GPU")


class ForwardPass(_GpuPass):
    """The states, left to right."""

    direction = "forward"
    leftward = False

    def run(self, steps: slice | None = None) -> None:
        layer, folding, block = self._l, self.folding, self._l.block
        start, stop = (0, folding.longest) if steps is None else (steps.start, steps.stop)
        block.set_states(layer.tape, start, self.by_name(self.received))
        block.multiply(layer.x[start:stop], layer.tape.xw[start:stop])
        # All rows take the step that only the longer segments have; nobody looks at what it makes of the shorter.
        for first, last in _parts(start, stop, folding.common):
            layer.loops[0].forward(block.weights, layer.tape, first, last, training=True)
        self._read_ends()

    def _read_ends(self) -> None:
        layer, folding = self._l, self.folding
        for index, name in enumerate(self.cell.state_names):
            self.handed[index] = cp.asnumpy(layer.block.state(layer.tape, name, folding.longest))
            if not folding.is_even:
                short = cp.asnumpy(layer.block.state(layer.tape, name, folding.common))
                self.handed[index, folding.long_rows :] = short[folding.long_rows :]
        self.scale = relative_to_size(self.handed, self.cell.unbounded, self.cell.state_names)

    def rerun(self, rows: Rows, halos: Array) -> Rerun:
        layer, folding, tape = self._l, self.folding, self._l.tape
        weights, correction = layer.block.weights, layer.corrections[0]
        self.received[:, rows] = halos
        layer.block.set_states(tape, 0, self.by_name(self.received))
        done = correction.forward(weights, tape, 0, folding.common, rows, self._tolerance)
        met, ran = done.met, done.ran
        open_rows = np.flatnonzero((met == UNMET) & (rows < folding.long_rows))
        if not folding.is_even and len(open_rows):
            last = correction.forward(weights, tape, folding.common, folding.longest, rows[open_rows], self._tolerance)
            met[open_rows] = np.where(last.met == UNMET, UNMET, folding.longest)
            ran[open_rows] += 1
        self._read_ends()
        return Rerun(int(ran.max()), int(ran.sum()), met)


class BackwardPass(_GpuPass):
    """The gradients, right to left."""

    direction = "backward"
    leftward = True

    def run(self, steps: slice | None = None) -> None:
        layer, folding = self._l, self.folding
        if layer.dy is None:
            raise TypeError("no gradients in mode forward")
        stop = folding.longest if steps is None else steps.stop
        dstate = cp.asarray(self.received)
        carried = dict(zip(self.cell.state_names, dstate, strict=True))
        for first, last in reversed(_parts(0, stop, folding.common)):
            if first == folding.common:  # the shorter segments have no such step, and join behind it
                dstate[:, folding.long_rows :] = 0
            layer.loops[1].backward(layer.block.weights, layer.tape, first, last, layer.dy, carried)
            if first == folding.common:
                dstate[:, folding.long_rows :] = cp.asarray(self.received[:, folding.long_rows :])
        self.handed[...] = cp.asnumpy(dstate)
        self.scale = self._scale(layer.dy)

    def _scale(self, dy: DeviceArray) -> Array:
        """Largest gradient of each state, over all rows and ranks: that of ``dy``, and at the segments' ends."""
        largest = np.abs(self.handed).max(axis=(1, 2)).astype(np.float64)
        np.maximum(largest, np.abs(self.received).max(axis=(1, 2)), out=largest)
        widen = self._l.block.widen
        seen = max(float(cp.abs(widen(part)).max()) for part in (dy[::_EVERY], dy[-1:]))
        at = self.cell.state_names.index("h")
        largest[at] = max(largest[at], seen)
        return gradient_scale(self._line.largest(largest))

    def rerun(self, rows: Rows, halos: Array) -> Rerun:
        layer, folding, tape = self._l, self.folding, self._l.tape
        weights, correction = layer.block.weights, layer.corrections[1]
        change = np.ascontiguousarray(halos - self.received[:, rows], np.float32)
        self.received[:, rows] = halos
        limits = tuple(self._tolerance * float(limit) for limit in self.scale[:, 0])
        longer = np.flatnonzero(rows < folding.long_rows) if not folding.is_even else np.arange(0)
        if len(longer):
            first = cp.asarray(np.ascontiguousarray(change[:, longer]))
            correction.backward(weights, tape, folding.common, folding.longest, rows[longer], first, limits)
            change[:, longer] = cp.asnumpy(first)
        dstate = cp.asarray(change)
        done = correction.backward(weights, tape, 0, folding.common, rows, dstate, limits)
        left = cp.asnumpy(dstate)
        small = (np.abs(left) <= np.array(limits, np.float32)[:, np.newaxis, np.newaxis]).all(axis=(0, 2))
        met = np.where((done.met == UNMET) & small, folding.common, done.met)
        ran = done.ran.copy()
        ran[longer] += 1
        met[longer] += met[longer] != UNMET
        self.handed[:, rows] += left
        return Rerun(int(ran.max()), int(ran.sum()), met)


def _parts(start: int, stop: int, common: int) -> list[tuple[int, int]]:
    """The steps ``start:stop``, with the one that only the longer segments have by itself."""
    if stop <= common:
        return [(start, stop)]
    return [(start, common), (common, stop)] if start < common else [(start, stop)]


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
        corrections = {B: self._make_corrections(B, H) for B in self.loops}
        chunk = extent.own_chunks[0]
        self._passes: dict[str, list[_GpuPass]] = {"forward": [], "backward": []}
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
                corrections[folding.rows],
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

    def exponent(self) -> float:
        """Estimate the largest Lyapunov exponent along the last step's trajectories, 1/step."""
        return float(np.mean([self._exponent_of(sweep.layer) for sweep in self._passes["backward"]]))

    def _exponent_of(self, layer: GpuLayer) -> float:
        """As ``methods.lyapunov.largest_exponent``, a few steps at a time."""
        n = min(TRAJECTORY_STEPS, layer.folding.common)
        tape = layer.tape.window(0, n)
        alone, no_dy = replace(tape, d=cp.zeros_like(tape.d)), self._c.arithmetic.zeros(*tape.sizes)
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
