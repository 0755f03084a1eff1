"""Re-runs on the GPU: some rows of a tape run again from other states, until they meet what is there.

In two ways, as the time loops: by persistent kernels that decide on the device when to stop, or by windows of the loop
itself, with a look at what they left after each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import cupy as cp
import numpy as np
import numpy.typing as npt

from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import Device, DeviceArray, PersistentKernel
from hpcrnn.backends.cupy.loops import Loop, PersistentLoop
from hpcrnn.backends.cupy.tape import GpuTape, GpuWeights
from hpcrnn.cells import Cell
from hpcrnn.kernels.plan import CORRECTION_SPARE, Kernel, make_plan
from hpcrnn.kernels.variants import Variant
from hpcrnn.methods.passes import Rows
from hpcrnn.records.certificate import UNMET

EVERY = 8
"""Steps from one look of a kernel at its rows to the next, each a word read and, where rows are off, a word set."""

MOST_SUBTILES = 31
"""A block keeps a bit for each of its subtiles."""

WINDOW = 64
"""Steps between two looks from the host: as many as the longest graph has."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corrected:
    """What happened to the rows of a re-run.

    Attributes
    ----------
    met : int array (k,)
        Steps until a row was seen to have met, or ``UNMET``.
    ran : int array (k,)
        Steps it was run.
    """

    met: Counts
    ran: Counts


class Correction(Protocol):
    """One direction of a layer's re-runs, for one number of rows."""

    def forward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, rows: Rows, tolerance: float
    ) -> Corrected:
        """Run rows again over the steps ``start:stop``, from the state that the tape has before them."""

    def backward(
        self,
        weights: GpuWeights,
        tape: GpuTape,
        start: int,
        stop: int,
        rows: Rows,
        dstate: DeviceArray,
        limits: tuple[float, ...],
    ) -> Corrected:
        """Carry corrections (n, k, H) of rows' gradients back, and add what they do to ``tape.d``.

        ``dstate`` is overwritten with what is left of them. A row has met where its own are within ``limits``, one a
        state.
        """

    def describe(self) -> str:
        """Say what runs, on one line."""


