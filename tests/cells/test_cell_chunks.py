"""A tape cut into chunks of time computes what it computes in one piece."""

from itertools import pairwise

import numpy as np
import pytest
from cell_samples import B, H, every_cell, every_library, make_problem, product_library, run

STEPS = 8


def chunks_of(*lengths):
    bounds = np.cumsum([0, *lengths]).tolist()
    return [slice(a, b) for a, b in pairwise(bounds)]


@pytest.mark.parametrize("lengths", [(3, 5), (1, 6, 1), (1,) * STEPS], ids=str)
@every_library
@every_cell
def test_chunks_carry_everything_that_passes_through_time(cell, library_name, lengths):
    library = product_library(library_name)
    problem = make_problem(cell, T=STEPS)
    whole = dict(run(cell, problem, library).items())
    for name, value in run(cell, problem, library, chunks_of(*lengths)).items():
        # The steps are the same; only the GEMMs over a chunk sum fewer rows at a time: another order of summation of
        # T B terms, so T B units of the largest sum.
        bound = STEPS * B * np.finfo(np.float64).eps * max(1.0, np.abs(whole[name]).max())
        np.testing.assert_allclose(value, whole[name], rtol=0, atol=bound, err_msg=name)


@every_cell
def test_windows_are_views_that_share_the_state_between_them(cell):
    tape = cell.make_tape(STEPS, B, H, "float32")
    left, right = tape.window(0, 3), tape.window(3, STEPS)
    for name, states in tape.states.items():
        assert np.shares_memory(left.states[name][-1], right.states[name][0])
        assert np.shares_memory(right.states[name][0], states[3])
    assert np.shares_memory(right.gates[0], tape.gates[3])
    for name, saved in tape.saved.items():
        assert np.shares_memory(right.saved[name][0], saved[3])


@every_cell
def test_rows_of_a_batch_do_not_mix(cell):
    problem = make_problem(cell)
    whole = run(cell, problem)
    half = make_problem(cell)
    half.x, half.dy = half.x[:, 1:], half.dy[:, 1:]
    half.initial = {name: a[1:] for name, a in half.initial.items()}
    half.dstate = {name: a[1:] for name, a in half.dstate.items()}
    part = run(cell, half)
    # A product of two rows may be summed in another order than one of three: eps times a dozen terms of order one.
    np.testing.assert_allclose(part.y, whole.y[:, 1:], rtol=0, atol=1e-14)
    np.testing.assert_allclose(part.gradients["x"], whole.gradients["x"][:, 1:], rtol=0, atol=1e-13)
    for name in cell.state_names:
        np.testing.assert_allclose(part.gradients[f"{name}0"], whole.gradients[f"{name}0"][1:], rtol=0, atol=1e-13)
