"""What a cell costs: operations, bytes, shapes; and that its time loops allocate nothing."""

import gc
import tracemalloc

import numpy as np
import pytest
from cell_samples import CELLS, B, CountingProducts, D, H, T, every_cell, every_library, make_problem, product_library
from cell_samples import start as run_forward

from hpcrnn.cells import GRU, LSTM, Elman, make_cell
from hpcrnn.spec import ModelSpec

GATES = {"elman": 1, "gru": 3, "lstm": 4}


@every_cell
def test_operations_are_those_of_the_products_made(cell):
    problem, library = make_problem(cell), CountingProducts()
    tape, _, work = run_forward(cell, problem, library)
    assert library.flops == cell.forward_flops(T, B, D, H)

    carry = {name: a.copy() for name, a in problem.dstate.items()}
    recurrent = library.counted(cell.backward, problem.dy, carry, tape, work)
    assert recurrent == cell.backward_flops(T, B, D, H, input_gradient=False)
    dx = library.counted(cell.input_gradient, problem.parameters, tape, np.empty_like(problem.x), work)
    assert recurrent + dx == cell.backward_flops(T, B, D, H)
    gradients = {name: np.empty_like(a) for name, a in problem.parameters.items()}
    assert library.counted(cell.weight_gradient, problem.x, tape, gradients, work) == cell.weight_flops(T, B, D, H)


def array_bytes(tape):
    return tape.gates.nbytes + sum(a.nbytes for group in (tape.states, tape.saved) for a in group.values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_cell
def test_tape_bytes_are_those_of_its_arrays(cell, dtype):
    itemsize = np.dtype(dtype).itemsize
    assert array_bytes(cell.make_tape(T, B, H, dtype)) == cell.tape_bytes(T, B, H, itemsize)


@every_cell
def test_parameters_have_their_documented_shapes(cell):
    gates = GATES[cell.name]
    expected = {"W": (D, gates * H), "R": (H, gates * H), "b": (gates * H,)}
    if cell == GRU(reset="after"):
        expected["bR"] = (H,)
    assert cell.parameter_shapes(D, H) == expected
    drawn = cell.initial_parameters(np.random.default_rng(0), D, H)
    assert {name: a.shape for name, a in drawn.items()} == expected


@every_cell
def test_a_tape_has_its_documented_shapes(cell):
    gates = GATES[cell.name]
    tape = cell.make_tape(T, B, H, "float32")
    assert tape.gates.shape == (T, B, gates * H)
    assert tape.gates_by_gate.shape == (T, gates, B, H)
    assert tape.y.shape == (T, B, H)
    assert {name: a.shape for name, a in tape.states.items()} == dict.fromkeys(cell.state_names, (T + 1, B, H))
    assert np.shares_memory(tape.gates_by_gate, tape.gates)
    assert np.shares_memory(tape.y, tape.states["h"])
    assert not any(a.any() for a in tape.states.values())


def test_the_cells_have_the_states_of_their_equations():
    assert {cell.name: cell.state_names for cell in CELLS.values()} == {
        "elman": ("h",),
        "lstm": ("h", "c"),
        "gru": ("h",),
    }


@every_library
@every_cell
def test_the_time_loops_allocate_nothing(cell, library_name):
    """What the passes over T steps hold at once is less than one state, and does not grow with T."""
    library = product_library(library_name)
    rows, hidden = 64, 320
    state_bytes = rows * hidden * np.dtype("float32").itemsize
    peaks = [
        peak_bytes(cell, make_problem(cell, T=steps, B=rows, D=3, H=hidden).astype("float32"), library)
        for steps in (2, 4)
    ]
    # NumPy passes a strided operand through a buffer of 8192 elements, of its own: two of those are below one state.
    assert rows * hidden > 2 * 8192
    assert peaks[0] < state_bytes
    # One array a step would be a state at the least; Python's own objects come and go by the hundred bytes.
    assert peaks[1] - peaks[0] < 4096


def peak_bytes(cell, problem, library):
    """The most that the two time loops hold beyond what was allocated before."""
    tape, _, work = run_forward(cell, problem, library)  # also the warm-up
    dx = np.empty_like(problem.x)
    carries = [{name: a.copy() for name, a in problem.dstate.items()} for _ in range(2)]

    def passes(carry):
        cell.forward(problem.parameters, problem.x, tape, work)
        cell.backward(problem.dy, carry, tape, work)
        cell.input_gradient(problem.parameters, tape, dx, work)

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


@pytest.mark.parametrize(
    ("model", "cell"),
    [
        (ModelSpec(cell="elman", activation="relu"), Elman(activation="relu")),
        (ModelSpec(cell="lstm", forget_bias=2.0), LSTM(forget_bias=2.0)),
        (ModelSpec(cell="gru", reset="before"), GRU(reset="before")),
        (ModelSpec(), LSTM()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_gets_the_cell_it_names(model, cell):
    assert make_cell(model) == cell


def test_initial_parameters_fill_torchs_range():
    drawn = LSTM().initial_parameters(np.random.default_rng(1), 30, 25)
    for name, a in drawn.items():
        assert a.dtype == np.float64
        # U(-1/sqrt(H), 1/sqrt(H)); the largest of n draws is within 1 - 10/n of the bound but for one time in e^10.
        assert 0.2 * (1 - 10 / a.size) < np.abs(a).max() <= 0.2, name


def test_the_forget_bias_is_added_to_the_forget_gate_alone():
    plain = LSTM().initial_parameters(np.random.default_rng(1), D, H)
    biased = LSTM(forget_bias=3.0).initial_parameters(np.random.default_rng(1), D, H)
    np.testing.assert_array_equal(biased["b"] - plain["b"], [0] * H + [3] * H + [0] * 2 * H)
    np.testing.assert_array_equal(biased["W"], plain["W"])
    np.testing.assert_array_equal(biased["R"], plain["R"])
