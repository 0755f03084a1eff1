"""The simulation against closed forms, and against the programs it runs."""

from itertools import pairwise, product

import numpy as np
import pytest

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.placement import Place, make_placement, split
from hpcrnn.schedules.schedule import Schedule
from hpcrnn.simulation.bounds import (
    pipeline_bubble,
    pipeline_makespan,
    wavefront_efficiency,
    zero_bubble_makespan,
)
from hpcrnn.simulation.unit_cost import operation_cost, simulate, unit_cost
from hpcrnn.spec import Grid

FUSED = ("fill_drain", "1f1b", "seq_1f1b")
COSTS = [(1, 1, 1), (2, 3, 1), (1, 1, 3), (1, 2, 0)]


class OneByte:
    def value_bytes(self, value, place):
        return 1

    def gradient_bytes(self, block, place):
        return 1


def make(grid, microbatches, chunks, order, *, layers=1, n_virtual=1, mode="train"):
    """Input layer, ``layers`` recurrent layers, at least one a stage, head; chunks are those of a segment."""
    layers = max(layers, grid.pipeline * n_virtual)
    recurrent = (False, *[True] * layers, False)
    graph = TaskGraph(recurrent, microbatches, chunks * grid.time, backward=mode != "forward")
    placement = make_placement(graph, grid, [float(r) for r in recurrent], n_virtual=n_virtual)
    names = tuple(f"block{k}" for k in range(layers + 2))
    return Schedule(graph, placement, order, mode, "allreduce_bucketed", False, names, OneByte())


def run(schedule, costs=(1, 1, 1)):
    F, B, W = costs
    return simulate(schedule, unit_cost(schedule.graph, F=F, B=B, W=W))


def both_ways(n_ranks, microbatches, items, order, mode="train"):
    """A pipeline over chunks, and its transpose: segments over layers."""
    return (
        make(Grid(pipeline=n_ranks), microbatches, items, order, mode=mode),
        make(Grid(time=n_ranks), microbatches, 1, order, layers=items, mode=mode),
    )


CUTS = list(product((1, 2, 3, 5), (1, 2, 5), (1, 2, 4)))


@pytest.mark.parametrize("order", FUSED)
@pytest.mark.parametrize("costs", COSTS, ids=str)
def test_makespan_of_pipelines_and_segments(order, costs):
    """n (F + B + W) + (P - 1) (F + B): a gradient leaves before the weight gradient."""
    for P, M, C in CUTS:
        for schedule in both_ways(P, M, C, order):
            assert run(schedule, costs).makespan == pipeline_makespan(P, M * C, *costs), (P, M, C)


@pytest.mark.parametrize("order", FUSED)
def test_the_bubble_is_exact_and_no_worse_than_the_textbook_has_it(order):
    for P, M, C in CUTS:
        for schedule in both_ways(P, M, C, order):
            found, n = run(schedule), M * C
            assert found.bubble == pytest.approx(2 * (P - 1) / (3 * n + 2 * (P - 1)), abs=1e-12)
            assert found.bubble <= pipeline_bubble(P, n) + 1e-12


@pytest.mark.parametrize("order", FUSED)
@pytest.mark.parametrize(("mode", "costs"), [("train", (1, 2, 0)), ("forward", (1, 1, 1))])
def test_without_weight_gradients_the_bubble_is_that_of_the_textbook(order, mode, costs):
    """(P - 1) / (C M + P - 1); for segments, efficiency L M / (L M + P - 1)."""
    for P, M, C in CUTS:
        pipeline, segments = both_ways(P, M, C, order, mode)
        assert run(pipeline, costs).bubble == pytest.approx(pipeline_bubble(P, M * C), abs=1e-12)
        assert 1 - run(segments, costs).bubble == pytest.approx(wavefront_efficiency(C, M, P), abs=1e-12)


