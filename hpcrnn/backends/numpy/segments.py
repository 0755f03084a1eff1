"""A recurrent block whose segments of time run at once, by one of the methods of :mod:`hpcrnn.methods`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcrnn.backends.base import Array, LayerSolve
from hpcrnn.backends.numpy.blocks import Context, RecurrentBlock
from hpcrnn.methods.codec import make_codec
from hpcrnn.methods.host_layer import LayerArrays
from hpcrnn.methods.host_passes import BackwardPass, ForwardPass
from hpcrnn.methods.lyapunov import largest_exponent
from hpcrnn.methods.solver import Solve, Solver, tolerance_of


class SegmentedBlock(RecurrentBlock):
    """One recurrent layer over a folded window of time; the ranks of all windows work on a task together."""

    def __init__(self, context: Context, _: Sequence[Array]) -> None:
        cell, extent = context.block.cell, context.extent
        if cell is None:
            raise TypeError(context.block.name)
        super().__init__(context, cell)
        tolerance = tolerance_of(extent.recurrence, context.dtype)
        self._solver = Solver(extent.recurrence, context.line, make_codec(extent.recurrence.halo_codec), tolerance)
        self._layers: list[LayerArrays] = []
        self._chunk = extent.own_chunks[0]
        self._forward: list[ForwardPass] = []
        self._backward: list[BackwardPass] = []
        self._solves: dict[tuple[str, int], Solve] = {}
        for m in range(len(extent.microbatches)):
            unit = (m, self._chunk)
            layer = LayerArrays(
                cell,
                context.parameters,
                context.before.value[unit],
                self.output.gradient.get(unit),
                self.tapes[unit],
                self._workspaces[m],
                extent.folding(m),
            )
            self._layers.append(layer)
            self._forward.append(ForwardPass(layer, context.line, tolerance))
            self._backward.append(BackwardPass(layer, context.line, tolerance))

    def forward(self, m: int, c: int) -> float:  # noqa: ARG002 - there is one chunk
        self._lay_out_weights()
        sweep = self._forward[m]
        self._solves["forward", m] = self._solver.solve(sweep, np.stack(list(self.initial[m].values())))
        last = sweep.handed[:, -self._c.extent.samples(m) :]
        for state, end in zip(self.final[m].values(), last, strict=True):
            np.copyto(state, end)
        return 0.0

    def backward(self, m: int, c: int) -> None:
        sweep = self._backward[m]
        self._solves["backward", m] = self._solver.solve(sweep, np.stack(list(self.cotangent[m].values())))
        first = sweep.handed[:, : self._c.extent.samples(m)]
        for gradient, start in zip(self.carry[m].values(), first, strict=True):
            np.copyto(gradient, start)
        self._input_gradient(m, c)

    def solves(self) -> tuple[LayerSolve, ...]:
        rows = self._c.extent.microbatches
        return tuple(LayerSolve(self.name, way, rows[m], solve) for (way, m), solve in self._solves.items())

    def exponent(self) -> float:
        """Estimate the largest Lyapunov exponent along the last step's trajectories, 1/step."""
        if not self._c.extent.backward:  # which has not laid out the transposed weights
            for work in self._distinct:
                self.cell.load(self._c.parameters, work, backward=True)
        return float(np.mean([largest_exponent(layer) for layer in self._layers]))
