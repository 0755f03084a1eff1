"""The Jacobian of every segment, for small layers: the adjoint of every unit vector of its end."""

from __future__ import annotations

import numpy as np

from hpcrnn.cells.base import Array, Tape
from hpcrnn.cells.exchange import ALONE
from hpcrnn.methods.host_layer import LayerArrays


def segment_jacobians(layer: LayerArrays) -> Array:
    """Differentiate every segment's end by its start, along the trajectory on the tape.

    Each of the n·H unit vectors of the end is carried back through the segment, beside all others, as a row: reverse
    mode, with the backward step the cell has.

    Returns
    -------
    array (V, B, n*H, n*H)
        ``[.., i, j]``: derivative of component i of the end by component j of the start.
    """
    cell, tape, folding = layer.cell, layer.tape, layer.folding
    names, H, dtype = cell.state_names, tape.states["h"].shape[-1], tape.gates.dtype
    R, n = folding.rows, len(cell.state_names) * H
    units = np.tile(np.eye(n, dtype=dtype), (R, 1))
    dstate = {name: np.ascontiguousarray(units[:, i * H : (i + 1) * H]) for i, name in enumerate(names)}
    work = cell.make_workspace(R * n, H, dtype, layer.work.library, exchange=ALONE)
    cell.load(layer.parameters, work, backward=True)
    dy = np.zeros((1, R * n, H), dtype)
    gates = np.empty((1, R * n, tape.gates.shape[-1]), dtype)
    for step in reversed(range(folding.longest)):
        ends = folding.lengths <= step  # rows whose segment is shorter wait
        held = {name: a.copy() for name, a in dstate.items()} if ends.any() else {}
        states = {name: np.repeat(a[step : step + 2], n, axis=1) for name, a in tape.states.items()}
        saved = {name: np.repeat(a[step : step + 1], n, axis=-2) for name, a in tape.saved.items()}
        cell.backward(dy, dstate, Tape(gates, states, states["h"], saved), work)
        waiting = np.repeat(ends, n)
        for name, a in held.items():
            dstate[name][waiting] = a[waiting]
    rows = np.concatenate([dstate[name] for name in names], axis=1)
    return np.ascontiguousarray(rows.reshape(folding.segments, folding.samples, n, n))
