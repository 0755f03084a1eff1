"""The stepwise kernels and the layers around the recurrence, executed on the host against NumPy."""

import numpy as np
import pytest
from host_runner import from_stored, needs_compiler, rounded, run, to_stored, unwritten
from kernel_problems import make_layer_problem, relative_error

from hpcrnn.kernels.variants import PRECISIONS, Variant
from hpcrnn.model.layers import cross_entropy

pytestmark = needs_compiler

# Pairwise distinct; no kernel here asks for a multiple of anything.
T, B, H = 4, 5, 7
TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1.5e-2}
THREADS = 64


def step(variant, arrays):
    """One launch over all elements."""
    macros = variant.macros()
    blocks = -(-B * H // THREADS)
    assert run("stepwise.cu", variant.direction, macros, (blocks, 1), THREADS, 0, arrays | {"B": B, "H": H}) == 0


@pytest.mark.parametrize(("cell", "precision"), [("lstm", "float16"), ("gru", "float32"), ("elman", "bfloat16")])
def test_steps_agree_with_the_numpy_cell(cell, precision):
    problem = make_layer_problem(cell, T, B, H, lambda a: rounded(a, precision))
    expected = problem.solve()
    found = forward(problem, Variant(cell, precision, "forward"))
    assert relative_error(from_stored(found["h"], precision), expected.h) <= TOLERANCE[precision]
    if cell == "lstm":
        assert relative_error(found["c"], expected.c) <= TOLERANCE[precision]
    d, dstate = backward(problem, expected, Variant(cell, precision, "backward"))
    assert relative_error(from_stored(d, precision), expected.d) <= TOLERANCE[precision]
    for name, value in expected.dstate.items():
        assert relative_error(dstate[name], value) <= TOLERANCE[precision], name


def forward(problem, variant):
    """The loop that the backend runs, with NumPy for cuBLAS."""
    precision = variant.precision
    arrays = {
        "b": problem.b.astype(np.float32),
        "bR": problem.bR.astype(np.float32),
        "gates": to_stored(problem.gates, precision),  # also what they are made from, as in a chain
        "h": unwritten((T + 1, B, H), precision),
        "c": np.zeros((T + 1, B, H), np.float32),
        "q": unwritten((T, B, H), precision),
        "h_now": to_stored(problem.initial["h"], precision),
        "cursor": np.array([1], np.int32),
        "training": 1,
    }
    arrays["xw"] = arrays["gates"]
    arrays["h"][0] = arrays["h_now"]
    arrays["c"][0] = problem.initial.get("c", 0)
    for t in range(T):
        product = from_stored(arrays["h_now"], precision) @ problem.R
        step(variant, arrays | {"product": product.astype(np.float32), "offset": t - 1})
    return arrays


def backward(problem, solution, variant):
    precision, slots = variant.precision, variant.n_slots
    now = unwritten((B, variant.reduction(H)), precision)
    arrays = {
        "dh": problem.final["h"].astype(np.float32),
        "carry": problem.final.get("c", np.zeros((B, H))).astype(np.float32),
        "gates": to_stored(solution.active, precision),
        "h": to_stored(solution.h, precision),
        "c": None if solution.c is None else solution.c.astype(np.float32),
        "q": None if solution.q is None else to_stored(solution.q, precision),
        "dy": to_stored(problem.dy, precision),
        "d": unwritten((T, B, slots * H), precision),
        "d_now": now,
        "cursor": np.array([T - 1], np.int32),
    }
    for offset in range(T):
        step(variant, arrays | {"offset": offset})
        arrays["dh"] = (from_stored(now, precision) @ problem.R.T).astype(np.float32)
    if variant.cell == "gru":
        arrays["dh"] += arrays["carry"]
    return arrays["d"], {"h": arrays["dh"], "c": arrays["carry"]}


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_that_of_the_numpy_engine(weighted):
    rng = np.random.default_rng(0)
    rows, columns, scale = 6, 150, 0.25
    scores, b = rng.standard_normal((rows, columns)).astype(np.float32), rng.standard_normal(columns).astype(np.float32)
    targets = rng.integers(0, columns, rows).astype(np.int32)
    weights = rng.uniform(0, 2, rows).astype(np.float32) if weighted else None
    gradient, terms = np.full((rows, columns), np.nan, np.float32), np.full(rows, np.nan)
    arrays = {"scores": scores, "b": b, "targets": targets, "weights": weights, "gradient": gradient, "terms": terms}
    macros = {"PRECISION": PRECISIONS.index("float32")}
    scalars = {"scale": scale, "columns": columns}
    assert run("layers.cu", "cross_entropy", macros, (rows, 1), 128, 512, arrays | scalars) == 0
    exact = scores.astype(np.float64) + b
    loss = cross_entropy(exact, targets, weights, scale)
    np.testing.assert_allclose(terms.sum() * scale, loss, rtol=1e-6)
    assert relative_error(gradient, exact) <= 1e-6


def test_squared_error_and_the_optimizers():
    rng = np.random.default_rng(0)
    rows, columns = 5, 3
    n = rows * columns
    scores, targets = rng.standard_normal((2, rows, columns)).astype(np.float32)
    b, weights = rng.standard_normal(columns).astype(np.float32), rng.uniform(0, 2, rows).astype(np.float32)
    gradient, terms = np.empty_like(scores), np.empty(n)
    macros = {"PRECISION": PRECISIONS.index("float32")}
    arrays = {"scores": scores, "b": b, "targets": targets, "weights": weights, "gradient": gradient, "terms": terms}
    sizes = {"scale": 0.5, "n": n, "columns": columns}
    assert run("layers.cu", "squared_error", macros, (1, 1), 32, 0, arrays | sizes) == 0
    off = (scores + b - targets).astype(np.float64)
    np.testing.assert_allclose(gradient, 0.5 * weights[:, None] * 2 * off / columns, rtol=1e-5)
    np.testing.assert_allclose(terms.sum(), (weights[:, None] * off**2 / columns).sum(), rtol=1e-5)

    p, g, m = rng.standard_normal((3, n)).astype(np.float32)
    v = rng.uniform(0, 1, n).astype(np.float32)
    before = [a.astype(np.float64) for a in (p, m, v)]
    constants = {"rate": 0.1, "eps": 1e-3, "beta1": 0.9, "beta2": 0.99, "n": n}
    assert run("layers.cu", "adam", macros, (1, 1), 32, 0, {"p": p, "g": g, "m": m, "v": v} | constants) == 0
    mean, square = 0.9 * before[1] + 0.1 * g, 0.99 * before[2] + 0.01 * g.astype(np.float64) ** 2
    np.testing.assert_allclose(p, before[0] - 0.1 * mean / (np.sqrt(square) + 1e-3), rtol=1e-5)
