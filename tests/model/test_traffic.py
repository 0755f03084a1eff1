"""Bytes of a step: small cases counted by hand, and what must hold of all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.benchmarks.ways import Way
from hpcrnn.grid import resolve_grid
from hpcrnn.model.network import build_network
from hpcrnn.model.sharding import Shard
from hpcrnn.model.traffic import Traffic, Work, step_traffic
from hpcrnn.reporting.analysis.roofline import interface_of, traffic_of
from hpcrnn.spec import build_spec
from hpcrnn.workloads import Interface, open_workload

T, B, D, H = 5, 4, 3, 2
TOKENS = Interface("tokens", 256, "cross_entropy", 256)
ADDING = Interface("features", 2, "squared_error", 1)
DIRECT = Interface("features", D, "linear", H)


def network_of(interface, **keys):
    spec = build_spec({}, {"hidden": H, "embed": D, "layers": 1, "batch": B, "seq": T, **keys})
    return build_network(spec, interface)


def bytes_of(interface, optimizer="adam", *, itemsize=4, n_microbatches=1, fold=1, mode="train", **keys):
    network = network_of(interface, mode=mode, **keys)
    work = Work(mode, optimizer, itemsize, n_microbatches, fold)
    return step_traffic(network, range(len(network.blocks)), T, B, work)


# --- by hand ----------------------------------------------------------------------------------------


ELMAN = {"cell": "elman", "input": "direct", "workload": "synthetic"}
X, Y = T * B * D * 4, T * B * H * 4
WEIGHTS, R = 4 * (D * H + H * H + H), 4 * H * H


def test_an_elman_layer_forward():
    layer = X + WEIGHTS + Y
    cotangent = Y + Y
    assert (X, Y, WEIGHTS, R) == (240, 160, 48, 16)
    assert bytes_of(DIRECT, mode="forward", **ELMAN) == Traffic(layer + cotangent, layer + cotangent + 4 * R)
    assert bytes_of(DIRECT, mode="forward", **ELMAN) == Traffic(768, 832)


def test_an_elman_layer_trained_by_sgd():
    # Backward: x, y and dy are read, and R; nothing is trained before it, so no dx, and W is not needed again.
    # Update: gradient written and read, parameter read and written, velocity read and written.
    assert bytes_of(DIRECT, "sgd", **ELMAN) == Traffic(768 + (240 + 160 + 160 + 16) + 160 + 6 * 48, 1792 + 2 * 64)


def test_every_gradient_of_an_elman_layer():
    # The gradient of the input is written, which needs W; a gradient is written and nothing updated.
    assert bytes_of(DIRECT, mode="gradient", **ELMAN).cached == 768 + (576 + 240 + 24) + 160 + 48


def test_an_lstm_on_tokens_trained_by_adam():
    tokens, tape = T * B * 4, T * B * H * (4 + 1 + 1) * 4  # four gates, tanh c, c
    table_rows = 20 * D * 4  # as many as there are tokens, fewer than 256
    embedding = (tokens + table_rows + 240) + (tokens + 240) + 8 * 256 * D * 4
    layer = (240 + 192 + 160) + (240 + 160 + 160 + 240 + 96 + 64 + 2 * tape) + 8 * 192
    scores = T * B * 256 * 4
    head = (160 + 3072 + tokens) + (160 + 160 + 2048 + 2 * scores) + 8 * 3072
    assert (embedding, layer, head) == (25456, 5008, 71216)
    found = bytes_of(TOKENS, cell="lstm")
    assert found == Traffic(embedding + layer + head, embedding + layer + head + 2 * 4 * 64)
    assert found == Traffic(101680, 102192)


def test_two_gru_layers_in_float64_on_features():
    tape = T * B * H * (3 + 1) * 8  # three gates, q
    linear = (320 + 72 + 480) + (320 + 480 + 320 + 48) + 72
    first = (480 + 304 + 320) + (480 + 320 + 320 + 480 + 144 + 96 + 2 * tape) + 304
    second = (320 + 256 + 320) + (320 + 320 + 320 + 320 + 96 + 96 + 2 * tape) + 256
    head = (320 + 24 + 160) + (320 + 320 + 16 + 2 * 160) + 24
    found = bytes_of(ADDING, itemsize=8, mode="gradient", cell="gru", layers=2, dtype="float64", workload="adding")
    assert found == Traffic(linear + first + second + head, 14608 + 2 * 2 * 4 * 96)
    assert found.cached == 14608


def test_halved_precisions_move_half_of_all_but_parameters_and_their_gradients():
    whole, halved = (bytes_of(DIRECT, itemsize=size, **ELMAN).cached for size in (4, 2))
    update = 8 * WEIGHTS
    assert whole - update == 2 * (halved - update)


# --- what must hold ---------------------------------------------------------------------------------


def test_a_linear_cell_has_no_recurrent_weights_to_stream():
    found = bytes_of(TOKENS, cell="mingru")
    assert found.streamed == found.cached


def test_micro_batches_and_folds_change_how_often_recurrent_weights_are_needed_and_nothing_else():
    base = bytes_of(DIRECT, mode="forward", **ELMAN)
    cut = bytes_of(DIRECT, mode="forward", n_microbatches=2, **ELMAN)
    folded = bytes_of(DIRECT, mode="forward", fold=2, **ELMAN)  # 3 and 2 steps beside one another
    assert cut == Traffic(base.cached, base.cached + (2 * T - 1) * R)
    assert folded == Traffic(base.cached, base.cached + (3 - 1) * R)
    assert bytes_of(DIRECT, mode="forward", n_microbatches=99, **ELMAN).streamed == base.cached + (B * T - 1) * R


def test_a_rank_without_rows_updates_its_parameters():
    network = network_of(DIRECT, **ELMAN)
    blocks, work = range(len(network.blocks)), Work("train", "adam", 4)
    assert step_traffic(network, blocks, T, 0, work) == Traffic(8 * WEIGHTS, 8 * WEIGHTS)


GRIDS = ["data=3", "pipeline=2", "time=2", "tensor=2", "data=2,pipeline=2,time=2", "data=2,tensor=2"]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("workload", ["stdlib", "adding", "synthetic"])
def test_ranks_move_what_their_parts_of_the_plan_do(grid, workload):
    """The report's count, from the specification, is the sum over the ranks of the plan that a run executes."""
    keys = {"hidden": 7, "layers": 3, "embed": 5, "batch": 7, "seq": 9, "grid": grid, "workload": workload}
    spec = build_spec({}, {**keys, "microbatches": 2, "chunks": 2})
    opened = open_workload(spec)
    plan = Way("numpy", spec).plan(opened)
    assert interface_of(spec, None) == opened.interface
    work = Work("train", "adam", 4, spec.parallel.microbatches)
    total = Traffic()
    for rank in range(resolve_grid(spec, plan.n_ranks).n_ranks):
        extent = plan.extent(rank)
        steps = extent.window.stop - extent.window.start
        total += step_traffic(plan.network, extent.blocks, steps, extent.rows, work, extent.shard)
    assert traffic_of(plan.network, spec) == total


@given(
    cell=st.sampled_from(["elman", "lstm", "gru", "mingru", "minlstm"]),
    mode=st.sampled_from(["train", "gradient", "forward"]),
    parts=st.integers(1, 6),
    steps=st.integers(1, 9),
    rows=st.integers(1, 9),
)
def test_more_is_never_less(cell, mode, parts, steps, rows):
    network = network_of(TOKENS, cell=cell, mode=mode, hidden=6)
    blocks = range(len(network.blocks))
    work = Work(mode, "adam", 4)
    found = step_traffic(network, blocks, steps, rows, work)
    assert 0 < found.cached <= found.streamed
    more = step_traffic(network, blocks, steps + 1, rows + 1, work)
    assert more.cached > found.cached
    part = step_traffic(network, blocks, steps, rows, work, Shard(0, parts))
    assert part.cached <= found.cached
