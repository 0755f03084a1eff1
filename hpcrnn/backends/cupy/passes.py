"""Passes over a layer on the GPU: see :mod:`hpcrnn.methods.passes`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Array
from hpcrnn.backends.cupy.corrections import Correction
from hpcrnn.backends.cupy.device import DeviceArray
from hpcrnn.backends.cupy.loops import Loop
from hpcrnn.backends.cupy.staging import pinned_zeros
from hpcrnn.backends.cupy.tape import GpuTape
from hpcrnn.methods.folding import Folding
from hpcrnn.methods.line import Line
from hpcrnn.methods.passes import GateProducts, Pass, Rerun, Rows, gradient_scale, relative_to_size
from hpcrnn.records.certificate import UNMET

if TYPE_CHECKING:
    from hpcrnn.backends.cupy.segments import SegmentedBlock

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
    products : GateProducts, optional
        Of the trajectory as it is, once they have been asked for.
    scratch : tuple of array, optional
        Gate gradients and gradients from above of a few steps, for the exponent.
    """

    block: SegmentedBlock
    tape: GpuTape
    x: DeviceArray
    dy: DeviceArray | None
    folding: Folding
    loops: list[Loop]
    corrections: list[Correction]
    products: GateProducts | None = None
    scratch: tuple[DeviceArray, DeviceArray] | None = None


class GpuPass(Pass):
    """A pass over arrays on the GPU.

    Parameters
    ----------
    layer : GpuLayer
    line : Line
    tolerance : float
    """

    def __init__(self, layer: GpuLayer, line: Line, tolerance: float) -> None:
        super().__init__(layer.block.cell, layer.folding, layer.tape.sizes[2], np.float32)
        # Where the GPU copies from and to by itself.
        shape = self.received.shape
        self.received, self.handed = (pinned_zeros(math.prod(shape), np.float32).reshape(shape) for _ in range(2))
        self._l, self._line, self._tolerance = layer, line, tolerance

    def gate_products(self) -> GateProducts:
        if self._l.products is None:
            self._l.products = self._multiply_gates()
        return self._l.products

    def _multiply_gates(self) -> GateProducts:
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


class ForwardPass(GpuPass):
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
        layer.products = None
        for index, name in enumerate(self.cell.state_names):
            layer.block.state(layer.tape, name, folding.longest).get(out=self.handed[index])
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


class BackwardPass(GpuPass):
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
        dstate.get(out=self.handed)
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
