"""A layer whose hidden units are split over shards computes what the whole layer computes, and costs as much."""

import gc
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from cell_samples import B, CountingProducts, D, every_cell, every_library, make_problem, product_library, run
from shard_samples import on_every_shard, prepare, run_shards

from hpcrnn.cells import GRU
from hpcrnn.cells.exchange import ALONE
from hpcrnn.model.sharding import Shard

# No multiple of 2 or 3, and the shards' sizes (6 and 5; 4, 4 and 3) are none of T, B, D or a gate count twice.
STEPS, H = 8, 11

every_size = pytest.mark.parametrize("size", [1, 2, 3])


def chunks_of(*lengths):
    return [slice(a, b) for a, b in pairwise(np.cumsum([0, *lengths]).tolist())]


def assert_same(found, expected):
    # The sums of a product of H terms are made in another order by each shard, once a step, there and back: 2 T (H + D)
    # roundings of half a unit of values about as large as the largest.  In float64 that is 3e-14.
    roundings = 2 * STEPS * (H + D)
    expected = dict(expected.items())
    assert {name for name, _ in found.items()} == set(expected)
    for name, value in found.items():
        bound = roundings * np.finfo(np.float64).eps / 2 * max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=bound, err_msg=name)


@every_size
@every_library
@every_cell
def test_shards_together_compute_what_the_whole_layer_computes(cell, library_name, size):
    problem = make_problem(cell, T=STEPS, H=H)
    expected = run(cell, problem)
    assert_same(run_shards(cell, problem, size, lambda: product_library(library_name)), expected)


@pytest.mark.parametrize("lengths", [(3, 5), (1, 6, 1), (1,) * STEPS], ids=str)
@every_size
@every_cell
def test_shards_may_be_cut_in_chunks_of_time_too(cell, size, lengths):
    problem = make_problem(cell, T=STEPS, H=H)
    assert_same(run_shards(cell, problem, size, chunks=chunks_of(*lengths)), run(cell, problem))


@every_cell
def test_shards_of_one_unit_each(cell):
    problem = make_problem(cell, T=STEPS, H=4)
    assert_same(run_shards(cell, problem, 4), run(cell, problem))


@every_size
@every_cell
def test_a_shards_tape_has_its_documented_shapes(cell, size):
    for index in range(size):
        own = Shard(index, size).count(H)
        tape = cell.make_tape(STEPS, B, own, "float32", H)
        assert tape.gates_by_gate.shape == (STEPS, cell.n_gates, B, own)
        assert {name: a.shape for name, a in tape.states.items()} == dict.fromkeys(
            cell.state_names, (STEPS + 1, B, own)
        )
        assert tape.hidden.shape == (STEPS + 1, B, H)
        assert tape.y.shape == (STEPS, B, H)
        assert np.shares_memory(tape.y, tape.hidden)


@every_cell
def test_the_hidden_state_of_a_whole_layer_is_its_state(cell):
    tape = cell.make_tape(STEPS, B, H, "float32")
    assert tape.hidden is tape.states["h"]
    window = tape.window(2, 5)
    assert window.hidden is window.states["h"]
    same = cell.make_tape(STEPS, B, H, "float32", H)
    assert same.hidden is same.states["h"]


@every_cell
def test_windows_share_the_gathered_state_between_them(cell):
    tape = cell.make_tape(STEPS, B, 4, "float32", H)
    left, right = tape.window(0, 3), tape.window(3, STEPS)
    assert np.shares_memory(left.hidden[-1], right.hidden[0])
    assert np.shares_memory(right.hidden[0], tape.hidden[3])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_size
