"""Shares by speed on an ideal machine: what they recover of what one slow rank costs, whatever a real one's noise."""

import msgspec
import pytest

from hpcrnn.benchmarks.planning import block_costs, make_plan
from hpcrnn.grid import resolve_grid
from hpcrnn.schedules.placement import Layout
from hpcrnn.simulation.unit_cost import operation_cost, simulate
from hpcrnn.spec import build_spec
from hpcrnn.workloads import open_workload

# The problem and the grids of jobs/unequal_ranks.toml.
PROBLEM = {"cell": "lstm", "hidden": 128, "layers": 6, "batch": 48, "seq": 36}
GRIDS = [
    {"grid": "data=2"},
    {"grid": "pipeline=2", "order": "seq_1f1b", "chunks": 8},
    {"grid": "time=2", "order": "seq_1f1b", "microbatches": 2},
]


def makespan(overrides, shared_by, speeds):
    """When the last of ranks of these speeds is done, with work shared out by those."""
    spec = build_spec({}, {**PROBLEM, **overrides})
    grid = resolve_grid(spec, len(speeds))
    spec = msgspec.structs.replace(spec, parallel=msgspec.structs.replace(spec.parallel, grid=grid))
    plan = make_plan(spec, open_workload(spec), grid, Layout(weights=shared_by))
    cost = operation_cost(block_costs(plan.network, spec), plan.cut)
    rank = plan.schedule.placement.rank
    return simulate(plan.schedule, lambda place, task: cost(place, task) / speeds[rank(place)]).makespan


@pytest.mark.parametrize("overrides", GRIDS)
@pytest.mark.parametrize("speeds", [(1, 0.5), (0.5, 1)])
def test_four_fifths_and_more_of_what_even_shares_lose_are_recovered(overrides, speeds):
    even, balanced = (makespan(overrides, shared_by, speeds) for shared_by in ((), speeds))
    as_fast = makespan(overrides, (), (1, 1))
    ideal = as_fast * len(speeds) / sum(speeds)  # the same schedule at the mean speed of the ranks
    assert even > 1.3 * ideal
    assert (even - balanced) / (even - ideal) >= 0.8


def test_even_shares_are_best_for_equal_speeds():
    for overrides in GRIDS:
        assert makespan(overrides, (), (1, 1)) <= makespan(overrides, (2, 1), (1, 1))
