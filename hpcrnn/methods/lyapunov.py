"""The largest Lyapunov exponent of a layer along its trajectory: whether corrections die out, and how fast."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcrnn.methods.host_layer import LayerArrays
from hpcrnn.methods.strips import States

TRAJECTORY_STEPS = 256
"""Length of the trajectory looked at, at the most."""


def largest_exponent(layer: LayerArrays) -> float:
    """Estimate the mean growth, per step, of a random covector carried back along the trajectory on the tape.

    The transposed product of the Jacobians has the singular values of the product itself, so their leading exponents
    agree (Oseledets). The first half of the way lets the covector turn into the leading direction and is not counted.

    Returns
    -------
    float
        1/step, averaged over rows; -inf where all of it vanishes.
    """
    cell, tape = layer.cell, layer.tape
    H, dtype = tape.states["h"].shape[-1], tape.gates.dtype
    n_steps = min(TRAJECTORY_STEPS, layer.folding.common)
    rng = np.random.default_rng(0x1E)
    dstate = {name: rng.standard_normal((layer.folding.rows, H)).astype(dtype) for name in cell.state_names}
    dstate, _ = _normalised(dstate)
    scratch = tape.gates[:1].copy()
    rows, growth, counted = np.arange(layer.folding.rows), np.zeros(layer.folding.rows), 0
    for number, step in enumerate(reversed(range(n_steps))):
        scratch[0] = tape.gates[step]
        layer.strips.backward(step, rows, dstate)
        tape.gates[step] = scratch[0]
        dstate, length = _normalised(dstate)
        if number >= n_steps // 2:
            with np.errstate(divide="ignore"):
                growth += np.log(length)
            counted += 1
    return float((growth / max(counted, 1)).mean())


def _normalised(covector: States) -> tuple[States, npt.NDArray[np.float64]]:
    """Scale each row of a covector, of arrays (R, H), to length one, and return the lengths (R,) it had.

    A row that has vanished stays zero.
    """
    length = np.sqrt(sum(np.einsum("ij,ij->i", a, a, dtype=np.float64) for a in covector.values()))
    per_row = 1 / np.maximum(length, np.finfo(covector["h"].dtype).tiny)
    return {name: a * per_row.astype(a.dtype)[:, np.newaxis] for name, a in covector.items()}, length
