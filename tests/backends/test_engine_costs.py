"""What the network says a step costs, against what the NumPy engine really does."""

import tracemalloc
from functools import cache

import numpy as np
import pytest
from cells.cell_samples import CountingProducts
from engine_samples import B, T, every_cell, every_kind, make_problem, run_tasks, serial_order

from hpcrnn.backends.base import Extent
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.model.network import build_network, initial_parameters
from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.placement import split
from hpcrnn.spec import build_spec
from hpcrnn.workloads import Batch, Interface


@pytest.mark.parametrize("mode", ["train", "gradient", "forward"])
@every_kind
@every_cell
def test_operations_are_those_of_the_products_made(cell, kind, mode):
    problem, library = make_problem(cell, kind, mode=mode), CountingProducts()
    problem.outcome(cut=(2, 3), library=library)
    assert library.flops == problem.network.flops(T, B, backward=mode != "forward")


def test_operations_by_hand():
    network = make_problem("lstm", "features").network  # (3, 8), LSTM (8, 6), LSTM (6, 6), (6, 2); dx is asked for
    forward = 3 * 8 + 4 * 6 * (8 + 6) + 4 * 6 * (6 + 6) + 6 * 2
    assert network.flops(T, B, backward=False) == 2 * T * B * forward
    assert network.flops(T, B, backward=True) == 2 * T * B * forward * 3


INTERFACES = {
    "tokens": lambda sizes: Interface("tokens", 4 * sizes["hidden"], "cross_entropy", 4 * sizes["hidden"]),
    "features": lambda sizes: Interface("features", 3, "squared_error", 1),
    "direct": lambda sizes: Interface("features", 100, "linear", sizes["hidden"]),
}

SIZES = {
    "one step": {"seq": 1, "batch": 64, "hidden": 32},
    "one row": {"seq": 64, "batch": 1, "hidden": 32},
    "narrow": {"seq": 64, "batch": 32, "hidden": 2},
    "many weights": {"seq": 4, "batch": 4, "hidden": 96},
    "cut unevenly": {"seq": 16, "batch": 23, "hidden": 32, "microbatches": 4, "chunks": 3},
}


def random_batch(interface, steps, rows):
    rng = np.random.default_rng(0)
    if interface.inputs == "tokens":
        tokens = rng.integers(0, interface.input_size, (2, steps, rows), dtype=np.int32)
        return Batch(tokens[0], tokens[1], np.ones((steps, rows), np.float32))
    inputs = rng.random((steps, rows, interface.input_size), np.float32)
    return Batch(inputs, rng.random((steps, rows, interface.output_size), np.float32))


@pytest.mark.parametrize("mode", ["gradient", "forward"])
@pytest.mark.parametrize("kind", INTERFACES)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_the_memory_estimate_bounds_what_is_allocated_and_not_by_much_more(cell, sizes, kind, mode):
    allocated, estimate = allocated_and_estimated_bytes(cell, sizes, kind, mode)
    assert allocated <= estimate <= 3 * allocated


@cache
def make_spec(**overrides):
    return build_spec({}, overrides)


def allocated_and_estimated_bytes(cell, sizes, kind, mode):
    """The most that a whole step holds at once, the engine's construction included; and the estimate of it."""
    source = {"workload": "synthetic", "input": "direct"} if kind == "direct" else {}
    spec = make_spec(cell=cell, mode=mode, **source, **sizes)
    interface = INTERFACES[kind](sizes)
    network = build_network(spec, interface)
    steps, rows = spec.problem.seq, spec.problem.batch
    microbatches, chunks = split(rows, spec.parallel.microbatches), split(steps, spec.parallel.chunks)
    tasks = serial_order(TaskGraph(network.recurrent, len(microbatches), len(chunks), backward=mode != "forward"))
    parameters, batch = initial_parameters(network, 0), random_batch(interface, steps, rows)
    tracemalloc.start()
    try:
        extent = Extent(steps, microbatches, chunks, 1 / (steps * rows), mode)
        engine = NumpyEngine(network, extent, spec.training, NumpyProducts())
        engine.load_parameters(parameters)
        engine.load_batch(batch)
        run_tasks(engine, tasks)
        if mode != "forward":
            engine.update(1.0)
        return tracemalloc.get_traced_memory()[1], network.memory_bytes(steps, rows)
    finally:
        tracemalloc.stop()
