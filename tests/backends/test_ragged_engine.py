"""Rows of unequal length, and sequences side by side in a row: what padding is never shows."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from engine_samples import (
    CELLS,
    TOLERANCE,
    B,
    T,
    V,
    assert_same,
    make_problem,
    outcome_of,
    run_tasks,
    serial_order,
)

from hpcrnn.backends.base import Extent
from hpcrnn.backends.filling import Filling, slots_run, steps_run
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.backends.numpy.mkl import load_mkl
from hpcrnn.backends.registry import product_library
from hpcrnn.schedules.placement import split
from hpcrnn.workloads import Batch

LENGTHS = np.array([3, T, 1, 5, 3])
# Those of the shared samples, and the linear ones.
MODELS = {**CELLS, "mingru": {"cell": "mingru"}, "minlstm": {"cell": "minlstm"}}
every_model = pytest.mark.parametrize("cell", MODELS)
CUTS = [(1, 1), (2, 1), (1, 3), (3, 2), (B, T)]
every_cut = pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"M{cut[0]}-C{cut[1]}")


@pytest.fixture(autouse=True)
def linear_cells(monkeypatch):
    monkeypatch.setattr("engine_samples.CELLS", MODELS)


def ragged(cell, lengths=LENGTHS, starts=(), padding=0, **options):
    """A problem whose rows have these lengths; sequences start at step 0 and at these (step, row)."""
    problem = make_problem(cell, **options)
    rng = np.random.default_rng(7)
    held = np.arange(T)[:, np.newaxis] < lengths
    where = np.zeros((T, B), bool)
    where[0] = True
    for step, row in starts:
        where[step, row] = True
    inputs = np.where(held, problem.batch.inputs, padding).astype(np.int32)
    targets = np.where(held, problem.batch.targets, padding).astype(np.int32)
    weights = np.where(held, rng.uniform(0.5, 2, (T, B)), 0.0).astype(problem.spec.model.dtype)
    batch = Batch(inputs, targets, weights, np.asarray(lengths), where)
    return replace(problem, batch=batch)


def rows_of(batch, rows):
    arrays = (batch.inputs, batch.targets, batch.weights)
    return Batch(*(a[:, rows] for a in arrays), batch.lengths[rows], batch.starts[:, rows])


def outcome(problem, cut=(1, 1), rows=slice(0, B), steps=T, library="numpy"):
    """One step of an engine of so many time steps."""
    microbatches = split(rows.stop - rows.start, cut[0])
    extent = Extent(steps, microbatches, split(steps, cut[1]), 1 / (T * B), problem.spec.training.mode)
    if library == "mkl" and load_mkl() is None:
        pytest.skip("MKL is not installed: pip install mkl")
    engine = NumpyEngine(problem.network, extent, problem.spec.training, product_library(library, 1))
    engine.load_parameters(problem.parameters)
    engine.load_batch(rows_of(problem.batch, rows))
    engine.set_boundary(*({k: a[rows] for k, a in group.items()} for group in (problem.initial, problem.cotangent)))
    run_tasks(engine, serial_order(problem.graph(cut)))
    return outcome_of(engine)


def assert_equal(found, expected):
    assert found.loss == expected.loss
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)


@pytest.mark.parametrize("library", ["numpy", "mkl"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_model
def test_what_padding_holds_does_not_change_one_bit(cell, dtype, library):
    starts = [(2, 1), (5, 1), (1, 3)]
    plain = outcome(ragged(cell, starts=starts, dtype=dtype), library=library)
    for padding in (V - 1, np.random.default_rng(3).integers(0, V, (T, B))):
        other = ragged(cell, starts=starts, padding=padding, dtype=dtype)
        assert_equal(outcome(other, library=library), plain)


@every_model
def test_an_engine_with_room_for_more_steps_computes_the_same_bits(cell):
    problem = ragged(cell, lengths=[3, 2, 4, 4, 1])
    short = replace(
        problem,
        batch=Batch(
            *(a[:4] for a in (problem.batch.inputs, problem.batch.targets)),
            problem.batch.weights[:4],
            problem.batch.lengths,
            problem.batch.starts[:4],
        ),
    )
    assert_equal(outcome(problem), outcome(short, steps=4))


@every_model
def test_a_batch_in_which_all_rows_are_full_is_a_plain_one_from_zeros(cell):
    problem = ragged(cell, lengths=[T] * B)
    plain = replace(
        problem,
        batch=Batch(problem.batch.inputs, problem.batch.targets, problem.batch.weights),
        initial={k: np.zeros_like(a) for k, a in problem.initial.items()},
        cotangent={k: np.zeros_like(a) for k, a in problem.cotangent.items()},
    )
    found, expected = outcome(problem), plain.outcome()
    for name in expected.arrays:
        if name.startswith("d "):
            np.testing.assert_array_equal(found.arrays[name], 0)
            expected.arrays[name] = found.arrays[name]
    assert_equal(found, expected)


@every_cut
@every_model
def test_results_do_not_depend_on_microbatches_and_chunks(cell, cut):
    problem = ragged(cell, starts=[(2, 1), (5, 1), (6, 1), (1, 3), (3, 3)])
    assert_same(outcome(problem, cut), outcome(problem))


@every_model
def test_every_sequence_counts_as_if_it_had_been_run_alone(cell):
    """Padded rows and packed ones: the sum over their sequences, each a batch of one row of its own length."""
    starts = [(2, 1), (5, 1), (6, 1), (1, 3), (3, 3)]
    problem = ragged(cell, starts=starts)
    whole = outcome(problem)
    total, loss = {}, 0.0
    for row in range(B):
        bounds = [*np.flatnonzero(problem.batch.starts[:, row]).tolist(), int(problem.batch.lengths[row])]
        for first, last in pairwise(bounds):
            one, part = slice(row, row + 1), slice(first, last)
            batch = Batch(
                np.repeat(problem.batch.inputs[part, one], B, axis=1),
                np.repeat(problem.batch.targets[part, one], B, axis=1),
                np.repeat(problem.batch.weights[part, one], B, axis=1),
                np.full(B, last - first),
                np.zeros((last - first, B), bool),
            )
            zeros = {k: np.zeros_like(a) for k, a in problem.initial.items()}
            alone = replace(problem, batch=batch, initial=zeros)
            found = outcome(alone, rows=slice(0, 1), steps=last - first)
            loss += found.loss
            for name, value in found.arrays.items():
                if name.startswith("gradient "):
                    total[name] = total.get(name, 0) + value
                elif name.startswith("state ") and last == bounds[-1]:
                    np.testing.assert_allclose(whole.arrays[name][row], value[0], rtol=0, atol=1e-13)
    assert abs(whole.loss - loss) < 1e-13
    for name, value in total.items():
        size = max(np.abs(value).max(), 1 / (T * B))
        np.testing.assert_allclose(whole.arrays[name], value, rtol=0, atol=4 * TOLERANCE * size, err_msg=name)


def test_engines_over_parts_of_the_rows_add_up():
    problem = ragged("gru-after", starts=[(2, 1), (5, 1), (1, 3)])
    whole, parts = outcome(problem), [outcome(problem, rows=rows) for rows in (slice(0, 1), slice(1, 3), slice(3, B))]
    assert abs(sum(part.loss for part in parts) - whole.loss) < 1e-14
    for name, value in whole.arrays.items():
        values = [part.arrays[name] for part in parts]
        joined = sum(values) if name.startswith("gradient ") else np.concatenate(values)
        np.testing.assert_allclose(joined, value, rtol=0, atol=TOLERANCE, err_msg=name)


def test_a_plain_batch_after_a_ragged_one_runs_all_steps():
    problem, plain = ragged("lstm"), make_problem("lstm")
    tasks = serial_order(problem.graph())
    engine = plain.engine()
    engine.load_batch(problem.batch)
    run_tasks(engine, tasks)
    plain.load(engine)
    run_tasks(engine, tasks)
    assert_same(outcome_of(engine), plain.outcome(), tolerance=0)


def test_only_steps_that_hold_something_are_run():
    extent = Extent(T, (slice(0, 2), slice(2, 5)), split(T, 3), 1.0, "train")
    filling = Filling(extent)
    problem = ragged("lstm")
    assert [filling.steps(0, c) for c in range(3)] == [3, 2, 2]
    filling.load(rows_of(problem.batch, slice(0, B)))
    assert [filling.steps(0, c) for c in range(3)] == [3, 2, 2]  # the row of T steps
    filling.load(rows_of(problem.batch, slice(None)))
    assert [filling.steps(1, c) for c in range(3)] == [3, 2, 0]  # at most five steps
    assert steps_run(LENGTHS, extent.microbatches) == [T, 5]
    assert slots_run(LENGTHS, extent.microbatches) == 2 * T + 3 * 5
    assert [r.tolist() for r in filling.ends(1, 1)] == [[1], [2]]
