"""Sequences side by side in rows: every one as if it had been run alone, to the last bit where shapes allow."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from cell_samples import CELLS, Problem, Result, every_cell, make_problem, run, start
from test_gradients import STEP

from hpcrnn.cells.products import NumpyProducts
from hpcrnn.cells.starts import NO_STARTS, Starts, starts_of

T, B = 11, 3

WHERE = np.zeros((T, B), bool)
"""Row 0 has four sequences, two of them of one step; row 1 one that starts late; row 2 one that goes on from before."""
WHERE[[0, 4, 5, 6], 0] = True
WHERE[7, 1] = True


def with_starts(tape, where):
    return replace(tape, starts=starts_of(where, tape.states))


def packed(cell, problem, where=WHERE, chunks=None):
    """Both passes over rows in which sequences start; as ``cell_samples.run``."""
    chunks = chunks or [slice(0, len(problem.x))]
    library = NumpyProducts()
    tape = with_starts(cell.make_tape(*problem.x.shape[:2], problem.hidden, problem.x.dtype), where)
    work = cell.make_workspace(problem.x.shape[1], problem.hidden, problem.x.dtype, library)
    cell.load(problem.parameters, work, backward=True)
    for name, state in problem.initial.items():
        tape.states[name][0] = state
    windows = [tape.window(c.start, c.stop) for c in chunks]
    for c, window in zip(chunks, windows, strict=True):
        cell.forward(problem.parameters, problem.x[c], window, work)
    y, final = tape.y.copy(), {name: state[-1].copy() for name, state in tape.states.items()}
    carry, dx = {name: a.copy() for name, a in problem.dstate.items()}, np.full_like(problem.x, np.nan)
    gradients = {name: np.full_like(a, np.nan) for name, a in problem.parameters.items()}
    for number, (c, window) in enumerate(reversed(list(zip(chunks, windows, strict=True)))):
        cell.backward(problem.dy[c], carry, window, work)
        cell.input_gradient(problem.parameters, window, dx[c], work)
        cell.weight_gradient(problem.x[c], window, gradients, work, accumulate=number > 0)
    np.testing.assert_array_equal(tape.y, y)  # what was hidden is back
    return Result(y, final, {**gradients, "x": dx, **{f"{name}0": a for name, a in carry.items()}})


def pieces(where):
    """Row, first and last step of every sequence, whether it starts there or goes on from before."""
    for row in range(where.shape[1]):
        bounds = sorted({0, len(where), *np.flatnonzero(where[:, row]).tolist()})
        yield from ((row, slice(*pair)) for pair in pairwise(bounds))


def alone(cell, problem, row, steps, *, starts):
    """One sequence by itself, from zeros where it starts, with the final gradient where it ends with the row."""
    one = slice(row, row + 1)
    ends = steps.stop == len(problem.x)
    return run(
        cell,
        Problem(
            problem.parameters,
            problem.x[steps, one],
            {name: np.zeros_like(a[one]) if starts else a[one] for name, a in problem.initial.items()},
            problem.dy[steps, one],
            {name: a[one] if ends else np.zeros_like(a[one]) for name, a in problem.dstate.items()},
        ),
    )


@pytest.mark.parametrize("chunks", [None, [slice(0, 5), slice(5, 6), slice(6, T)]], ids=["whole", "chunks"])
@every_cell
def test_packed_sequences_are_those_run_alone(cell, chunks):
    problem = make_problem(cell, T, B)
    found = packed(cell, problem, chunks=chunks)
    total = {name: np.zeros_like(a) for name, a in problem.parameters.items()}
    for row, steps in pieces(WHERE):
        starts = bool(WHERE[steps.start, row])
        expected = alone(cell, problem, row, steps, starts=starts)
        np.testing.assert_allclose(found.y[steps, row], expected.y[:, 0], rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.gradients["x"][steps, row], expected.gradients["x"][:, 0], rtol=0, atol=1e-13)
        for name in total:
            total[name] += expected.gradients[name]
        if steps.start == 0:
            for name in cell.state_names:
                into = found.gradients[f"{name}0"][row]
                wanted = np.zeros_like(into) if starts else expected.gradients[f"{name}0"][0]
                np.testing.assert_allclose(into, wanted, rtol=0, atol=1e-13)
    for name, expected in total.items():
        np.testing.assert_allclose(found.gradients[name], expected, rtol=0, atol=1e-12, err_msg=name)


@every_cell
def test_sequences_that_all_start_at_once_are_a_run_from_zeros_to_the_last_bit(cell):
    problem = make_problem(cell, T, B)
    where = np.zeros((T, B), bool)
    where[0] = True
    found = packed(cell, problem, where)
    zeros = replace(problem, initial={name: np.zeros_like(a) for name, a in problem.initial.items()})
    expected = run(cell, zeros)
    for (name, ours), (_, theirs) in zip(found.items(), expected.items(), strict=True):
        if name.removesuffix("0") in cell.state_names and name.endswith("0"):
            np.testing.assert_array_equal(ours, 0)  # what was before has no part in it
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


@every_cell
def test_nothing_of_one_sequence_reaches_the_next(cell):
    """Not one bit: whatever the sequences before hold, and whatever is wanted of those after."""
    problem = make_problem(cell, T, B)
    first, second = slice(0, 7), slice(7, T)
    x, dy = problem.x.copy(), problem.dy.copy()
    x[first, 1] += 3.0
    changed = packed(cell, replace(problem, x=x))
    same = packed(cell, problem)
    np.testing.assert_array_equal(changed.y[second, 1], same.y[second, 1])
    np.testing.assert_array_equal(changed.gradients["x"][second, 1], same.gradients["x"][second, 1])
    dy[second, 1] *= -2.0
    changed = packed(cell, replace(problem, dy=dy))
    np.testing.assert_array_equal(changed.gradients["x"][first, 1], same.gradients["x"][first, 1])
    assert (changed.gradients["x"][second, 1] != same.gradients["x"][second, 1]).any()


@every_cell
def test_gradients_through_starts_are_slopes_of_the_loss(cell):
    problem = make_problem(cell, T, B)
    rng = np.random.default_rng(1)
    found = packed(cell, problem).gradients

    def loss(changed):
        tape, *_ = started(cell, changed)
        final = sum(np.vdot(d, tape.states[name][-1]) for name, d in changed.dstate.items())
        return float(np.vdot(changed.dy, tape.y) + final)

    for name, operand in problem.operands.items():
        direction = rng.standard_normal(operand.shape)
        value = operand.copy()
        operand[...] = value + STEP * direction
        up = loss(problem)
        operand[...] = value - STEP * direction
        down = loss(problem)
        operand[...] = value
        claimed = float(np.vdot(found[name], direction))
        assert abs((up - down) / (2 * STEP) - claimed) < 1e-7 * max(1.0, abs(claimed)), name


def started(cell, problem):
    """The forward pass over rows in which sequences start."""
    tape = with_starts(cell.make_tape(T, B, problem.hidden, np.float64), WHERE)
    work = cell.make_workspace(B, problem.hidden, np.float64, NumpyProducts())
    cell.load(problem.parameters, work, backward=False)
    for name, state in problem.initial.items():
        tape.states[name][0] = state
    cell.forward(problem.parameters, problem.x, tape, work)
    return tape, work


def test_a_tape_without_starts_hides_nothing():
    states = {"h": np.ones((T + 1, B, 2))}
    assert starts_of(np.zeros((T, B), bool), states) is NO_STARTS
    tape = starts_of(WHERE, states)
    assert isinstance(tape, Starts)
    assert tape.window(1, 4, states) is NO_STARTS


def test_the_plain_run_and_the_one_with_no_starts_are_one():
    """The helper of these tests does what the cells' own does."""
    cell = CELLS["gru-before"]
    problem = make_problem(cell, T, B)
    plain, none = run(cell, problem), packed(cell, problem, np.zeros((T, B), bool))
    for (name, ours), (_, theirs) in zip(none.items(), plain.items(), strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    assert start(cell, problem, NumpyProducts())[0].starts is NO_STARTS
