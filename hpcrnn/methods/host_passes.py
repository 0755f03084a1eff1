"""Passes over a layer whose arrays NumPy works on: see :mod:`hpcrnn.methods.passes`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcrnn.cells.base import Array, input_product
from hpcrnn.methods.host_layer import LayerArrays
from hpcrnn.methods.jacobian import segment_jacobians
from hpcrnn.methods.line import Line
from hpcrnn.methods.passes import GateProducts, Pass, Rerun, Rows, gradient_scale, relative_to_size
from hpcrnn.methods.strips import States
from hpcrnn.records.certificate import UNMET

_FEW = 0.5
"""Rows are copied out of the batch once at most this share of it has not met: a copied row costs 1.4 times as much as
one where it lies, so from two thirds of the batch on copying gains nothing."""

_EVERY = 16
"""Of the gradients that set the scale of a correction, one step in so many is looked at."""


class _HostPass(Pass):
    """A pass over NumPy arrays.

    Parameters
    ----------
    layer : LayerArrays
    line : Line
    tolerance : float
    """

    def __init__(self, layer: LayerArrays, line: Line, tolerance: float) -> None:
        super().__init__(layer.cell, layer.folding, layer.tape.states["h"].shape[-1], layer.tape.gates.dtype)
        self._l, self._line, self._tolerance = layer, line, tolerance

    def gate_products(self) -> GateProducts:
        layer, folding = self._l, self.folding
        factors = layer.cell.retention(layer.parameters, layer.tape)
        kept = np.prod(factors[: folding.common], axis=0)
        if not folding.is_even:
            kept[: folding.long_rows] *= factors[folding.common, : folding.long_rows]
        return GateProducts(kept, layer.cell.exposure(layer.tape, folding.lengths - 1))

    def jacobians(self) -> Array:
        return segment_jacobians(self._l)


class ForwardPass(_HostPass):
    """The states, left to right."""

    direction = "forward"
    leftward = False

    def run(self, steps: slice | None = None) -> None:
        layer, folding = self._l, self._l.folding
        start, stop = (0, folding.longest) if steps is None else (steps.start, steps.stop)
        tape = layer.tape.window(start, stop)
        for name, halo in self.by_name(self.received).items():
            np.copyto(tape.states[name][0], halo)
        common = folding.common - start
        layer.cell.forward(layer.parameters, layer.x[start:][:common], tape.window(0, common), layer.work)
        if not folding.is_even:
            last = layer.tape.window(folding.common, folding.longest)
            input_product(layer.parameters, layer.x[folding.common :], last, layer.work)
            self._last_step()
        self._read_ends()

    def _last_step(self) -> None:
        """The step that only the longer segments have."""
        layer, step, rows = self._l, self._l.folding.common, np.arange(self._l.folding.long_rows)
        before = {name: a[step][rows] for name, a in layer.tape.states.items()}
        after = {name: np.empty_like(a) for name, a in before.items()}
        layer.strips.forward(step, rows, before, before["h"], after)
        for name, a in layer.tape.states.items():
            a[step + 1, rows] = after[name]

    def _read_ends(self) -> None:
        rows = np.arange(self.folding.rows)
        for index, a in enumerate(self._l.tape.states.values()):
            self.handed[index] = a[self.folding.lengths, rows]
        self.scale = relative_to_size(self.handed, self.cell.unbounded, self.cell.state_names)

    def rerun(self, rows: Rows, halos: Array) -> Rerun:
        layer, tape, folding = self._l, self._l.tape, self._l.folding
        names, unbounded = layer.cell.state_names, layer.cell.unbounded
        H, dtype = halos.shape[2], halos.dtype
        met, unmet = np.full(folding.rows, UNMET, dtype=np.int64), np.zeros(folding.rows, dtype=bool)
        unmet[rows] = True
        active = np.arange(folding.rows) if len(rows) > _FEW * folding.rows else rows
        before = {name: a[0, active].copy() for name, a in tape.states.items()}
        difference = -before["h"]
        chosen = np.searchsorted(active, rows)
        for name, halo in self.by_name(halos).items():
            before[name][chosen] = halo
            tape.states[name][0, active] = before[name]
        self.received[:, rows] = halos
        np.add(difference, before["h"], out=difference)
        after = {name: np.empty((len(active), H), dtype) for name in names}
        row_steps = n_steps = 0
        for step in range(folding.longest):
            if step == folding.common:
                active, (difference, before, after) = _kept(
                    active < folding.long_rows, active, difference, before, after
                )
                if not unmet[active].any():
                    break
            layer.strips.forward(step, active, before, difference, after)
            row_steps += len(active)
            n_steps += 1
            far = np.zeros(len(active), dtype=bool)
            for name in names:
                lies = tape.states[name][step + 1]
                old = lies if len(active) == folding.rows else lies[active]
                moved = np.subtract(after[name], old, out=before[name])
                if name == "h":
                    np.copyto(difference, moved)
                size = np.abs(moved, out=moved).max(axis=1)
                limit = self._tolerance
                if name in unbounded:
                    limit = self._tolerance * np.maximum(1.0, np.abs(after[name]).max(axis=1))
                far |= ~(size <= limit)
                lies[active] = after[name]
            before, after = after, before
            arrived = active[~far & unmet[active]]
            met[arrived], unmet[arrived] = step + 1, False
            n_unmet = int(np.count_nonzero(unmet[active]))
            if not n_unmet:
                break
            if n_unmet <= _FEW * len(active):
                active, (difference, before, after) = _kept(unmet[active], active, difference, before, after)
        self._read_ends()
        return Rerun(n_steps, row_steps, met[rows])


def _kept(
    keep: npt.NDArray[np.bool_], active: Rows, difference: Array, before: States, after: States
) -> tuple[Rows, tuple[Array, States, States]]:
    """Drop rows from the batch of a forward re-run."""
    if keep.all():
        return active, (difference, before, after)
    shorter = {name: a[keep] for name, a in before.items()}
    return active[keep], (difference[keep], shorter, {name: np.empty_like(a) for name, a in shorter.items()})


class BackwardPass(_HostPass):
    """The gradients, right to left; linear, so a re-run carries the correction alone and adds it to what is there."""

    direction = "backward"
    leftward = True

    def run(self, steps: slice | None = None) -> None:
        layer, folding = self._l, self._l.folding
        if layer.dy is None:
            raise TypeError("no gradients in mode forward")
        dstate = self.by_name(np.copy(self.received))
        stop = folding.longest if steps is None else steps.stop
        if stop > folding.common:
            if not folding.is_even:
                self._last_step(dstate, layer.dy)
            stop = folding.common
        layer.cell.backward(layer.dy[:stop], dstate, layer.tape.window(0, stop), layer.work)
        for index, name in enumerate(layer.cell.state_names):
            np.copyto(self.handed[index], dstate[name])
        self.scale = self._scale(layer.dy)

    def _last_step(self, dstate: States, dy: Array) -> None:
        """The step that only the longer segments have; the gates of the others have no gradient there."""
        layer, step, rows = self._l, self._l.folding.common, np.arange(self._l.folding.long_rows)
        layer.tape.gates[step] = 0
        own = {name: a[rows] for name, a in dstate.items()}
        own["h"] += dy[step, rows]
        layer.strips.backward(step, rows, own)
        for name, a in own.items():
            dstate[name][rows] = a

    def _scale(self, dy: Array) -> Array:
        """Largest gradient of each state, over all rows and ranks: that of ``dy``, and at the segments' ends."""
        largest = np.abs(self.handed).max(axis=(1, 2)).astype(np.float64)
        np.maximum(largest, np.abs(self.received).max(axis=(1, 2)), out=largest)
        names = self._l.cell.state_names
        seen = max(float(np.abs(dy[::_EVERY]).max()), float(np.abs(dy[-1]).max()))
        largest[names.index("h")] = max(largest[names.index("h")], seen)
        return gradient_scale(self._line.largest(largest))

    def rerun(self, rows: Rows, halos: Array) -> Rerun:
        layer, folding = self._l, self._l.folding
        names = layer.cell.state_names
        met, unmet = np.full(folding.rows, UNMET, dtype=np.int64), np.zeros(folding.rows, dtype=bool)
        unmet[rows] = True
        correction = np.zeros_like(self.received)
        correction[:, rows] = halos - self.received[:, rows]
        self.received[:, rows] = halos
        limits = [self._tolerance * float(limit) for limit in self.scale[:, 0]]
        whole = len(rows) > _FEW * folding.rows
        waiting = np.arange(folding.rows) if whole else rows
        active = waiting[:0]
        dstate: States = {name: correction[index, active] for index, name in enumerate(names)}
        row_steps = n_steps = 0
        for step in reversed(range(folding.longest)):
            joins = waiting[folding.lengths[waiting] == step + 1]
            if len(joins):  # at the last step the longer segments, which come first, then all others
                active = np.concatenate([active, joins])
                dstate = {n: np.concatenate([a, correction[i, joins]]) for i, (n, a) in enumerate(dstate.items())}
                waiting = waiting[len(joins) :] if len(joins) < len(waiting) else waiting[:0]
            if not len(active):
                continue
            layer.strips.backward(step, active, dstate)
            row_steps += len(active)
            n_steps += 1
            far = np.zeros(len(active), dtype=bool)
            for name, limit in zip(names, limits, strict=True):
                far |= ~(np.abs(dstate[name]).max(axis=1) <= limit)
            arrived = active[~far & unmet[active]]
            met[arrived], unmet[arrived] = folding.lengths[arrived] - step, False
            n_unmet = int(np.count_nonzero(unmet[active])) + len(waiting)
            if not n_unmet:
                dstate = {name: a[:0] for name, a in dstate.items()}
                active = active[:0]
                break
            if n_unmet <= _FEW * len(active) and not len(waiting):
                keep = unmet[active]
                active, dstate = active[keep], {name: a[keep] for name, a in dstate.items()}
        for index, name in enumerate(names):
            self.handed[index, active] += dstate[name]
        return Rerun(n_steps, row_steps, met[rows])
