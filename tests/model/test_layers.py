"""Embedding and losses: against slow definitions, finite differences and closed forms."""

import numpy as np
import pytest

from hpcrnn.model.layers import cross_entropy, embed, embed_gradient, squared_error

N, V, O = 5, 7, 3  # noqa: E741 - the field's name for the width of an output
SCALE = 0.3

LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error}
every_loss = pytest.mark.parametrize("name", LOSSES)
weighted = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])


def make_problem(name, *, weighted=False, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    width = V if name == "cross_entropy" else O
    scores = rng.standard_normal((N, width)).astype(dtype)
    targets = rng.integers(0, V, N, dtype=np.int32) if name == "cross_entropy" else rng.standard_normal((N, O))
    weights = rng.uniform(0, 2, N).astype(dtype) if weighted else None
    return scores, targets if name == "cross_entropy" else targets.astype(dtype), weights


def evaluate(name, scores, targets, weights, scale=SCALE):
    gradient = scores.copy()
    value = LOSSES[name](gradient, targets, weights, scale)
    return value, gradient


def by_definition(name, scores, targets, weights):
    """The loss a row at a time, straight from its formula."""
    total = 0.0
    for row in range(len(scores)):
        if name == "cross_entropy":
            term = -np.log(np.exp(scores[row, targets[row]]) / np.exp(scores[row]).sum())
        else:
            term = ((scores[row] - targets[row]) ** 2).mean()
        total += term * (1.0 if weights is None else weights[row])
    return SCALE * total


@weighted
@every_loss
def test_a_loss_is_its_formula(name, weighted):
    scores, targets, weights = make_problem(name, weighted=weighted)
    value, _ = evaluate(name, scores, targets, weights)
    # A dozen roundings a term, of a few units.
    assert value == pytest.approx(by_definition(name, scores, targets, weights), rel=1e-14)


@weighted
@every_loss
def test_a_losss_gradient_is_its_slope(name, weighted):
    scores, targets, weights = make_problem(name, weighted=weighted)
    _, gradient = evaluate(name, scores, targets, weights)
    # Central differences of a loss of a few units: s² + eps / s, both 4e-11, a few times over.
    step = np.finfo(np.float64).eps ** (1 / 3)
    for index in np.ndindex(scores.shape):
        up, down = scores.copy(), scores.copy()
        up[index] += step
        down[index] -= step
        slope = (evaluate(name, up, targets, weights)[0] - evaluate(name, down, targets, weights)[0]) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=1e-9)


def test_cross_entropys_gradient_is_softmax_minus_the_target():
    scores, targets, weights = make_problem("cross_entropy", weighted=True)
    _, gradient = evaluate("cross_entropy", scores, targets, weights)
    softmax = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = SCALE * weights[:, None] * (softmax - np.eye(V)[targets])
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-15)


def test_the_cross_entropy_of_equal_scores_is_log_v():
    value, _ = evaluate("cross_entropy", np.full((N, V), 3.0), np.zeros(N, np.int32), None, scale=1 / N)
    assert value == pytest.approx(np.log(V), rel=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_scores_do_not_overflow(dtype):
    scores = np.array([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value, gradient = evaluate("cross_entropy", scores, np.array([1, 2], np.int32), None, scale=1.0)
    # The first row misses its target by 2e30, the second is log 3; the sum is rounded to the first.
    assert value == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(gradient, [[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]], rtol=1e-6)


def test_a_squared_error_of_nothing_is_nothing():
    outputs = np.random.default_rng(0).standard_normal((N, O))
    value, gradient = evaluate("squared_error", outputs, outputs, None)
    assert value == 0
    assert not gradient.any()


@weighted
@every_loss
def test_parts_of_the_rows_add_up_to_the_whole(name, weighted):
    """What lets ranks and micro-batches of unequal size share a batch: every term has the global scale."""
    scores, targets, weights = make_problem(name, weighted=weighted)
    whole, gradient = evaluate(name, scores, targets, weights)
    parts = [slice(0, 3), slice(3, N)]
    results = [evaluate(name, scores[p], targets[p], None if weights is None else weights[p]) for p in parts]
    assert sum(value for value, _ in results) == pytest.approx(whole, rel=1e-15)
    np.testing.assert_array_equal(np.concatenate([g for _, g in results]), gradient)


@every_loss
def test_weights_of_one_are_no_weights(name):
    scores, targets, _ = make_problem(name)
    value, gradient = evaluate(name, scores, targets, None)
    ones, with_ones = evaluate(name, scores, targets, np.ones(N))
    assert ones == pytest.approx(value, rel=1e-15)
    np.testing.assert_allclose(with_ones, gradient, rtol=1e-15)


@every_loss
def test_a_row_of_weight_zero_has_no_part_in_it(name):
    scores, targets, weights = make_problem(name, weighted=True)
    weights[2] = 0
    value, gradient = evaluate(name, scores, targets, weights)
    scores[2] += 100
    assert evaluate(name, scores, targets, weights)[0] == value
    assert not gradient[2].any()


@weighted
@every_loss
def test_a_float32_gradient_stays_float32_and_its_loss_is_near_that_in_float64(name, weighted):
    scores, targets, weights = make_problem(name, weighted=weighted, dtype="float32")
    value, gradient = evaluate(name, scores, targets, weights)
    wide = [a if a is None or a.dtype == np.int32 else a.astype(np.float64) for a in (scores, targets, weights)]
    exact, slope = evaluate(name, *wide)
    assert gradient.dtype == np.float32
    # Ten float32 roundings at the most of values of up to 8.
    tolerance = 10 * np.finfo(np.float32).eps * 8 * SCALE
    np.testing.assert_allclose(value, exact, rtol=0, atol=N * tolerance)
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=tolerance)


def test_embed_looks_rows_up():
    rng = np.random.default_rng(0)
    table, tokens = rng.standard_normal((V, O)), rng.integers(0, V, (4, 2), dtype=np.int32)
    out = np.empty((4, 2, O))
    embed(table, tokens, out)
    np.testing.assert_array_equal(out, table[tokens])


@pytest.mark.parametrize(
    "tokens",
    [
        np.random.default_rng(1).integers(0, V, (9, 4), dtype=np.int32),
        np.full((9, 4), V - 1, np.int32),
        np.zeros((9, 4), np.int32),
        np.arange(4, dtype=np.int32).reshape(1, 4)[:, ::-1],
    ],
    ids=["random", "all the last", "all the first", "each once"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_embed_gradient_adds_up_equal_tokens(tokens, dtype):
    dy = np.random.default_rng(2).standard_normal((*tokens.shape, O)).astype(dtype)
    into = np.full((V, O), np.nan, dtype)
    embed_gradient(tokens, dy, into)
    expected = np.zeros((V, O))
    np.add.at(expected, tokens, dy.astype(np.float64))
    # Up to 36 terms of a few units.
    np.testing.assert_allclose(into, expected, rtol=0, atol=36 * 4 * np.finfo(dtype).eps)


def test_embed_gradient_leaves_unused_rows_zero():
    into = np.full((V, O), np.nan)
    embed_gradient(np.array([[2, 5]], np.int32), np.ones((1, 2, O)), into)
    np.testing.assert_array_equal(into.sum(axis=1), [0, 0, O, 0, 0, O, 0])
