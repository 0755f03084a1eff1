"""The correction kernels, executed on the host: what they make of a tape is what a run from the new states makes.

A row stops being of interest once it has met; its tile stops when all of its rows have.
"""

import os

import numpy as np
import pytest
from kernels.host_runner import from_stored, needs_compiler, rounded, run, to_stored, unwritten
from kernels.kernel_problems import make_layer_problem, relative_error
from kernels.test_persistent_on_host import TOLERANCE, tile_for

from hpcrnn.kernels.variants import PRECISIONS, Variant

pytestmark = needs_compiler
EVERYTHING = bool(os.environ.get("HPCRNN_ALL_VARIANTS"))
thorough = pytest.mark.skipif(not EVERYTHING, reason="takes its time: HPCRNN_ALL_VARIANTS=1")

T, B, H = 13, 21, 40
ROWS = np.array([1, 2, 3, 4, 5, 8, 9, 12, 13, 14, 17, 20], np.int32)  # of two tiles of eight: the second is not full
NEVER = -1.0
UNMET = -7


def launch(variant, arrays, every, seed=0, mutate=None, T=T):
    tile = tile_for(variant, subtiles=2, exchange="counter")
    grid = tile.grid(len(ROWS), H)
    checks, tiles = -(-T // every), grid[1] * tile.subtiles
    arrays = arrays | {
        "list": ROWS,
        "far": np.zeros((checks, tiles), np.uint32),
        "met": np.full(len(ROWS), UNMET, np.int32),
        "counters": np.zeros(tiles, np.uint32),
        "T": T,
        "B": B,
        "H": H,
        "n_rows": len(ROWS),
        "every": every,
    }
    macros = tile.macros(variant)
    shared = tile.shared_bytes(variant)
    done = run("correction.cu", variant.direction, macros, grid, tile.threads, shared, arrays, seed, mutate)
    assert done == 0, "gave up" if done == 1 else "nothing moved any more"
    return arrays


def problem_of(cell, precision, bound=None):
    return make_layer_problem(cell, T, B, H, lambda a: rounded(a, precision), bound=bound)


def variant_of(cell, precision, direction):
    return Variant(cell.partition("-")[0], precision, direction, relu=cell.endswith("relu"))


def tape(problem, solution, precision):
    return {
        "gates": to_stored(solution.active, precision),
        "h": to_stored(solution.h, precision),
        "c": np.zeros(1, np.float32) if solution.c is None else solution.c.astype(np.float32),
        "q": None if solution.q is None else to_stored(solution.q, precision),
    }


def rerun_forward(cell, precision, tolerance, every, new=None, **launching):
    """A tape of one run, corrected to other states of some rows; and what there was, and what there should be."""
    problem = problem_of(cell, precision, bound=launching.pop("bound", None))
    before = problem.solve()
    rng = np.random.default_rng(1)
    for name, state in problem.initial.items():
        state[ROWS] = rounded(0.5 * rng.standard_normal((len(ROWS), H)), precision) if new is None else new[name]
    after = problem.solve()
    arrays = tape(problem, before, precision) | {
        "RT": to_stored(problem.R.T, precision),
        "b": problem.b.astype(np.float32),
        "bR": problem.bR.astype(np.float32),
        "xw": to_stored(problem.gates, precision),
        "tolerance": tolerance,
    }
    arrays["h"][0] = to_stored(problem.initial["h"], precision)
    if "c" in problem.initial:
        arrays["c"][0] = problem.initial["c"]
    arrays = launch(variant_of(cell, precision, "forward"), arrays, every, **launching)
    return arrays, before, after


def check_whole_forward(cell, precision, **launching):
    """Rows that never meet are run to the end; the others are not touched."""
    arrays, before, after = rerun_forward(cell, precision, NEVER, 4, **launching)
    others = np.setdiff1d(np.arange(B), ROWS)
    found = {"h": from_stored(arrays["h"], precision)}
    expected, untouched = {"h": after.h}, {"h": before.h}
    if after.c is not None:
        found["c"], expected["c"], untouched["c"] = arrays["c"], after.c, before.c
    if after.q is not None:
        found["q"], expected["q"], untouched["q"] = from_stored(arrays["q"], precision), after.q, before.q
    if not cell.startswith("elman"):
        found["gates"] = from_stored(arrays["gates"], precision)
        expected["gates"], untouched["gates"] = after.active, before.active
    for name, value in found.items():
        assert relative_error(value[:, ROWS], expected[name][:, ROWS]) <= TOLERANCE[precision], name
        assert relative_error(value[:, others], untouched[name][:, others]) <= TOLERANCE[precision], name
    assert (arrays["met"] == UNMET).all()


def rerun_backward(cell, precision, limit, every, bound=None, **launching):
    problem = problem_of(cell, precision, bound=bound)
    before = problem.solve()
    rng = np.random.default_rng(2)
    change = {name: rng.standard_normal((len(ROWS), H)) for name in problem.final}
    for name, gradient in problem.final.items():
        gradient[ROWS] += change[name]
    after = problem.solve()
    slots, variant = before.d.shape[-1], variant_of(cell, precision, "backward")
    arrays = tape(problem, before, precision) | {
        "R": to_stored(problem.R, precision),
        "d": to_stored(before.d, precision),
        "ring": unwritten((2, len(ROWS), variant.reduction(H)), precision),
        "dh": change["h"].astype(np.float32),
        "dc": change.get("c", np.zeros((len(ROWS), H))).astype(np.float32),
        "limit_h": limit,
        "limit_c": limit,
    }
    assert arrays["d"].shape == (T, B, slots)
    return launch(variant, arrays, every, **launching), before, after


def check_whole_backward(cell, precision, **launching):
    arrays, before, after = rerun_backward(cell, precision, NEVER, 4, **launching)
    others = np.setdiff1d(np.arange(B), ROWS)
    d = from_stored(arrays["d"], precision)
    assert relative_error(d[:, ROWS], after.d[:, ROWS]) <= 2 * TOLERANCE[precision]
    assert relative_error(d[:, others], before.d[:, others]) <= TOLERANCE[precision]
    for name, gradient in after.dstate.items():
        found = before.dstate[name][ROWS] + arrays[f"d{name}"]
        assert relative_error(found, gradient[ROWS]) <= 2 * TOLERANCE[precision], name
    assert (arrays["met"] == UNMET).all()


CHECKS = {"forward": check_whole_forward, "backward": check_whole_backward}
PRODUCT = [(d, c, p) for d in CHECKS for c in ("lstm", "gru", "elman", "elman-relu") for p in PRECISIONS]
CHOSEN = [("forward", "lstm", "bfloat16"), ("backward", "gru", "float32")]


@pytest.mark.parametrize(("direction", "cell", "precision"), PRODUCT if EVERYTHING else CHOSEN, ids=str)
def test_rows_that_never_meet_are_run_to_the_end(direction, cell, precision):
    CHECKS[direction](cell, precision)


@thorough
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_any_order_of_threads_and_blocks_gives_the_same(seed):
    check_whole_forward("lstm", "bfloat16", seed=seed)
    check_whole_backward("gru", "float32", seed=seed)


def first_check(far, every):
    """Steps after which each row (steps, rows) was first not far at a check; UNMET where it always was."""
    checks = np.minimum(np.arange(every, T + every, every), T)
    close = ~far[checks - 1]
    return np.where(close.any(axis=0), checks[close.argmax(axis=0)], UNMET)


@pytest.mark.parametrize("every", [1, 3] if EVERYTHING else [3])
def test_a_forward_tile_stops_where_all_of_its_rows_have_met(every):
    tolerance = 1e-2
    arrays, before, after = rerun_forward("lstm", "float32", tolerance, every, bound=0.05)
    moved = np.abs(after.h[1:, ROWS] - before.h[1:, ROWS]).max(axis=2) > tolerance
    size = np.maximum(1, np.abs(after.c[1:, ROWS]))
    moved |= (np.abs(after.c[1:, ROWS] - before.c[1:, ROWS]) / size).max(axis=2) > tolerance
    expected = first_check(moved, every)
    assert (expected != UNMET).any(), "the problem should meet"
    np.testing.assert_array_equal(arrays["met"], expected)
    for rows in (slice(0, 8), slice(8, None)):  # of the two tiles of the list
        stop = expected[rows].max() if (expected[rows] != UNMET).all() else T
        made = np.concatenate([after.h[: stop + 1, ROWS[rows]], before.h[stop + 1 :, ROWS[rows]]])
        assert relative_error(from_stored(arrays["h"], "float32")[:, ROWS[rows]], made) < 1e-5


@pytest.mark.parametrize("every", [1, 3] if EVERYTHING else [3])
def test_a_backward_tile_stops_where_all_of_its_rows_have_met(every):
    limit = 0.1
    arrays, before, after = rerun_backward("elman", "float32", limit, every, bound=0.1)
    met = arrays["met"]
    assert ((met > 0) & (met < T) & (met % every == 0)).all(), met
    for rows in (slice(0, 8), slice(8, None)):
        # A verdict is read in the step after it was given, which has been taken by then; those before are as they were.
        stop = T - met[rows].max() - 1
        made = np.concatenate([before.d[:stop, ROWS[rows]], after.d[stop:, ROWS[rows]]])
        assert relative_error(from_stored(arrays["d"], "float32")[:, ROWS[rows]], made) < 1e-5
        assert not arrays["dh"][rows].any()


@thorough
def test_what_is_not_a_number_never_meets():
    new = {name: np.full((len(ROWS), H), np.nan) for name in ("h", "c")}
    arrays, _, _ = rerun_forward("lstm", "float32", 1e30, 2, new=new)
    assert (arrays["met"] == UNMET).all()


# Each planted mistake must be seen by the same check that passes without it.
MISTAKES = {
    "no block waits for the others": (
        "forward",
        "if (threadIdx.x == 0) {\n        int spins",
        "if (false) {\n        int spins",
    ),
    "partial sums are read before they are there": (
        "forward",
        "            __syncthreads();\n            uint32 off = 0;",
        "            uint32 off = 0;",
    ),
    "the halves of the ring are one": ("backward", "ring + (n % 2 * n_rows + item.row)", "ring + item.row"),
}


@thorough
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_missing_barrier_is_seen(mistake):
    direction, old, new = MISTAKES[mistake]
    with pytest.raises(AssertionError):
        CHECKS[direction]("lstm" if direction == "forward" else "gru", "float32", mutate=(old, new))


def test_a_verdict_that_is_read_too_early_is_seen():
    """Read before the others have written, a word says that all have met."""
    with pytest.raises(AssertionError):
        check_whole_forward("lstm", "float32", mutate=("wait_for(counters + tile, t * gridDim.x);", "__syncthreads();"))
