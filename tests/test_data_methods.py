"""Which data methods fit, and what belongs to each."""

from typing import get_args

import pytest

from hpcrnn.data_methods import BELONGS, EXACT, LATE_LEG_STEPS, check_data_method, leg_steps
from hpcrnn.errors import SpecError
from hpcrnn.grid import check_cut
from hpcrnn.spec import DataMethodName, Grid, ParallelSpec, build_spec

METHODS = get_args(DataMethodName)
SPECIAL = [method for method in METHODS if not method.startswith("allreduce")]


def refusal(grid, **overrides):
    with pytest.raises(SpecError) as raised:
        check_cut(build_spec({}, overrides), grid)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_replicas(method):
    check_cut(build_spec({}, {"data_method": method, "microbatches": 2, "chunks": 3}), Grid(data=4))


@pytest.mark.parametrize("method", METHODS[:2])
@pytest.mark.parametrize("mode", ["train", "gradient", "forward"])
def test_plain_sums_take_any_grid_backend_and_mode(method, mode):
    spec = build_spec({}, {"data_method": method, "mode": mode, "backend": "numpy,torch,cupy"})
    check_data_method(spec, Grid(data=2, pipeline=2, time=2))


@pytest.mark.parametrize("method", SPECIAL)
@pytest.mark.parametrize(
    ("grid", "overrides", "expected"),
    [
        (Grid(data=2, time=2), {}, "parallel.grid = 'data=2,time=2': allowed is the axis data alone"),
        (Grid(data=2), {"backend": "cupy"}, "machine.backend = 'cupy': allowed is numpy with data_method"),
        (Grid(data=2), {"backend": "numpy,torch"}, "machine.backend = 'numpy,torch': allowed is numpy"),
        (Grid(data=2), {"method": "picard"}, "recurrence.method = 'picard': allowed is chain"),
    ],
)
def test_the_others_take_replicas_on_the_host_alone(method, grid, overrides, expected):
    line = refusal(grid, data_method=method, **overrides)
    assert line.startswith(expected)
    assert method in line


@pytest.mark.parametrize("method", [m for m in SPECIAL if m != "hierarchical"])
@pytest.mark.parametrize("mode", ["gradient", "forward"])
def test_models_are_exchanged_where_they_are_trained(method, mode):
    assert refusal(Grid(data=2), data_method=method, mode=mode).startswith(
        f"training.mode = '{mode}': allowed is train"
    )
    check_data_method(build_spec({}, {"data_method": method, "mode": "target", "target_loss": 2.0}), Grid(data=2))


@pytest.mark.parametrize(
    ("grid", "overrides", "expected"),
    [
        (
            Grid(),
            {"data_method": "parameter_server_sync"},
            (
                "parallel.data_method = 'parameter_server_sync': allowed is another one on one rank: a server needs a "
                "worker"
            ),
        ),
        (
            Grid(data=4),
            {"data_method": "parameter_server_async", "batch": 2},
            "problem.batch = 2: allowed is at least one row a rank of the 3 workers of data=4",
        ),
        (
            Grid(data=3),
            {"data_method": "parameter_server_sync", "batch": 5, "microbatches": 3},
            "parallel.microbatches = 3: allowed is at most the 2 rows of a rank",
        ),
        (
            Grid(data=3),
            {"data_method": "subsequence", "seq": 5, "chunks": 2},
            (
                "problem.seq = 5: allowed is at least 6 with data_method subsequence: a step for each of the chunks "
                "of 3 pieces"
            ),
        ),
        (
            Grid(data=2),
            {"data_method": "subsequence", "carry": True},
            (
                "training.carry = True: allowed is false with data_method subsequence: "
                "a rank's piece does not follow on its last one"
            ),
        ),
        (
            Grid(data=2),
            {"sync_every": 4},
            (
                "parallel.sync_every = 4: allowed is 8 with data_method allreduce_bucketed; it belongs to local_sgd "
                "and diloco"
            ),
        ),
        (
            Grid(data=2),
            {"data_method": "local_sgd", "outer_momentum": 0.5},
            "parallel.outer_momentum = 0.5: allowed is 0.9 with data_method local_sgd; it belongs to diloco",
        ),
        (
            Grid(data=2),
            {"node_size": 2},
            (
                "parallel.node_size = 2: allowed is nothing with data_method allreduce_bucketed; it belongs to "
                "hierarchical"
            ),
        ),
        (
            Grid(data=2),
            {"data_method": "hierarchical", "node_size": 3},
            "parallel.node_size = 3: allowed is at most the 2 ranks of the data axis",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(grid, overrides, expected):
    assert refusal(grid, **overrides) == expected


@pytest.mark.parametrize(
    "overrides",
    [
        {"data_method": "ring"},
        {"sync_every": 0},
        {"sync_every": 10_001},
        {"outer_momentum": 1.0},
        {"outer_lr": 0.0},
        {"staleness": -1},
        {"node_size": 0},
    ],
)
def test_values_out_of_range_are_refused_by_name(overrides):
    (key,) = overrides
    with pytest.raises(SpecError, match=rf"parallel\.{key}"):
        build_spec({}, overrides)


def test_rows_are_those_of_workers_and_all_ranks_have_all_rows_of_a_piece():
    check_cut(build_spec({}, {"data_method": "parameter_server_sync", "batch": 3}), Grid(data=4))
    check_cut(build_spec({}, {"data_method": "subsequence", "batch": 1}), Grid(data=4))


def test_a_leg_is_what_lies_between_two_meetings():
    assert {m: leg_steps(m, 5) for m in METHODS} == {
        **dict.fromkeys(METHODS, 1),
        "local_sgd": 5,
        "diloco": 5,
        "parameter_server_async": LATE_LEG_STEPS,
    }
    assert leg_steps("", 5) == 1


def test_every_key_belongs_to_methods_there_are():
    assert set(BELONGS) <= set(ParallelSpec.__struct_fields__)
    assert {method for methods in BELONGS.values() for method in methods} | set(EXACT) <= set(METHODS)