@pytest.mark.parametrize("costs", COSTS, ids=str)
def test_zero_bubble_with_one_microbatch(costs):
    """(C + P - 1) (F + B) + C W."""
    for P, C in product((1, 2, 3, 5, 8), (1, 2, 4, 16)):
        for schedule in both_ways(P, 1, C, "zb_h1"):
            assert run(schedule, costs).makespan == zero_bubble_makespan(P, C, *costs)


@pytest.mark.parametrize("costs", COSTS, ids=str)
def test_zero_bubble_is_never_slower_than_what_fuses(costs):
    for P, M, C in CUTS:
        for schedule in both_ways(P, M, C, "zb_h1"):
            assert run(schedule, costs).makespan <= pipeline_makespan(P, M * C, *costs)


def test_zero_bubble_shrinks_the_bubble_of_eight_stages():
    fused, deferred = (run(make(Grid(pipeline=8), 8, 8, order)) for order in ("seq_1f1b", "zb_h1"))
    assert fused.bubble == pytest.approx(14 / 206)
    assert deferred.bubble < 0.6 * fused.bubble


@pytest.mark.parametrize("n_virtual", [1, 2, 3])
@pytest.mark.parametrize(("P", "M"), [(2, 2), (2, 5), (3, 3), (3, 4), (4, 4), (4, 8)])
def test_virtual_stages_divide_the_fill(P, M, n_virtual):
    """A stage of v layers as v virtual stages: M v (F + B + W) + (P - 1) (F + B), in times of one layer."""
    order = "interleaved" if n_virtual > 1 else "1f1b"
    F, B, W = 2, 3, 1
    found = run(make(Grid(pipeline=P), M, 1, order, n_virtual=n_virtual), (F, B, W))
    assert found.makespan == M * n_virtual * (F + B + W) + (P - 1) * (F + B)


def test_a_pipeline_over_segments_fills_along_both():
    found = run(make(Grid(pipeline=2, time=3), 2, 1, "fill_drain"))
    assert found.makespan == pipeline_makespan(4, 2, 1, 1, 1)  # three hops from the first place to the last


@pytest.mark.parametrize(
    ("order", "units"), [("fill_drain", [128] * 8), ("seq_1f1b", list(range(23, 15, -1))), ("zb_h1", [23] * 8)]
)
def test_peak_activations(order, units):
    """P = 8, C = 16, M = 8: 1.44 micro-batches against 8 at the same bubble."""
    found = run(make(Grid(pipeline=8), 8, 16, order))
    assert list(found.peak_units.values()) == units
    assert found.peak_microbatches[0] == units[0] / 16


def test_a_micro_batch_of_a_segment_is_its_own_chunks():
    found = run(make(Grid(time=2), 3, 2, "fill_drain"))
    assert found.peak_units == {0: 6, 1: 6}
    assert found.peak_microbatches == {0: 3, 1: 3}


def test_the_timeline_is_that_of_the_programs():
    schedule = make(Grid(pipeline=2), 2, 2, "zb_h1")
    found = run(schedule)
    timeline = found.timeline()
    assert timeline.fault(2) == ""
    assert timeline.end_of_step_s == found.makespan
    for rank, program in enumerate(schedule.programs()):
        rows = timeline.rows_of(rank)
        assert [timeline.instruction[k] for k in rows] == [str(i) for i in program.instructions]
        busy = (timeline.end_s - timeline.start_s)[[k for k in rows if timeline.instruction[k][0] in "FB"]]
        weights = (timeline.end_s - timeline.start_s)[[k for k in rows if timeline.instruction[k].startswith("W(")]]
        assert busy.sum() + weights.sum() == found.busy[rank]


class Pieces:
    """Seven rows over the replicas, steps cut unevenly."""

    def __init__(self, grid, microbatches, steps):
        self._grid, self._microbatches = grid, microbatches
        starts = np.cumsum([0, *steps])
        self.chunks = tuple(slice(int(a), int(b)) for a, b in pairwise(starts))

    def microbatches(self, place):
        rows = split(7, self._grid.data)[place.data]
        return split(rows.stop - rows.start, self._microbatches)


