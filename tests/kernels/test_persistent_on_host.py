"""The persistent kernels, executed on the host on small shapes, against the NumPy cells in float64."""

import os

import numpy as np
import pytest
from host_runner import from_stored, launch_persistent, needs_compiler, rounded, to_stored, unwritten
from kernel_problems import make_layer_problem, relative_error

from hpcrnn.kernels.variants import PRECISIONS, Tile, Variant

pytestmark = needs_compiler

# Pairwise distinct, and none a multiple of its tile: units 40 of 16 or 24, rows 19 of 8.
T, B, H = 3, 19, 40

# Sums of a few hundred products and T steps of rounding what is stored: half a unit of 2^-24, 2^-11, 2^-11, 2^-9 (the
# host's TF32 products round their factors to 2^-11), times a handful.
TOLERANCE = {"float32": 1e-6, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 1.5e-2}


def tile_for(variant, warps=2, units=16, rows=8, subtiles=2, exchange="data", in_registers=1):
    k_blocks = -(-variant.reduction(H) // (variant.k_block * warps))
    return Tile(warps, units, rows, subtiles, k_blocks, min(in_registers, k_blocks), 1, exchange)


def forward_arrays(problem, precision):
    arrays = {
        "RT": to_stored(problem.R.T, precision),
        "b": problem.b.astype(np.float32),
        "bR": problem.bR.astype(np.float32),
        "xw": to_stored(problem.gates, precision),
        "gates": unwritten(problem.gates.shape, precision),
        "h": unwritten((problem.T + 1, problem.B, problem.H), precision),
        "c": np.full((problem.T + 1, problem.B, problem.H), np.nan, np.float32),
        "q": unwritten((problem.T, problem.B, problem.H), precision),
    }
    arrays["h"][0] = to_stored(problem.initial["h"], precision)
    if "c" in problem.initial:
        arrays["c"][0] = problem.initial["c"]
    return arrays


def backward_arrays(problem, solution, precision):
    T, B, H = problem.T, problem.B, problem.H
    slots = solution.d.shape[-1] // H
    return {
        "R": to_stored(problem.R, precision),
        "gates": to_stored(solution.active, precision),
        "h": to_stored(solution.h, precision),
        "c": None if solution.c is None else solution.c.astype(np.float32),
        "q": None if solution.q is None else to_stored(solution.q, precision),
        "dy": to_stored(problem.dy, precision),
        "d": unwritten((T, B, slots * H), precision),
        "dh": problem.final["h"].astype(np.float32),
        "dc": problem.final.get("c", np.zeros((B, H))).astype(np.float32),
    }


def assert_close(found, expected, precision, what):
    error = relative_error(found, expected)
    assert error <= TOLERANCE[precision], f"{what}: {error}"


def problem_of(cell, precision):
    return make_layer_problem(cell, T, B, H, lambda a: rounded(a, precision))


def check_forward(cell, precision, seed=0, mutate=None, **cut):
    problem = problem_of(cell, precision)
    variant = Variant(cell.partition("-")[0], precision, "forward", relu=cell.endswith("relu"))
    arrays = forward_arrays(problem, precision)
    assert launch_persistent(variant, tile_for(variant, **cut), arrays, T, B, H, seed, mutate) == 0
    expected = problem.solve()
    assert_close(from_stored(arrays["h"], precision), expected.h, precision, "h")
    if variant.cell != "elman":
        assert_close(from_stored(arrays["gates"], precision), expected.active, precision, "active")
    if expected.c is not None:
        assert_close(arrays["c"], expected.c, precision, "c")
    if expected.q is not None:
        assert_close(from_stored(arrays["q"], precision), expected.q, precision, "q")


def check_backward(cell, precision, seed=0, mutate=None, **cut):
    problem = problem_of(cell, precision)
    variant = Variant(cell.partition("-")[0], precision, "backward", relu=cell.endswith("relu"))
    expected = problem.solve()
    arrays = backward_arrays(problem, expected, precision)
    assert launch_persistent(variant, tile_for(variant, **cut), arrays, T, B, H, seed, mutate) == 0
    assert_close(from_stored(arrays["d"], precision), expected.d, precision, "d")
    assert_close(arrays["dh"], expected.dstate["h"], precision, "dh")
    if "c" in expected.dstate:
        assert_close(arrays["dc"], expected.dstate["c"], precision, "dc")


CHECKS = {"forward": check_forward, "backward": check_backward}
every_direction = pytest.mark.parametrize("direction", CHECKS)


# Every cell, precision and direction; the whole product of them where there is time (HPCRNN_ALL_VARIANTS=1).
PRODUCT = [(d, c, p) for d in CHECKS for c in ("lstm", "gru", "elman", "elman-relu") for p in PRECISIONS]
CHOSEN = [
    ("forward", "lstm", "float32"),
    ("forward", "gru", "bfloat16"),
    ("forward", "elman", "tf32"),
    ("backward", "lstm", "bfloat16"),
    ("backward", "gru", "float32"),
    ("backward", "elman-relu", "float16"),
]


@pytest.mark.parametrize(
    ("direction", "cell", "precision"), PRODUCT if os.environ.get("HPCRNN_ALL_VARIANTS") else CHOSEN, ids=str
)
def test_agrees_with_the_numpy_cell(direction, cell, precision):
    CHECKS[direction](cell, precision)


@every_direction
def test_any_order_of_threads_and_blocks_gives_the_same(direction):
    for seed in (1, 2):
        CHECKS[direction]("lstm" if direction == "forward" else "gru", "float32", seed=seed)  # compiled already


def test_counters_do_as_well_as_marked_words():
    check_backward("gru", "float16", exchange="counter", in_registers=0)


# Each planted mistake must be seen by the same check that passes without it.
MISTAKES = {
    "partial sums are read before they are there": (
        "forward",
        "            __syncthreads();\n\n            for (int i = 0; i < ITEMS; ++i)",
        "            for (int i = 0; i < ITEMS; ++i)",
        {},
    ),
    "the state is read before it is there": (
        "forward",
        "while (exchanged && is_incomplete",
        "while (false && is_incomplete",
        {},
    ),
    "no block waits for the others": (
        "backward",
        "if (threadIdx.x == 0) {\n        int spins",
        "if (false) {\n        int spins",
        {"exchange": "counter"},
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_missing_barrier_is_seen(mistake):
    direction, old, new, cut = MISTAKES[mistake]
    with pytest.raises(AssertionError):
        CHECKS[direction]("lstm" if direction == "forward" else "gru", "float32", 0, (old, new), **cut)
