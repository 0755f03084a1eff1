"""Segment Jacobians against finite differences of the segments' ends."""

import numpy as np
import pytest
from method_samples import FoldedLayer, every_cell, make_layer

from hpcrnn.cells import GRU
from hpcrnn.methods.jacobian import segment_jacobians
from hpcrnn.spec import RecurrenceSpec

STEP = 1e-6


def ends(folded):
    """Run all segments from what they received; their ends side by side (V, B, n*H)."""
    folded.forward.run()
    stacked = folded.forward.handed.transpose(1, 0, 2)
    return stacked.reshape(folded.folding.segments, folded.folding.samples, -1).copy()


@every_cell
@pytest.mark.parametrize("fold", [1, 3, 4], ids=["whole", "even", "uneven"])
def test_jacobians_are_the_derivatives_of_the_ends(cell, fold):
    layer = make_layer(cell, 9, B=2, H=4)
    folded = FoldedLayer(layer, RecurrenceSpec(method="deer", fold=fold))
    start = 0.3 * np.random.default_rng(7).standard_normal(folded.forward.received.shape)
    folded.forward.received[...] = start
    ends(folded)
    found = segment_jacobians(folded.arrays)
    n, rows, H = start.shape
    assert found.shape == (fold, 2, n * H, n * H)
    for j in range(n * H):
        moved = []
        for sign in (1, -1):
            folded.forward.received[...] = start
            folded.forward.received[j // H, :, j % H] += sign * STEP
            moved.append(ends(folded))
        column = (moved[0] - moved[1]) / (2 * STEP)
        np.testing.assert_allclose(found[..., j], column, rtol=0, atol=1e-8)
    assert rows == 2 * fold


def test_they_leave_the_tape_and_the_weights_as_they_are():
    """A solve asks for them between its rounds, backward on top of gradients that are complete."""
    folded = FoldedLayer(make_layer(GRU(), 9), RecurrenceSpec(method="deer", fold=2))
    folded.solve()
    tape = folded.arrays.tape
    before = {name: a.copy() for name, a in {"gates": tape.gates, **tape.states, **tape.saved}.items()}
    segment_jacobians(folded.arrays)
    for name, a in {"gates": tape.gates, **tape.states, **tape.saved}.items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)
