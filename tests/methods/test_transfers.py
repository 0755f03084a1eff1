"""Predicted starts: the solution of one linear system, however its segments are cut over ranks."""

import numpy as np
import pytest
from method_samples import on_line

from hpcrnn.methods.transfers import DenseTransfer, DiagonalTransfer

S, B, H = 6, 2, 3  # segments, samples, units

CUTS = [(1, S), (2, 3), (3, 2), (S, 1)]
every_cut = pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut[0]}x{cut[1]}")
both_ways = pytest.mark.parametrize("leftward", [False, True], ids=["rightward", "leftward"])


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def by_dense_solve(gaps, maps, *, leftward):
    """δ of ``δ_{k+1} = gap_{k+1} + A_k δ_k``, sample by sample; leftward with the transposes and from the right."""
    n = gaps.shape[0] * H
    deltas = np.empty_like(gaps)
    for b in range(B):
        matrix = np.eye(S * n).reshape(S, n, S, n)
        for k in range(S - 1):
            if leftward:
                matrix[k, :, k + 1, :] = -maps[k + 1, b].T
            else:
                matrix[k + 1, :, k, :] = -maps[k, b]
        right = gaps[:, :, b].transpose(1, 0, 2).reshape(S * n)
        found = np.linalg.solve(matrix.reshape(S * n, S * n), right)
        deltas[:, :, b] = found.reshape(S, -1, H).transpose(1, 0, 2)
    return deltas


def on_ranks(cut, gaps, make_transfer, *, leftward):
    """The corrections of all segments, each rank's own ones put side by side."""
    ranks, fold = cut

    def on_rank(line):
        own = slice(line.rank * fold, (line.rank + 1) * fold)
        return make_transfer(own).corrections(np.ascontiguousarray(gaps[:, own]), line, leftward=leftward)

    return np.concatenate(on_line(ranks, on_rank), axis=1)


DIAGONALS = {"one state": (1, 0), "two states, the second remembers": (2, 1), "two states, the first": (2, 0)}


@every_cut
@both_ways
@pytest.mark.parametrize("states", DIAGONALS.values(), ids=DIAGONALS)
def test_gate_products_solve_their_linear_system(states, leftward, cut):
    n, memory = states
    gaps, kept = draw(n, S, B, H), draw(S, B, H, seed=1)
    exposures = {i: draw(S, B, H, seed=2) for i in range(n) if i != memory}
    maps = np.zeros((S, B, n, H, n, H))
    units = np.arange(H)
    maps[:, :, memory, units, memory, units] = kept
    for i, q in exposures.items():
        maps[:, :, i, units, memory, units] = q * kept
    expected = by_dense_solve(gaps, maps.reshape(S, B, n * H, n * H), leftward=leftward)

    def make(own):
        return DiagonalTransfer(memory, kept[own], {i: q[own] for i, q in exposures.items()})

    np.testing.assert_allclose(on_ranks(cut, gaps, make, leftward=leftward), expected, rtol=0, atol=1e-12)


@every_cut
@both_ways
@pytest.mark.parametrize("n", [1, 2])
def test_jacobians_solve_their_linear_system(n, leftward, cut):
    gaps, maps = draw(n, S, B, H), 0.5 * draw(S, B, n * H, n * H, seed=3)
    expected = by_dense_solve(gaps, maps, leftward=leftward)
    found = on_ranks(cut, gaps, lambda own: DenseTransfer(maps[own]), leftward=leftward)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@both_ways
def test_a_change_is_seen_by_later_segments_only(leftward):
    """A correction of segment 3 moves no segment before it in the order of the pass, and every one after."""
    gaps = np.zeros((1, S, B, H))
    gaps[:, 3] = 1
    kept = np.full((S, B, H), 0.5)
    deltas = DiagonalTransfer(0, kept, {}).corrections(gaps, on_line(1, lambda line: line)[0], leftward=leftward)
    expected = [1 / 8, 1 / 4, 1 / 2, 1, 0, 0] if leftward else [0, 0, 0, 1, 1 / 2, 1 / 4]
    np.testing.assert_array_equal(deltas[0, :, 0, 0], expected)
