"""Cells whose gates do not see the state: their equations, extreme gates, blocks of steps, single steps."""

import numpy as np
import pytest
from cell_samples import B, D, H, T, make_problem, run, start

from hpcrnn.cells import MinGRU, MinLSTM, linear
from hpcrnn.cells.products import NumpyProducts

CELLS = {"mingru": MinGRU(), "minlstm": MinLSTM()}

every_linear_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def keep_and_candidate(cell, gates):
    """The factor and the candidate of gate inputs (..., G*H) in float64, by way of logarithms."""
    k = np.split(gates.astype(np.float64), cell.n_gates, axis=-1)
    if cell.name == "mingru":
        return np.exp(-np.logaddexp(0, k[0])), k[1]
    odds = np.logaddexp(0, -k[1]) - np.logaddexp(0, -k[0])  # log f - log i
    return np.exp(-np.logaddexp(0, -odds)), k[2]


def reference(cell, problem):
    """The states of the equations, one step after another: (T + 1, B, H)."""
    a, n = keep_and_candidate(cell, problem.x @ problem.parameters["W"] + problem.parameters["b"])
    states = [problem.initial["h"]]
    for a_t, n_t in zip(a, n, strict=True):
        states.append(a_t * states[-1] + (1 - a_t) * n_t)
    return np.array(states)


@every_linear_cell
def test_the_states_are_those_of_the_equations(cell):
    problem = make_problem(cell)
    # Sums of D terms, a dozen operations, a state that no step enlarges: 2 T (D + 12) halves of eps, of order one.
    np.testing.assert_allclose(run(cell, problem).y, reference(cell, problem)[1:], rtol=0, atol=T * (D + 12) * 2.2e-16)


EXTREMES = [-300.0, -100.0, -90.0, -30.0, 0.0, 30.0, 90.0, 100.0, 300.0]


def extreme_tape(cell, dtype):
    """One step, with every pair of extreme inputs of the first two gates in a row of its own, after ``recur``."""
    pairs = np.array(np.meshgrid(EXTREMES, EXTREMES)).reshape(2, -1)
    rows = pairs.shape[1]
    inputs = [pair if gate < cell.n_gates - 1 else np.ones(rows) for gate, pair in enumerate([*pairs, None])]
    tape = cell.make_tape(1, rows, 1, dtype)
    work = cell.make_workspace(rows, 1, dtype, NumpyProducts())
    cell.load({"b": np.zeros(cell.n_gates)}, work, backward=True)
    tape.gates[0] = np.stack(inputs[: cell.n_gates], axis=1)
    tape.states["h"][0] = 3.0
    cell.recur(tape, work)
    return tape, work


@pytest.mark.filterwarnings("error")
@every_dtype
@every_linear_cell
def test_gates_may_be_as_open_or_closed_as_they_like(cell, dtype):
    tape, work = extreme_tape(cell, dtype)
    gates, eps = tape.gates[0].astype(np.float64), np.finfo(dtype).eps
    a, n = (array[:, 0] for array in keep_and_candidate(cell, gates))
    # The candidate is 1, but where minGRU's second gate is it.
    size = np.maximum(3.0, np.abs(n))
    np.testing.assert_allclose(tape.saved["factor"][0, :, 0], a, rtol=0, atol=4 * eps)
    assert (np.abs(tape.states["h"][1, :, 0] - (3 * a + (1 - a) * n)) <= 8 * eps * size).all()

    dh = np.ones_like(tape.states["h"][0])
    cell.backward(np.zeros_like(tape.y), {"h": dh}, tape, work)
    np.testing.assert_allclose(dh[:, 0], a, rtol=0, atol=4 * eps)
    dlogit = a * (1 - a) * (n - 3)
    slopes = [dlogit]
    if cell.name == "minlstm":
        f_closed, i_closed = np.exp(-np.logaddexp(0, gates[:, :2])).T
        slopes = [-dlogit * f_closed, dlogit * i_closed]
    expected = np.stack([*slopes, 1 - a], axis=1)
    assert (np.abs(tape.gates[0] - expected) <= 8 * eps * size[:, np.newaxis]).all()


@pytest.mark.parametrize("elements", [1, 2 * B * H, 4 * B * H], ids=["a step", "two steps", "four steps"])
@every_linear_cell
def test_blocks_of_steps_compute_what_one_block_computes(monkeypatch, cell, elements):
    problem = make_problem(cell)
    whole = dict(run(cell, problem).items())
    monkeypatch.setattr(linear, "BLOCK", elements)
    for name, value in run(cell, problem).items():
        # The same operations; those of several elements at once may round otherwise than those left over.
        np.testing.assert_allclose(value, whole[name], rtol=0, atol=1e-14, err_msg=name)


@every_linear_cell
def test_someone_elses_work_is_asked_for_once_a_block(monkeypatch, cell):
    problem, calls = make_problem(cell), []
    monkeypatch.setattr(linear, "BLOCK", 2 * B * H)
    tape, _, _ = start(cell, problem, NumpyProducts())
    work = cell.make_workspace(B, H, "float64", NumpyProducts(), poll=lambda: calls.append(None))
    cell.load(problem.parameters, work, backward=True)
    cell.recur(tape, work)
    assert len(calls) == T / 2
    cell.backward(problem.dy, problem.dstate, tape, work)
    assert len(calls) == T


@every_linear_cell
def test_a_step_may_be_run_again_from_another_state(cell):
    problem = make_problem(cell)
    tape, _, work = start(cell, problem, NumpyProducts())
    gates = tape.gates.copy()
    tape.states["h"][2] += 1.0
    cell.recur(tape.window(2, T), work)
    np.testing.assert_array_equal(tape.gates, gates)
    a = np.cumprod(tape.saved["factor"][2:], axis=0)
    np.testing.assert_allclose(tape.states["h"][3:], reference(cell, problem)[3:] + a, rtol=0, atol=1e-14)


@every_linear_cell
def test_what_a_step_keeps_of_the_state_is_its_derivative(cell):
    problem = make_problem(cell)
    tape, _, _ = start(cell, problem, NumpyProducts())
    moved = make_problem(cell)
    moved.initial["h"] += 1.0
    kept = np.cumprod(cell.retention(problem.parameters, tape), axis=0)
    np.testing.assert_allclose(run(cell, moved).y - run(cell, problem).y, kept, rtol=0, atol=1e-14)
