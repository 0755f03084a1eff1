"""Methods whose guess stays: what the segments start from, and what is said about it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from method_samples import (
    FoldedLayer,
    assert_same_bits,
    chain,
    error,
    every_cell,
    make_layer,
    on_line,
    solved,
)

from hpcrnn.cells import GRU, LSTM, Elman
from hpcrnn.methods.folding import Folding
from hpcrnn.spec import RecurrenceSpec

B = 2
every_line = pytest.mark.parametrize("ranks", [1, 2])


def as_rows_of_a_batch(layer, fold):
    """Every segment a sequence of its own, from zero; the first from the initial states, the last to the final ones."""
    folding = Folding(layer.steps, layer.samples, fold)
    x, dy = np.ascontiguousarray(folding.fold(layer.x)), np.ascontiguousarray(folding.fold(layer.dy))
    initial, cotangent = (np.zeros((len(layer.initial), folding.rows, layer.hidden)) for _ in range(2))
    initial[:, : layer.samples], cotangent[:, -layer.samples :] = layer.initial, layer.cotangent
    return replace(layer, x=x, dy=dy, initial=initial, cotangent=cotangent)


@every_cell
def test_truncation_is_a_batch_of_independent_sequences(cell):
    layer, fold = make_layer(cell, 24, B), 4
    rows = as_rows_of_a_batch(layer, fold)
    separate, folding = chain(rows), Folding(24, B, fold)
    found = solved(layer, "tbptt_zero", fold)
    assert_same_bits(found, separate, [f"d{name}" for name in layer.parameters])
    for name in ("y", "dx"):
        np.testing.assert_array_equal(found.arrays[name], folding.unfold(separate.arrays[name]), err_msg=name)
    for i in range(len(cell.state_names)):
        np.testing.assert_array_equal(found.arrays[f"final {i}"], separate.arrays[f"final {i}"][-B:])
        np.testing.assert_array_equal(found.arrays[f"d initial {i}"], separate.arrays[f"d initial {i}"][:B])
    assert [solve.steps for solve in (*found.forward, *found.backward)] == [(6,), (6,)]
    assert not found.forward[0].converged
    over_ranks = solved(layer, "tbptt_zero", 2, 2)
    assert error(over_ranks, found) < 1e-14
    assert over_ranks.forward[0].residual == found.forward[0].residual


@every_line
def test_a_stale_start_is_where_the_neighbour_ended_the_step_before(ranks):
    first, second = make_layer(LSTM(), 24, B, seed=1), make_layer(LSTM(), 24, B, seed=2)
    fold = 4 // ranks
    spec = RecurrenceSpec(method="tbptt_stale", fold=fold)

    def two_steps(line):
        folded = FoldedLayer(first, spec, line)
        folded.solve()
        found = [folded.forward.received.copy(), folded.forward.handed.copy()]
        window = slice(line.rank * 24 // line.size, (line.rank + 1) * 24 // line.size)
        folded.arrays.x[...] = folded.folding.fold(second.x[window])
        folded.solve()
        return *found, folded.forward.received.copy(), folded.backward.received.copy()

    ranks_found = on_line(ranks, two_steps)
    starts, ends, later, halos = (np.concatenate(found, axis=1) for found in zip(*ranks_found, strict=True))
    np.testing.assert_array_equal(starts[:, :B], first.initial)
    assert not starts[:, B:].any()  # of the first step nothing is known
    np.testing.assert_array_equal(later[:, :B], first.initial)
    np.testing.assert_array_equal(later[:, B:], ends[:, :-B])
    np.testing.assert_array_equal(halos[:, -B:], first.cotangent)
    assert not halos[:, :-B].any()


def starts_after_a_warm_up(layer, boundaries, burn_in):
    """States to which ``burn_in`` steps lead from zero, before each boundary: (n, boundaries, B, H)."""
    zero = 0 * layer.initial
    found = []
    for at in boundaries:
        window = slice(at - burn_in, at)
        ended = chain(replace(layer, x=layer.x[window], dy=layer.dy[window], initial=zero))
        found.append([ended.arrays[f"final {i}"] for i in range(len(zero))])
    return np.array(found).swapaxes(0, 1)


def halos_after_a_warm_up(layer, boundaries, burn_in):
    """Likewise of the adjoint: gradients of the state before ``burn_in`` steps, zero behind them, along the chain."""
    zero = 0 * layer.initial
    found = []
    for at in boundaries:
        before = chain(replace(layer, x=layer.x[:at], dy=layer.dy[:at]))
        state = np.array([before.arrays[f"final {i}"] for i in range(len(zero))])
        window = slice(at, at + burn_in)
        part = replace(layer, x=layer.x[window], dy=layer.dy[window], initial=state, cotangent=zero)
        after = chain(part)
        found.append([after.arrays[f"d initial {i}"] for i in range(len(zero))])
    return np.array(found).swapaxes(0, 1)


def received(layer, method, ranks, fold, burn_in):
    """What the segments ran from: forward, backward, as (n, segments, B, H)."""
    spec = RecurrenceSpec(method=method, fold=fold, burn_in=burn_in)

    def on_rank(line):
        folded = FoldedLayer(layer, spec, line)
        solves = folded.solve()
        return folded.forward.received, folded.backward.received, *solves

    forward, backward, *solves = zip(*on_line(ranks, on_rank), strict=True)
    shape = (len(layer.initial), ranks * fold, layer.samples, layer.hidden)
    halos = [np.concatenate(found, axis=1).reshape(shape) for found in (forward, backward)]
    return *halos, *solves


@every_cell
@every_line
@pytest.mark.parametrize("burn_in", [1, 4, 6])
def test_a_burnt_in_start_is_a_short_chain_from_zero(cell, burn_in, ranks):
    layer = make_layer(cell, 24, B)
    starts, halos, forward, _ = received(layer, "burnin", ranks, 4 // ranks, burn_in)
    expected = starts_after_a_warm_up(layer, (6, 12, 18), burn_in)
    np.testing.assert_allclose(starts[:, 1:], expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(starts[:, 0], layer.initial)
    assert not halos[:, :-1].any()  # burnt-in states carry no gradient
    np.testing.assert_array_equal(halos[:, -1], layer.cotangent)
    assert {solve.steps for solve in forward} == {(6 + burn_in,)}
    assert sum(solve.row_steps for solve in forward) == 4 * B * (6 + burn_in)


@pytest.mark.parametrize("burn_in", [1, 3])
def test_a_warm_up_behind_a_longer_segment_has_its_one_step_more(burn_in):
    layer = make_layer(LSTM(), 22, B)
    starts, *_ = received(layer, "burnin", 1, 4, burn_in)  # lengths 6, 6, 5, 5
    longer = starts_after_a_warm_up(layer, (6, 12, 17), burn_in + 1)
    shorter = starts_after_a_warm_up(layer, (6, 12, 17), burn_in)
    np.testing.assert_allclose(starts[:, 1:3], longer[:, :2], rtol=0, atol=1e-14)
    np.testing.assert_allclose(starts[:, 3], shorter[:, 2], rtol=0, atol=1e-14)


@every_line
@pytest.mark.parametrize("cell", [Elman(), GRU()], ids=["elman", "gru"])
def test_an_overlap_warms_up_the_adjoint_too(cell, ranks):
    """Contraction makes the states of the overlap those of the chain, so that the adjoint is around these."""
    layer = make_layer(cell, 120, B).with_parameters(R=0.1)
    starts, halos, _, backward = received(layer, "overlap_verified", ranks, 4 // ranks, 25)
    np.testing.assert_allclose(starts[:, 1:], starts_after_a_warm_up(layer, (30, 60, 90), 25), rtol=0, atol=1e-13)
    np.testing.assert_allclose(halos[:, :-1], halos_after_a_warm_up(layer, (30, 60, 90), 25), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(halos[:, -1], layer.cotangent)
    assert {solve.steps for solve in backward} == {(30 + 25,)}


@every_line
def test_the_residual_of_an_overlap_is_the_gap_at_its_boundaries_and_falls_with_its_length(ranks):
    layer = make_layer(LSTM(), 96, B)
    residuals = []
    for burn_in in (1, 4, 8, 16, 24):
        spec = RecurrenceSpec(method="overlap_verified", fold=4 // ranks, burn_in=burn_in, tolerance=1e-3)

        def on_rank(line, spec=spec):
            folded = FoldedLayer(layer, spec, line)
            solve, _ = folded.solve()
            return solve, folded.forward.received, folded.forward.handed

        solves, starts, ends = zip(*on_line(ranks, on_rank), strict=True)
        starts, ends = (np.concatenate(halos, axis=1) for halos in (starts, ends))
        gaps = np.abs(ends[:, :-B] - starts[:, B:]).max(axis=2)
        gaps[1] /= np.maximum(1, np.abs(ends[1, B:]).max(axis=1))  # of c relative to its row
        assert {solve.residual for solve in solves} == {gaps.max()}
        assert {solve.converged for solve in solves} == {bool(gaps.max() <= 1e-3)}
        residuals.append(gaps.max())
    assert all(later < 0.5 * earlier for earlier, later in pairwise(residuals))
    assert residuals[0] > 1e-3 > residuals[-1]


def test_a_warm_up_of_picard_leaves_less_to_correct():
    layer = make_layer(LSTM(), 96, B)
    plain, warm = (solved(layer, "picard", 4, tolerance=1e-6, burn_in=burn_in).forward[0] for burn_in in (0, 12))
    assert warm.steps[0] == plain.steps[0] + 12
    assert sum(warm.steps[1:]) < sum(plain.steps[1:])
    assert warm.converged
    settled = solved(layer, "picard", 2, tolerance=1e-3, burn_in=48).forward[0]
    assert settled.steps == (96,)  # a whole segment ahead, and every start is right