def test_operations_are_shared_out_over_rows_steps_and_kinds():
    pieces = Pieces(Grid(data=2), 2, (3, 2))
    cost = operation_cost((0.0, 60.0), pieces, shares={"F": 1, "B": 2, "W": 3})
    assert cost(Place(data=0), Task("F", 1, 0, 0)) == 10 * 2 * 3  # of four rows two, three steps
    assert cost(Place(data=1), Task("B", 1, 1, 1)) == 20 * 1 * 2  # of three rows the second part
    assert cost(Place(data=1), Task("W", 1, 0, 1)) == 30 * 2 * 2
    assert cost(Place(data=0), Task("F", 0, 0, 0)) == 0


def test_replicas_that_do_the_same_are_run_once():
    grid = Grid(data=3, pipeline=2, tensor=2)
    schedule = make(grid, 2, 1, "1f1b")
    found = run(schedule)
    assert set(found.programs) == {0, 2}  # pipeline positions of the first replica, first shard
    assert set(found.alike.values()) == {6}
    assert found.bubble == pytest.approx(run(make(Grid(pipeline=2), 2, 1, "1f1b")).bubble)


def test_uneven_replicas_are_run_apart_and_wait_for_one_another():
    grid = Grid(data=4, pipeline=2)
    schedule = make(grid, 1, 1, "1f1b")
    cost = operation_cost((0, 1, 1, 0), Pieces(grid, 1, (1,)))
    found = simulate(schedule, cost)  # rows 2 2 2 1
    assert found.alike == {0: 3, 1: 3, 6: 1, 7: 1}
    assert found.busy[0] == 2 * found.busy[6]
    every = simulate_all(schedule, cost)
    assert found.makespan == every[0]
    assert found.bubble == pytest.approx(every[1])


def simulate_all(schedule, cost):
    """Makespan and bubble with every rank run, by the walk itself."""
    from hpcrnn.schedules.replay import replay

    placement = schedule.placement
    walk = replay(
        dict(enumerate(schedule.programs())),
        lambda rank, axes: placement.group(placement.place(rank), axes),
        lambda rank, i: cost(placement.place(rank), i) if isinstance(i, Task) else 0.0,
    )
    busy = sum(
        cost(placement.place(p.rank), i) for p in schedule.programs() for i in p.instructions if isinstance(i, Task)
    )
    return walk.makespan, 1 - busy / (schedule.n_ranks * walk.makespan)


@pytest.mark.parametrize("n_stages", [2, 300])
def test_ranks_by_the_hundred(n_stages):
    found = run(make(Grid(pipeline=n_stages), 4, 1, "1f1b"))
    assert found.makespan == pipeline_makespan(n_stages, 4, 1, 1, 1)


def test_a_step_of_nothing_has_no_bubble():
    schedule = make(Grid(), 1, 1, "fill_drain")
    assert simulate(schedule, lambda place, task: 0.0).bubble == 0.0


def test_programs_that_never_end_are_refused(monkeypatch):
    schedule = make(Grid(pipeline=2), 1, 1, "fill_drain")
    alone = make(Grid(pipeline=2), 1, 1, "fill_drain", mode="forward")
    build = Schedule.program
    monkeypatch.setattr(Schedule, "program", lambda self, rank: build(alone if rank else schedule, rank))
    with pytest.raises(ScheduleError, match="never ends"):
        run(schedule)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pipeline_bubble(1, 5), 0),
        (pipeline_bubble(4, 1), 3 / 4),
        (pipeline_bubble(8, 64), 7 / 71),
        (wavefront_efficiency(4, 1, 2), 4 / 5),
        (wavefront_efficiency(1, 1, 8), 1 / 8),
    ],
)
def test_bounds_by_example(value, expected):
    assert value == pytest.approx(expected)
