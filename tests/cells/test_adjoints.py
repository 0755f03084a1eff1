"""The backward pass of every cell is linear, and can be repeated: what corrects a gradient afterwards relies on it."""

import numpy as np
from cell_samples import B, H, T, every_cell, make_problem, start

from hpcrnn.cells.base import Tape
from hpcrnn.cells.products import NumpyProducts


def gate_gradients(cell, tape, work, dy, dstate):
    """A backward pass on a tape that may be used again: the gates' gradients, and the initial states'."""
    used = Tape(tape.gates.copy(), tape.states, tape.hidden, tape.saved)
    carry = {name: a.copy() for name, a in dstate.items()}
    cell.backward(dy, carry, used, work)
    return {"gates": used.gates, **carry}


def assert_sum(found, *terms):
    for name, value in found.items():
        total = sum(term[name] for term in terms)
        # Roundings of T steps of a few dozen operations.
        bound = 100 * T * np.finfo(np.float64).eps * max(1.0, np.abs(total).max())
        np.testing.assert_allclose(value, total, rtol=0, atol=bound, err_msg=name)


@every_cell
def test_the_backward_pass_is_linear_in_the_gradients_it_is_given(cell):
    problem, other = make_problem(cell), make_problem(cell, seed=1)
    tape, _, work = start(cell, problem, NumpyProducts())
    found = [gate_gradients(cell, tape, work, p.dy, p.dstate) for p in (problem, other)]
    both = {name: problem.dstate[name] + other.dstate[name] for name in cell.state_names}
    assert_sum(gate_gradients(cell, tape, work, problem.dy + other.dy, both), *found)


@every_cell
def test_a_correction_of_a_gradient_can_follow_alone_step_by_step(cell):
    problem, other = make_problem(cell), make_problem(cell, seed=1)
    tape, _, work = start(cell, problem, NumpyProducts())
    before = gate_gradients(cell, tape, work, problem.dy, problem.dstate)
    gates, carry = np.empty_like(tape.gates), {name: a.copy() for name, a in other.dstate.items()}
    for t in reversed(range(T)):
        step = tape.window(t, t + 1)
        strip = Tape(gates[t : t + 1], step.states, step.hidden, step.saved)
        cell.backward(np.zeros((1, B, H)), carry, strip, work)
    both = {name: problem.dstate[name] + other.dstate[name] for name in cell.state_names}
    assert_sum(gate_gradients(cell, tape, work, problem.dy, both), before, {"gates": gates, **carry})
