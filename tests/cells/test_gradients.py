"""Every gradient of every cell against central finite differences in float64."""

import numpy as np
import pytest
from cell_samples import CELLS, distance_from_kink, every_cell, loss, make_problem, run

STEP = np.finfo(np.float64).eps ** (1 / 3)


def tolerance(cell, problem):
    """What a central difference may err by: 10 s² times the sizes of the loss's terms, about 1e-8.

    The error is s² f'''/6 + eps |f| / s, least at s ~ eps^(1/3), where eps / s = s².  There both parts are s² times
    a few of the loss's terms; one bit more of each term's rounding, and a third derivative of a few times f, is 10.
    """
    result = run(cell, problem)
    terms = np.abs(problem.dy * result.y).sum()
    return 10 * STEP**2 * (terms + sum(np.abs(d * result.final[name]).sum() for name, d in problem.dstate.items()))


def differences(cell, problem, operand):
    """The gradient of the loss with respect to one array of the problem, an element at a time."""
    found = np.empty_like(operand)
    for index in np.ndindex(operand.shape):
        value = operand[index]
        operand[index] = value + STEP
        up = loss(cell, problem)
        operand[index] = value - STEP
        down = loss(cell, problem)
        operand[index] = value
        found[index] = (up - down) / (2 * STEP)
    return found


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        pytest.param(cell, name, id=f"{label}-d{name}")
        for label, cell in CELLS.items()
        for name in make_problem(cell).operands
    ],
)
def test_a_gradient_is_the_slope_of_the_loss(cell, name):
    problem = make_problem(cell)
    gradient = run(cell, problem).gradients[name]
    assert np.abs(gradient).max() > 0.01  # it is there, so that the comparison means something
    slope = differences(cell, problem, problem.operands[name])
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=tolerance(cell, problem))


@pytest.mark.parametrize("sizes", [(1, 2, 7, 5), (6, 1, 7, 5), (6, 2, 1, 5), (6, 2, 7, 1), (1, 1, 1, 1)], ids=str)
@every_cell
def test_every_gradient_is_right_where_an_axis_has_length_one(cell, sizes):
    problem = make_problem(cell, *sizes)
    gradients = run(cell, problem).gradients
    for name, operand in problem.operands.items():
        slope = differences(cell, problem, operand)
        np.testing.assert_allclose(gradients[name], slope, rtol=0, atol=tolerance(cell, problem), err_msg=name)


def test_no_difference_steps_over_the_kink_of_relu():
    cell = CELLS["elman-relu"]
    # A step of 6e-6 in any operand moves no preactivation by more than a few times that.
    assert distance_from_kink(cell, make_problem(cell)) > 100 * STEP


@every_cell
def test_the_gradient_of_an_initial_state_counts_the_final_states_gradient(cell):
    problem = make_problem(cell)
    without = make_problem(cell)
    for gradient in without.dstate.values():
        gradient[...] = 0
    for name in cell.state_names:
        assert not np.allclose(run(cell, problem).gradients[f"{name}0"], run(cell, without).gradients[f"{name}0"])