@every_cell
def test_a_tape_is_carved_out_of_what_it_says_it_needs(cell, size, dtype):
    own, itemsize = Shard(size - 1, size).count(H), np.dtype(dtype).itemsize
    needed = cell.tape_bytes(STEPS, B, own, itemsize, H)
    arena, used = np.zeros(needed // itemsize, dtype), 0

    def carve(shape):
        nonlocal used
        start, used = used, used + int(np.prod(shape))
        return arena[start:used].reshape(shape)

    tape = cell.make_tape(STEPS, B, own, dtype, H, carve)
    assert used == arena.size
    arrays = {id(a): a for a in (tape.gates, tape.hidden, *tape.states.values(), *tape.saved.values())}
    for number, a in enumerate(arrays.values()):
        assert np.shares_memory(a, arena)
        a[...] = number + 1
    # No two overlap, and nothing is left over.
    assert Counter(arena.tolist()) == {number + 1: a.size for number, a in enumerate(arrays.values())}


@every_size
@every_cell
def test_the_costs_of_the_shards_add_up_to_the_whole_layers(cell, size):
    shares = [Shard(index, size).count(H) for index in range(size)]
    for cost in (cell.forward_flops, cell.backward_flops, cell.weight_flops):
        assert sum(cost(STEPS, B, D, own, H) for own in shares) == cost(STEPS, B, D, H)
    assert sum(cell.backward_flops(STEPS, B, D, own, H, input_gradient=False) for own in shares) == (
        cell.backward_flops(STEPS, B, D, H, input_gradient=False)
    )

    def elements(own, width=None):
        return sum(int(np.prod(shape)) for shape in cell.parameter_shapes(D, own, width).values())

    assert sum(elements(own, H) for own in shares) == elements(H)


@pytest.mark.parametrize("size", [2, 3])
@every_cell
def test_a_shards_operations_are_those_of_the_products_it_makes(cell, size):
    problem = make_problem(cell, T=STEPS, H=H)

    def work_of(shard, exchange):
        library, own = CountingProducts(), shard.count(H)
        part, tape, work = prepare(cell, problem, shard, exchange, library)
        carry = {name: a.copy() for name, a in part.dstate.items()}
        gradients = {name: np.empty_like(a) for name, a in part.parameters.items()}
        sizes = (STEPS, B, D, own, H)
        made = [
            library.counted(cell.forward, part.parameters, part.x, tape, work),
            library.counted(cell.backward, part.dy, carry, tape, work),
            library.counted(cell.input_gradient, part.parameters, tape, np.empty_like(part.x), work),
            library.counted(cell.weight_gradient, part.x, tape, gradients, work),
        ]
        recurrent = cell.backward_flops(*sizes, input_gradient=False)
        expected = [
            cell.forward_flops(*sizes),
            recurrent,
            cell.backward_flops(*sizes) - recurrent,
            cell.weight_flops(*sizes),
        ]
        assert made == expected
        return exchange.calls

    every = on_every_shard(size, work_of)
    own = Shard(0, size).count(H)
    if cell.name in ("mingru", "minlstm"):  # no step needs the others: all steps are gathered at once
        assert every[0] == [("gather", (STEPS * B, own))]
        return
    # One gather of h a step and one before the first; with the reset before the product, p as well and dp.
    extra = STEPS if cell == GRU(reset="before") else 0
    assert Counter(every[0]) == {("gather", (B, own)): STEPS + 1 + extra, ("reduce_scatter", (B, H)): STEPS + extra}


class Deaf:
    """One shard of two whose partner sends zeros: its loops are those of any shard, and no thread but its own runs."""

    rank, size = 0, 2

    def gather(self, own, full):
        full[:, : own.shape[1]] = own

    def reduce_scatter(self, partial, own):
        np.copyto(own, partial[:, : own.shape[1]])


@every_library
@every_cell
def test_the_time_loops_of_a_shard_allocate_nothing(cell, library_name):
    """As in the whole layer: less than one state at once, and no more for more steps."""
    rows, hidden = 64, 640
    state_bytes = rows * hidden // 2 * np.dtype("float32").itemsize
    peaks = [
        peak_bytes(cell, make_problem(cell, T=steps, B=rows, D=3, H=hidden).astype("float32"), library_name)
        for steps in (2, 4)
    ]
    # NumPy passes a strided operand through a buffer of 8192 elements, of its own: two of those are below one state.
    assert state_bytes > 2 * 8192 * 4
    assert peaks[0] < state_bytes
    # One array a step would be a state at the least; Python's own objects come and go by the hundred bytes.
    assert peaks[1] - peaks[0] < 4096


def peak_bytes(cell, problem, library_name):
    """The most that a shard's two time loops hold beyond what was allocated before."""
    part, tape, work = prepare(cell, problem, Shard(0, 2), Deaf(), product_library(library_name))
    dx = np.empty_like(part.x)
    carries = [{name: a.copy() for name, a in part.dstate.items()} for _ in range(2)]

    def passes(carry):
        cell.forward(part.parameters, part.x, tape, work)
        cell.backward(part.dy, carry, tape, work)
        cell.input_gradient(part.parameters, tape, dx, work)

    passes(carries[0])
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        passes(carries[1])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


@every_library
@every_cell
def test_weight_gradients_add_to_what_is_there(cell, library_name):
    problem = make_problem(cell)
    parameters = problem.parameters
    part, tape, work = prepare(cell, problem, Shard(), ALONE, product_library(library_name))
    cell.forward(parameters, part.x, tape, work)
    cell.backward(part.dy, {name: a.copy() for name, a in part.dstate.items()}, tape, work)
    once = {name: np.full_like(a, np.nan) for name, a in parameters.items()}
    cell.weight_gradient(part.x, tape, once, work)
    more = {name: np.full_like(a, 3.0) for name, a in parameters.items()}
    cell.weight_gradient(part.x, tape, more, work, accumulate=True)
    for name, gradient in once.items():
        # One more rounding of a sum of two terms.
        bound = 4 * np.finfo(np.float64).eps * (3 + np.abs(gradient).max())
        np.testing.assert_allclose(more[name], 3 + gradient, rtol=0, atol=bound, err_msg=name)


def test_a_whole_layer_makes_its_parts_in_place():
    cell = GRU()
    work = cell.make_workspace(B, H, "float32", product_library("numpy"))
    a = np.empty((B, H), "float32")
    assert work.own(a) is a
    assert work.partial(a) is a
    assert (ALONE.rank, ALONE.size) == (0, 1)
