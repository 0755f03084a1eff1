"""What a cell costs: operations, bytes, shapes; and that its time loops allocate nothing."""

import gc
import tracemalloc

import numpy as np
import pytest
from cell_samples import CELLS, B, CountingProducts, D, H, T, every_cell, every_library, make_problem, product_library
from cell_samples import start as run_forward

from hpcrnn.cells import GRU, LSTM, Elman, MinGRU, MinLSTM, make_cell
from hpcrnn.errors import SpecError
from hpcrnn.spec import ModelSpec

GATES = {"elman": 1, "gru": 3, "lstm": 4, "mingru": 2, "minlstm": 3}


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
    if cell.name in ("mingru", "minlstm"):
        del expected["R"]
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
        "mingru": ("h",),
        "minlstm": ("h",),
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
        (ModelSpec(cell="gru", forget_bias=2.0), GRU(forget_bias=2.0)),
        (ModelSpec(cell="mingru", forget_bias=2.0), MinGRU(forget_bias=2.0)),
        (ModelSpec(cell="minlstm", chrono_span=50), MinLSTM()),
        (ModelSpec(cell="minlstm", chrono_span=50, forget_init="chrono"), MinLSTM(chrono_span=50)),
        (ModelSpec(cell="gru", reset="before", forget_init="chrono"), GRU(reset="before", chrono_span=1000)),
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


def test_a_cell_without_gates_has_none_to_initialise():
    with pytest.raises(SpecError) as raised:
        make_cell(ModelSpec(cell="elman", forget_init="chrono"))
    assert str(raised.value) == ("model.forget_init = 'chrono': allowed is constant, with cell elman: it has no gate")


# What keeps the state, gate by gate: 1 where an open gate keeps it, -1 where an open gate replaces it.  minGRU's update
# gate is the other way round than GRU's.
KEEPS = {LSTM: (-1, 1, 0, 0), GRU: (0, 1, 0), MinGRU: (-1, 0), MinLSTM: (1, -1, 0)}
BIASED = {LSTM: (0, 1, 0, 0), GRU: (0, 1, 0), MinGRU: (-1, 0), MinLSTM: (1, 0, 0)}

every_gated_cell = pytest.mark.parametrize("cell", KEEPS, ids=lambda cell: cell.name)


def drawn_by(cell, units=H):
    parameters = cell.initial_parameters(np.random.default_rng(1), D, units)
    return parameters, parameters.pop("b").reshape(-1, units)


def assert_same_arrays(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


@every_gated_cell
def test_the_forget_bias_is_added_to_the_forget_gate_alone(cell):
    (plain, bias), (others, biased) = drawn_by(cell()), drawn_by(cell(forget_bias=3.0))
    np.testing.assert_allclose(biased - bias, [[3.0 * sign] * H for sign in BIASED[cell]], rtol=0, atol=1e-15)
    assert_same_arrays(others, plain)


@every_gated_cell
def test_chrono_biases_keep_a_state_for_up_to_their_span(cell):
    units, span = 1000, 50
    (plain, bias), (others, chrono) = drawn_by(cell(), units), drawn_by(cell(chrono_span=span), units)
    assert_same_arrays(others, plain)
    for sign, before, after in zip(KEEPS[cell], bias, chrono, strict=True):
        if not sign:
            np.testing.assert_array_equal(after, before)
            continue
        u = np.exp(sign * after)
        assert (u > 1).all()
        assert (u < span - 1).all()
        # The mean of 1000 draws from U(1, 49) is within 5 of its standard deviations, 48 / sqrt(12 * 1000), of 25.
        assert abs(u.mean() - span / 2) < 5 * (span - 2) / (12 * units) ** 0.5


@every_gated_cell
def test_a_forget_bias_is_added_to_chrono_biases(cell):
    chrono, more = drawn_by(cell(chrono_span=9))[1], drawn_by(cell(chrono_span=9, forget_bias=2.0))[1]
    np.testing.assert_allclose(more - chrono, [[2.0 * sign] * H for sign in BIASED[cell]], rtol=0, atol=1e-15)
