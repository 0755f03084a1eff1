"""The largest Lyapunov exponent where it is known, its sign where that is, and that looking at it changes nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from method_samples import FoldedLayer, Layer, make_layer, make_scalar_layer, on_line

from hpcrnn.cells import GRU, LSTM, Elman, MinGRU
from hpcrnn.methods.lyapunov import largest_exponent
from hpcrnn.spec import RecurrenceSpec


def exponent(layer, fold=1):
    folded = FoldedLayer(layer, RecurrenceSpec(method="picard", fold=fold))
    folded.solve()
    return largest_exponent(folded.arrays)


def make_rectified_layer(R, T, B=1):
    """Units that always fire, so that R is the Jacobian of every step."""
    H, states = len(R), np.zeros((1, B, len(R)))
    parameters = {"W": np.eye(H), "R": R, "b": np.zeros(H)}
    return Layer(Elman(activation="relu"), parameters, np.ones((T, B, H)), np.ones((T, B, H)), states, states)


ONE_STEP = 64


@pytest.mark.parametrize("fold", [1, 4, 32, ONE_STEP], ids=lambda fold: f"V{fold}")
@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 1.25])
def test_of_a_scaled_identity_it_is_the_logarithm_of_the_scale(factor, fold):
    layer = make_rectified_layer(factor * np.eye(5), 64, B=2)
    assert exponent(layer, fold) == pytest.approx(math.log(factor), abs=1e-12)


def test_of_a_linear_cell_it_is_that_of_the_unit_that_remembers_longest():
    """Without inputs the factors are constant: one minus the sigmoid of the bias."""
    layer = make_layer(MinGRU(), 240, H=3)
    parameters = {"W": 0 * layer.parameters["W"], "b": np.array([-3.0, 0.0, 2.0, 1.0, 1.0, 1.0])}
    layer = replace(layer, parameters=parameters)
    slowest = 1 - 1 / (1 + math.exp(3.0))
    assert exponent(layer) == pytest.approx(math.log(slowest), abs=1e-6)


def test_of_a_rotation_and_a_shrinking_plane_it_is_the_rotations():
    """Not of the mean, and not of what a random vector starts with."""
    turn = np.array([[0.0, 1.0], [1.0, 0.0]])
    R = np.block([[0.9 * turn, np.zeros((2, 2))], [np.zeros((2, 2)), 0.3 * turn]])
    assert exponent(make_rectified_layer(R, 200)) == pytest.approx(math.log(0.9), abs=1e-9)


@pytest.mark.parametrize(("gain", "sign"), [(0.5, -1), (3.0, 1)])
def test_its_sign_tells_chaos_from_contraction(gain, sign):
    layer, H = make_layer(Elman(), 400, H=48), 48
    R = gain / H**0.5 * np.random.default_rng(0).standard_normal((H, H))
    layer = replace(layer, parameters={**layer.parameters, "R": R})
    assert np.sign(exponent(layer, 2)) == sign


def test_where_everything_vanishes_it_is_minus_infinity():
    """Rectified units that never fire pass nothing on."""
    layer = make_scalar_layer(0.5, 16)
    assert exponent(replace(layer, x=-layer.x), 2) == -math.inf


def test_every_rank_looks_at_its_own_window():
    """h forgets slowly in the first half of time and fast in the second: the ranks see one each."""
    x = np.repeat([-3.0, 3.0], 40)[:, np.newaxis, np.newaxis]
    parameters, states = {"W": np.array([[1.0, 0.0]]), "b": np.zeros(2)}, np.zeros((1, 1, 1))
    layer = Layer(MinGRU(), parameters, x, np.ones_like(x), states, states)

    def on_rank(line):
        folded = FoldedLayer(layer, RecurrenceSpec(method="scan", fold=2), line)
        folded.solve()
        return largest_exponent(folded.arrays)

    kept = [1 - 1 / (1 + math.exp(-x)) for x in (-3, 3)]
    assert on_line(2, on_rank) == pytest.approx(np.log(kept), abs=1e-9)


@pytest.mark.parametrize("cell", [LSTM(), GRU(), GRU(reset="before"), MinGRU()], ids=lambda cell: cell.name)
def test_estimating_it_changes_nothing(cell):
    folded = FoldedLayer(make_layer(cell, 24), RecurrenceSpec(method="picard", fold=3))
    folded.solve()
    tape = folded.arrays.tape
    before = {name: a.copy() for name, a in {"gates": tape.gates, **tape.states, **tape.saved}.items()}
    first = largest_exponent(folded.arrays)
    for name, a in {"gates": tape.gates, **tape.states, **tape.saved}.items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)
    assert largest_exponent(folded.arrays) == first


@pytest.mark.parametrize(
    "cell",
    [
        Elman(),
        LSTM(),
        GRU(reset="before"),
        MinGRU(),
        GRU(),
    ],
    ids=["elman", "lstm", "gru-before", "mingru", "gru-after"],
)
def test_it_is_the_same_after_the_weight_gradient(cell):
    """A run asks for it once a step is over."""
    folded = FoldedLayer(make_layer(cell, 24), RecurrenceSpec(method="picard", fold=3))
    folded.solve()
    first = largest_exponent(folded.arrays)
    folded.outcome()
    assert largest_exponent(folded.arrays) == pytest.approx(first, rel=1e-12)
