"""How a split is read from any specification, and what it is called."""

import math
from itertools import combinations

import pytest

from hpcrnn.records.split import Split, read_split
from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.placement import make_placement
from hpcrnn.spec import AXES, Grid


@pytest.mark.parametrize(
    ("grid", "n_ranks", "more", "name", "series"),
    [
        ({"data": 1}, 1, {}, "serial", "serial"),
        ({}, 1, {"microbatches": 4}, "serial · M4", "serial · M4"),
        ({"data": 1}, 1, {"chunks": 2, "order": "seq_1f1b"}, "serial · seq_1f1b C2", "serial · seq_1f1b C2"),
        ({"data": 2}, 2, {}, "data 2", "data"),
        ({"data": 2}, 2, {"order": "zb_h1"}, "data 2", "data"),
        ({"tensor": 2}, 2, {}, "tensor 2", "tensor"),
        ({"pipeline": 2}, 2, {}, "pipeline 2 · fill_drain", "pipeline · fill_drain"),
        (
            {"pipeline": 2},
            2,
            {"order": "1f1b", "microbatches": 4, "chunks": 2},
            "pipeline 2 · 1f1b M4 C2",
            "pipeline · 1f1b M4 C2",
        ),
        (
            {"pipeline": 4},
            4,
            {"order": "interleaved", "virtual_stages": 2, "microbatches": 8},
            "pipeline 4 · interleaved v2 M8",
            "pipeline · interleaved v2 M8",
        ),
        ({"time": 2}, 2, {"microbatches": 4}, "time 2 · fill_drain M4", "time · fill_drain M4"),
        ({"data": 2, "tensor": 3}, 6, {}, "data 2 × tensor 3", "data × tensor 3"),
        ({"data": 2}, 2, {"data_method": "allreduce_flat"}, "data 2", "data"),
        ({"data": 4}, 4, {"data_method": "hierarchical"}, "data 4 · hierarchical", "data · hierarchical"),
        (
            {"data": 4},
            4,
            {"data_method": "hierarchical", "node_size": 2},
            "data 4 · hierarchical 2",
            "data · hierarchical 2",
        ),
        ({"data": 4}, 4, {"data_method": "local_sgd", "sync_every": 8}, "data 4 · local_sgd 8", "data · local_sgd 8"),
        (
            {"data": 3},
            3,
            {"data_method": "parameter_server_async", "staleness": 0},
            "data 3 · parameter_server_async 0",
            "data · parameter_server_async 0",
        ),
        ({"data": 2}, 2, {"data_method": "ensemble", "sync_every": 8}, "data 2 · ensemble", "data · ensemble"),
        ({"data": 1}, 1, {"data_method": "diloco", "sync_every": 8}, "serial", "serial"),
        ({"time": 2}, 2, {"data_method": "diloco"}, "time 2 · fill_drain", "time · fill_drain"),
        (
            {"time": 2, "data": 2, "pipeline": 2},
            8,
            {"order": "1f1b"},
            "data 2 × pipeline 2 × time 2 · 1f1b",
            "data × pipeline 2 × time 2 · 1f1b",
        ),
    ],
)
def test_names(grid, n_ranks, more, name, series):
    split = read_split({"grid": grid, **more}, "data", n_ranks)
    assert split.name == name
    assert split.series_name == series


@pytest.mark.parametrize(
    ("grid", "more", "recurrence", "name", "series"),
    [
        ({}, {}, {"method": "picard", "fold": 128}, "picard 128", "picard 128"),
        ({}, {}, {"method": "picard", "fold": 1}, "picard", "picard"),
        ({"time": 4}, {}, {"method": "picard", "fold": 16}, "time 4 · picard 16", "time · picard 16"),
        ({"time": 4}, {}, {"method": "scan"}, "time 4 · scan", "time · scan"),
        ({"time": 4}, {"microbatches": 2}, {"method": "gateprod"}, "time 4 · M2 · gateprod", "time · M2 · gateprod"),
        (
            {"pipeline": 2, "time": 2},
            {"order": "1f1b"},
            {"method": "picard"},
            "pipeline 2 × time 2 · 1f1b · picard",
            "pipeline × time 2 · 1f1b · picard",
        ),
        # A fold means nothing to a chain.
        ({"time": 4}, {}, {"method": "chain", "fold": 16}, "time 4 · fill_drain", "time · fill_drain"),
        ({}, {}, {}, "serial", "serial"),
    ],
)
def test_names_say_the_method_and_the_fold(grid, more, recurrence, name, series):
    n_ranks = math.prod(grid.values())
    split = read_split({"grid": grid, **more}, "data", n_ranks, recurrence)
    assert (split.name, split.series_name) == (name, series)


@pytest.mark.parametrize("grid", [None, "data=3", {"data": 2}, {"data": "x"}, {"data": -3}])
def test_a_grid_that_was_not_stored_is_the_strategys_axis(grid):
    assert read_split({"grid": grid}, "data", 3).axes == (("data", 3),)
    assert read_split({"grid": grid, "microbatches": "x"}, "serial", 1) in (Split(), Split((("data", 2),)))


def test_members_are_those_of_the_placement():
    grid = Grid(data=2, pipeline=3, time=2, tensor=2)
    split = read_split({"grid": {axis: getattr(grid, axis) for axis in AXES}}, "hybrid", grid.n_ranks)
    placement = make_placement(TaskGraph((True,) * 3, 1, 2), grid, [1.0] * 3)
    for size in range(5):
        for axes in combinations(AXES, size):
            for rank in range(grid.n_ranks):
                assert split.members(rank, axes) == placement.group(placement.place(rank), axes)
