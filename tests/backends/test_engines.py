"""What every engine promises: its result depends on the problem, not on how the work is cut or ordered."""

import random

import numpy as np
import pytest
from engine_samples import (
    CELLS,
    PEER_CELLS,
    TOLERANCE,
    B,
    assert_same,
    every_cell,
    every_engine,
    every_kind,
    every_split,
    joined,
    make_problem,
    outcome_of,
    run_tasks,
    serial_order,
)

from hpcrnn.errors import NumericsError
from hpcrnn.model.optimizers import clip, finite_norm, make_optimizer


@every_split
@every_kind
@every_cell
def test_results_do_not_depend_on_microbatches_and_chunks(cell, kind, cut):
    problem = make_problem(cell, kind)
    assert_same(problem.outcome(cut=cut), problem.outcome())


def random_order(graph, rng):
    """Any order in which every task comes after what it needs, weight gradients at any distance."""
    waiting, order = list(graph.tasks()), []
    while waiting:
        ready = [task for task in waiting if all(needed in order for needed in graph.needs(task))]
        order.append(rng.choice(ready))
        waiting.remove(order[-1])
    return order


@pytest.mark.parametrize("seed", range(3))
@every_engine
@every_kind
def test_results_do_not_depend_on_the_order_of_independent_tasks(kind, backend, seed):
    problem, cut = make_problem("lstm", kind), (2, 3)
    engine = problem.engine(backend, cut)
    run_tasks(engine, random_order(problem.graph(cut), random.Random(seed)))  # noqa: S311
    assert_same(outcome_of(engine), problem.outcome())


@pytest.mark.parametrize("seed", range(3))
@every_cell
def test_every_cell_may_be_run_in_any_order(cell, seed):
    problem, cut = make_problem(cell, "features"), (2, 3)
    engine = problem.engine(cut=cut)
    run_tasks(engine, random_order(problem.graph(cut), random.Random(seed)))  # noqa: S311
    assert_same(outcome_of(engine), problem.outcome())


@pytest.mark.parametrize("first", [1, 2, 4])
@every_engine
@every_kind
def test_engines_over_parts_of_the_rows_add_up_to_the_whole(kind, backend, first):
    problem = make_problem("lstm", kind)
    parts = [problem.outcome(backend, rows=rows) for rows in (slice(0, first), slice(first, B))]
    assert_same(joined(parts), problem.outcome())


@every_cell
def test_parts_of_the_rows_add_up_for_every_cell(cell):
    problem = make_problem(cell)
    parts = [problem.outcome(rows=rows, cut=(2, 2)) for rows in (slice(0, 3), slice(3, B))]
    assert_same(joined(parts), problem.outcome())


@every_engine
@every_kind
def test_a_second_step_forgets_the_first(kind, backend):
    problem, other = make_problem("gru-after", kind), make_problem("gru-after", kind, seed=1)
    tasks = serial_order(problem.graph((2, 3)))
    engine = other.engine(backend, (2, 3))
    run_tasks(engine, tasks)
    engine.load_parameters(problem.parameters)
    problem.load(engine)
    for _ in range(2):
        run_tasks(engine, tasks)
        assert_same(outcome_of(engine), problem.outcome(), tolerance=TOLERANCE)


@every_engine
def test_an_outcome_is_a_copy(backend):
    problem = make_problem("lstm", "features")
    engine = problem.engine(backend)
    tasks = serial_order(problem.graph())
    run_tasks(engine, tasks)
    outcome = outcome_of(engine)
    kept = {name: a.copy() for name, a in outcome.arrays.items()}
    make_problem("lstm", "features", seed=1).load(engine)
    run_tasks(engine, tasks)
    for name, value in outcome.arrays.items():
        np.testing.assert_array_equal(value, kept[name], err_msg=name)


@every_engine
def test_a_gradient_range_is_summed_in_place(backend):
    problem = make_problem("lstm", "features")
    engine = problem.engine(backend)
    run_tasks(engine, serial_order(problem.graph()))
    before = problem.outcome(backend)
    part = engine.gradient_range(1, 3)
    assert part.flags.c_contiguous
    assert part.size == sum(block.n_parameters for block in problem.network.blocks[1:3])
    part *= 3
    for name, value in outcome_of(engine).arrays.items():
        factor = 3 if name.startswith("gradient layer") else 1
        np.testing.assert_array_equal(value, factor * before.arrays[name], err_msg=name)


