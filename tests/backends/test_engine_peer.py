"""The NumPy engine against ``torch.nn``: whole networks, forward, backward and training."""

import numpy as np
import pytest
from engine_samples import PEER_CELLS, TOLERANCE, B, T, assert_same, every_kind, make_problem, run_tasks, serial_order

pytestmark = pytest.mark.peer

every_peer_cell = pytest.mark.parametrize("cell", PEER_CELLS)


@pytest.mark.parametrize("cut", [(1, 1), (2, 3)], ids=str)
@every_kind
@every_peer_cell
def test_everything_a_step_computes_is_torchs(cell, kind, cut):
    problem = make_problem(cell, kind)
    assert_same(problem.outcome("numpy", cut), problem.outcome("torch", cut))


@every_kind
@every_peer_cell
def test_torch_computes_the_same_however_its_work_is_cut(cell, kind):
    problem = make_problem(cell, kind)
    assert_same(problem.outcome("torch", (B, T)), problem.outcome("torch"))


@pytest.mark.parametrize("cut", [(1, 1), (2, 3)], ids=str)
@every_kind
@every_peer_cell
def test_inference_is_torchs(cell, kind, cut):
    problem = make_problem(cell, kind, mode="forward")
    found, expected = problem.outcome("numpy", cut), problem.outcome("torch", cut)
    assert set(found.arrays) == {f"state {name}" for name in problem.initial}
    assert_same(found, expected)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@every_peer_cell
def test_training_takes_torchs_path(cell, optimizer, clip):
    problem = make_problem(cell, mode="train", optimizer=optimizer, lr=0.01, clip=clip)
    tasks = serial_order(problem.graph((2, 3)))
    losses, norms = [], []
    for backend in ("numpy", "torch"):
        engine = problem.engine(backend, (2, 3))
        path = []
        for _ in range(4):
            run_tasks(engine, tasks)
            norm = engine.norm_square() ** 0.5
            engine.update(norm)
            path.append((engine.loss, norm))
        losses.append([loss for loss, _ in path])
        norms.append([norm for _, norm in path])
    assert losses[0][0] > losses[0][-1]
    assert clip is None or min(norms[0]) > clip
    # A step adds its own error to those before it; Adam divides by the size of the gradient, and so magnifies the
    # error of a small component: by 1 / (its share of the norm), which is far above 1e-3.
    np.testing.assert_allclose(losses[0], losses[1], rtol=4 * 1e3 * TOLERANCE)
    np.testing.assert_allclose(norms[0], norms[1], rtol=4 * 1e3 * TOLERANCE)


@every_peer_cell
def test_float32_stays_within_its_roundings_in_either_engine(cell):
    exact = make_problem(cell).outcome()
    narrow = make_problem(cell, dtype="float32")
    eps = np.finfo(np.float32).eps / np.finfo(np.float64).eps
    for backend in ("numpy", "torch"):
        outcome = narrow.outcome(backend, (2, 3))
        assert {a.dtype for a in outcome.arrays.values()} == {np.dtype("float32")}
        assert_same(outcome, exact, tolerance=TOLERANCE * eps)


def test_both_engines_start_from_zero_states_where_none_are_given():
    problem = make_problem("lstm")
    for group in (problem.initial, problem.cotangent):
        for state in group.values():
            state[...] = 0
    expected = problem.outcome()
    problem.load = lambda engine, rows: engine.load_batch(problem.batch)
    for backend in ("numpy", "torch"):
        found = problem.outcome(backend)
        for name, value in found.arrays.items():
            if name.startswith("gradient "):
                np.testing.assert_allclose(value, expected.arrays[name], rtol=0, atol=TOLERANCE, err_msg=name)
        assert found.loss == pytest.approx(expected.loss, rel=TOLERANCE)