class PersistentCorrection:
    """One launch for all rows; a tile of rows stops when all of its rows have met."""

    def __init__(self, kernel: PersistentKernel) -> None:
        self._kernel = kernel

    def forward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, rows: Rows, tolerance: float
    ) -> Corrected:
        part = tape.window(start, stop)
        arrays = (weights.RT, weights.b, weights.bR, part.xw, part.gates, part.h, part.c, part.q)
        return self._launch(arrays, part, rows, (float(tolerance),), late=0)

    def backward(
        self,
        weights: GpuWeights,
        tape: GpuTape,
        start: int,
        stop: int,
        rows: Rows,
        dstate: DeviceArray,
        limits: tuple[float, ...],
    ) -> Corrected:
        part, variant, H = tape.window(start, stop), self._kernel.variant, tape.sizes[2]
        ring = cp.empty((2, len(rows), variant.reduction(H)), part.d.dtype)
        arrays = (weights.R, part.gates, part.h, part.c, part.q, part.d, ring, dstate[0], dstate[-1])
        return self._launch(arrays, part, rows, (limits[0], limits[-1]), late=1)

    def _launch(
        self, arrays: tuple[DeviceArray, ...], part: GpuTape, rows: Rows, limits: tuple[float, ...], late: int
    ) -> Corrected:
        """Launch over a window; a tile takes ``late`` steps more before it knows that it has met."""
        tile, (T, B, H), k = self._kernel.tile, part.sizes, len(rows)
        grid = tile.grid(k, H)
        far = cp.zeros((-(-T // EVERY), grid[1] * tile.subtiles), np.uint32)
        met = cp.full(k, UNMET, np.int32)
        chosen = cp.asarray(rows.astype(np.int32))
        self._kernel.launch((*arrays, chosen, far, met), None, (T, B, H, k, EVERY, *limits), grid)
        found: Counts = cp.asnumpy(met).astype(np.int64)
        ran = np.empty(k, np.int64)
        for first in range(0, k, tile.rows):
            of_tile = found[first : first + tile.rows]
            stopped = of_tile.min() != UNMET
            ran[first : first + tile.rows] = min(T, of_tile.max() + late) if stopped else T
        return Corrected(found, ran)

    def describe(self) -> str:
        return f"place by a {self._kernel.describe()}"


class WindowedCorrection:
    """The loop itself, :data:`WINDOW` steps at a time, all rows of it."""

    def __init__(self, cell: Cell, loop: Loop, arithmetic: Arithmetic) -> None:
        self._cell, self._loop, self._arithmetic = cell, loop, arithmetic
        self._scratch: tuple[DeviceArray, DeviceArray] | None = None

    def forward(
        self, weights: GpuWeights, tape: GpuTape, start: int, stop: int, rows: Rows, tolerance: float
    ) -> Corrected:
        met, widen = np.full(len(rows), UNMET, np.int64), self._arithmetic.widen
        for first, last in _windows(start, stop):
            old = {name: widen(tape.h[last]) if name == "h" else tape.c[last].copy() for name in self._cell.state_names}
            self._loop.forward(weights, tape, first, last, training=True)
            far = np.zeros(len(rows), dtype=bool)
            for name, was in old.items():
                new = widen(tape.h[last]) if name == "h" else tape.c[last]
                moved = cp.asnumpy(cp.abs(new - was).max(axis=1))[rows]
                size = cp.asnumpy(cp.abs(new).max(axis=1))[rows] if name in self._cell.unbounded else 1.0
                far |= ~(moved <= tolerance * np.maximum(1.0, size))
            met[(met == UNMET) & ~far] = last - start
            if (met != UNMET).all():
                return Corrected(met, np.full(len(rows), last - start, np.int64))
        return Corrected(met, np.full(len(rows), stop - start, np.int64))

    def backward(
        self,
        weights: GpuWeights,
        tape: GpuTape,
        start: int,
        stop: int,
        rows: Rows,
        dstate: DeviceArray,
        limits: tuple[float, ...],
    ) -> Corrected:
        met, (_, B, H) = np.full(len(rows), UNMET, np.int64), tape.sizes
        d, no_dy = self._scratch_of(tape)
        alone, chosen = replace(tape, d=d), cp.asarray(rows)
        whole = cp.zeros((len(dstate), B, H), np.float32)
        whole[:, chosen] = dstate
        carried = dict(zip(self._cell.state_names, whole, strict=True))
        ran = stop - start
        for behind, ahead in _windows(start, stop):
            first, last = start + stop - ahead, start + stop - behind
            self._loop.backward(weights, alone, first, last, no_dy, carried)
            total = self._arithmetic.widen(tape.d[first:last]) + self._arithmetic.widen(d[first:last])
            self._arithmetic.round(total, tape.d[first:last])
            sizes = cp.asnumpy(cp.abs(whole).max(axis=2))[:, rows]
            far = ~(sizes <= np.array(limits, np.float32)[:, np.newaxis]).all(axis=0)
            met[(met == UNMET) & ~far] = stop - first
            if (met != UNMET).all():
                ran = stop - first
                break
        dstate[...] = whole[:, chosen]
        if ran < stop - start:
            dstate.fill(0)
        return Corrected(met, np.full(len(rows), ran, np.int64))

    def _scratch_of(self, tape: GpuTape) -> tuple[DeviceArray, DeviceArray]:
        """Gate gradients of a correction alone, and no gradient from above: made at the first use, and kept."""
        if self._scratch is None or self._scratch[0].shape != tape.d.shape:
            self._scratch = cp.zeros_like(tape.d), self._arithmetic.zeros(*tape.sizes)
        return self._scratch

    def describe(self) -> str:
        return f"windows of {WINDOW} steps"


def _windows(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, WINDOW):
        yield first, min(first + WINDOW, stop)


def make_correction(
    cell: Cell, variant: Variant, loop: Loop, B: int, H: int, arithmetic: Arithmetic, device: Device, kernel: Kernel
) -> Correction:
    """Return what runs rows of a loop's tape again: a persistent kernel where the loop is one and there is another."""
    if isinstance(loop, PersistentLoop):
        for tile in make_plan(variant, B, H, device.limits, kernel, CORRECTION_SPARE).tiles:
            if tile.subtiles > MOST_SUBTILES:
                continue
            made = PersistentKernel(variant, replace(tile, exchange="counter"), B, H, "correction.cu")
            if made.fits(device.limits):
                return PersistentCorrection(made)
    return WindowedCorrection(cell, loop, arithmetic)