@every_engine
def test_gradient_ranges_are_the_blocks_in_order(backend):
    problem = make_problem("gru-after")
    engine = problem.engine(backend)
    run_tasks(engine, serial_order(problem.graph()))
    blocks = len(problem.network.blocks)
    whole = engine.gradient_range(0, blocks)
    np.testing.assert_array_equal(whole, np.concatenate([engine.gradient_range(i, i + 1) for i in range(blocks)]))


def flat(network, arrays, prefix=""):
    return np.concatenate([arrays[f"{prefix}{b.name}.{name}"].ravel() for b in network.blocks for name in b.shapes])


def named(network, vector):
    arrays, position = {}, 0
    for block in network.blocks:
        for name, shape in block.shapes.items():
            size = int(np.prod(shape))
            arrays[f"{block.name}.{name}"] = vector[position : position + size].reshape(shape)
            position += size
    return arrays


@pytest.mark.parametrize("limit", [None, 0.05])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@every_engine
@pytest.mark.parametrize("cell", ["lstm", "gru-after"])
def test_an_update_is_the_optimizers_alone(cell, backend, optimizer, limit):
    problem = make_problem(cell, mode="train", optimizer=optimizer, lr=0.01, clip=limit)
    tasks = serial_order(problem.graph())
    engine = problem.engine(backend)
    parameters = flat(problem.network, problem.parameters)
    alone = make_optimizer(problem.spec.training, parameters.size, "float64")
    for _ in range(3):
        run_tasks(engine, tasks)
        gradient = flat(problem.network, outcome_of(engine).arrays, "gradient ")
        norm = float(np.linalg.norm(gradient))
        assert limit is None or norm > limit
        assert engine.norm_square() ** 0.5 == pytest.approx(norm, rel=TOLERANCE)
        engine.update(norm)
        clip(gradient, norm, limit)
        alone.update(parameters, gradient)
        # What the engine computes next shows its parameters.
        problem.parameters = named(problem.network, parameters)
        run_tasks(engine, tasks)
        assert_same(outcome_of(engine), problem.outcome())


@every_engine
def test_a_gradient_that_is_not_finite_has_no_norm(backend):
    problem = make_problem("lstm", "features", mode="train")
    problem.batch.inputs[2, 1] = np.nan
    engine = problem.engine(backend)
    run_tasks(engine, serial_order(problem.graph()))
    with pytest.raises(NumericsError, match="the gradient is not finite"):
        finite_norm(engine.norm_square())


@every_engine
def test_the_loss_starts_at_zero_whatever_it_was_replaced_by(backend):
    problem = make_problem("lstm")
    engine = problem.engine(backend)
    tasks = serial_order(problem.graph())
    run_tasks(engine, tasks)
    first, engine.loss = engine.loss, 1e9
    run_tasks(engine, tasks)
    assert engine.loss == first == problem.outcome(backend).loss


@pytest.mark.parametrize(
    ("cell", "backend"),
    [
        *((cell, "numpy") for cell in CELLS),
        *(pytest.param(cell, "torch", marks=pytest.mark.peer) for cell in PEER_CELLS),
    ],
)
def test_final_states_and_gradients_have_their_documented_shapes(cell, backend):
    problem = make_problem(cell, "features")
    outcome = problem.outcome(backend)
    shapes = {f"gradient {b.name}.{name}": shape for b in problem.network.blocks for name, shape in b.shapes.items()}
    states = {f"{what} {name}": a.shape for what in ("state", "d") for name, a in problem.initial.items()}
    batch, steps, features = B, len(problem.batch.inputs), problem.batch.inputs.shape[-1]
    expected = {**shapes, **states, "dx": (batch, steps, features)}
    assert {name: a.shape for name, a in outcome.arrays.items()} == expected


@every_engine
@pytest.mark.parametrize(("kind", "mode"), [("tokens", "gradient"), ("features", "train"), ("cotangent", "train")])
def test_there_is_no_dx_where_nothing_asks_for_it(kind, mode, backend):
    assert "dx" not in make_problem("lstm", kind, mode=mode).outcome(backend).arrays
