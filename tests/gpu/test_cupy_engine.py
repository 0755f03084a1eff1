"""The CuPy engine against the NumPy engine: whole networks, training, and what MPI does to gradients in between."""

import numpy as np
import pytest
from backends.engine_samples import TOLERANCE, assert_same, every_kind, make_problem, run_tasks, serial_order

from hpcrnn.errors import NumericsError
from hpcrnn.model.optimizers import finite_norm

EPS = np.finfo(np.float32).eps / np.finfo(np.float64).eps
CELLS = ["elman-tanh", "elman-relu", "lstm", "gru-after", "gru-before"]


@pytest.mark.parametrize("cut", [(1, 1), (2, 3), (5, 7)], ids=str)
@every_kind
@pytest.mark.parametrize("cell", CELLS)
def test_everything_a_step_computes(cell, kind, cut):
    exact = make_problem(cell, kind).outcome()
    assert_same(make_problem(cell, kind, dtype="float32").outcome("cupy", cut), exact, tolerance=TOLERANCE * EPS)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("cell", CELLS)
def test_training_takes_the_same_path(cell, optimizer, clip):
    paths = []
    for backend in ("numpy", "cupy"):
        problem = make_problem(cell, mode="train", dtype="float32", optimizer=optimizer, lr=0.01, clip=clip)
        engine = problem.engine(backend, (2, 3))
        tasks = serial_order(problem.graph((2, 3)))
        path = []
        for _ in range(4):
            run_tasks(engine, tasks)
            norm = engine.norm_square() ** 0.5
            engine.update(norm)
            path.append((engine.loss, norm))
        paths.append(path)
    # As in test_engine_peer: a step adds its own error, and Adam magnifies that of small components.
    np.testing.assert_allclose(paths[1], paths[0], rtol=4e3 * TOLERANCE * EPS)


def test_what_mpi_sums_in_the_staged_gradients_is_what_the_optimizer_takes():
    norms = []
    for summed in (False, True):
        engine = make_problem("lstm", mode="train", dtype="float32").engine("cupy")
        run_tasks(engine, serial_order(make_problem("lstm", mode="train", dtype="float32").graph()))
        if summed:  # as if there were two ranks with the same rows
            for start, stop in ((0, 2), (2, 4)):
                engine.gradient_range(start, stop)[...] *= 2
        norms.append(engine.norm_square() ** 0.5)
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-6)


def test_a_gradient_that_is_not_finite_is_refused():
    problem = make_problem("lstm", mode="train", dtype="float32")
    problem.parameters["layer0.W"][0, 0] = np.nan
    engine = problem.engine("cupy")
    run_tasks(engine, serial_order(problem.graph()))
    with pytest.raises(NumericsError, match="not finite"):
        finite_norm(engine.norm_square())
