"""Who owns what."""

from itertools import combinations, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_samples import fixed_examples, make_schedule

from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.placement import Place, Placement, balanced, imbalance, make_placement, split
from hpcrnn.spec import AXES, Grid

GRIDS = st.builds(Grid, **{axis: st.integers(1, 4) for axis in AXES})


def bare(grid):
    """A placement of which only the grid matters."""
    return Placement(grid, (range(1),) * grid.pipeline, (range(1),) * grid.time)


@pytest.mark.parametrize(
    ("length", "parts", "sizes"),
    [(7, 3, [3, 2, 2]), (6, 3, [2, 2, 2]), (5, 1, [5]), (3, 3, [1, 1, 1]), (2, 3, [1, 1, 0]), (0, 2, [0, 0])],
)
def test_split_by_example(length, parts, sizes):
    assert [part.stop - part.start for part in split(length, parts)] == sizes


@given(st.integers(0, 1000), st.integers(1, 50))
@fixed_examples
def test_split_cuts_contiguous_parts_that_differ_by_one_at_most(length, parts):
    cut = split(length, parts)
    assert [index for part in cut for index in range(length)[part]] == list(range(length))
    sizes = [part.stop - part.start for part in cut]
    assert len(sizes) == parts
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@given(GRIDS)
@fixed_examples
def test_ranks_and_places_are_the_same_thing(grid):
    placement = bare(grid)
    places = [placement.place(rank) for rank in range(placement.n_ranks)]
    assert [placement.rank(place) for place in places] == list(range(grid.n_ranks))
    drawn = [Place(*c) for c in product(*(range(getattr(grid, axis)) for axis in AXES))]
    assert places == drawn  # the last axis is the fastest


@pytest.mark.parametrize("rank", [-1, 24])
def test_a_rank_that_is_not_there_has_no_place(rank):
    with pytest.raises(ValueError, match=f"rank {rank} of 24"):
        bare(Grid(data=2, pipeline=3, time=4)).place(rank)


@given(GRIDS, st.sets(st.sampled_from(AXES)))
@fixed_examples
def test_groups_part_the_ranks(grid, axes):
    placement = bare(grid)
    others = [axis for axis in AXES if axis not in axes]
    for rank in range(grid.n_ranks):
        place = placement.place(rank)
        group = placement.group(place, sorted(axes))
        assert rank in group
        assert list(group) == sorted(group)
        alike = [
            r
            for r in range(grid.n_ranks)
            if all(getattr(placement.place(r), axis) == getattr(place, axis) for axis in others)
        ]
        assert list(group) == alike


@pytest.mark.parametrize(
    ("grid", "n_virtual"), [("data=2,pipeline=2,time=2,tensor=2", 1), ("pipeline=3", 2), ("data=2,time=3", 1)]
)
def test_every_task_has_one_owner_in_each_replica_and_tensor_group(grid, n_virtual):
    schedule = make_schedule(grid, microbatches=2, chunks=2, layers=7, n_virtual=n_virtual)
    placement, graph = schedule.placement, schedule.graph
    places = [placement.place(rank) for rank in range(placement.n_ranks)]
    for task in graph.tasks():
        owners = [p for p in places if task.block in placement.blocks_at(p) and task.chunk in placement.chunks_at(p)]
        assert len(owners) == placement.grid.data * placement.grid.tensor
        assert {placement.owner(task, place) for place in places} == set(owners)
        for place in places:
            owner = placement.owner(task, place)
            assert (owner.data, owner.tensor) == (place.data, place.tensor)


def test_virtual_stages_go_round():
    placement = make_schedule("pipeline=2", layers=6, n_virtual=3).placement
    assert placement.n_virtual == 3
    # The input layer and the head cost nothing here; each lies beside a layer.
    assert placement.stages == (range(2), range(2, 3), range(3, 4), range(4, 5), range(5, 6), range(6, 8))
    assert placement.blocks_at(Place(pipeline=0)) == (0, 1, 3, 5)
    assert placement.stages_at(Place(pipeline=1)) == (range(2, 3), range(4, 5), range(6, 8))
    assert [placement.stage(block) for block in range(8)] == [0, 0, 1, 2, 3, 4, 5, 5]


def test_rows_of_the_batch_are_those_of_the_replica():
    placement = bare(Grid(data=3, time=2))
    rows = [placement.rows(7, placement.place(rank)) for rank in range(6)]
    assert rows == [slice(0, 3)] * 2 + [slice(3, 5)] * 2 + [slice(5, 7)] * 2


@pytest.mark.parametrize("grid", [Grid(pipeline=3), Grid(time=3)])
def test_more_parts_than_there_is_to_part_are_refused(grid):
    with pytest.raises(ValueError, match=r"of 2 layers, .* of 2 chunks"):
        make_placement(TaskGraph((False, True, True, False), 1, 2), grid, [0, 1, 1, 0])


def cuts(n, parts):
    """Every way to cut ``range(n)`` into contiguous parts."""
    for inner in combinations(range(1, n), parts - 1):
        yield tuple(range(a, b) for a, b in pairwise((0, *inner, n)))


def worst(costs, parts):
    return max(sum(costs[b] for b in part) for part in parts)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=8), st.data())
@fixed_examples
def test_no_cut_is_better_balanced(blocks, data):
    blocks[0] = (blocks[0][0] + 1, True)  # something to place
    costs, heavy = [float(cost) for cost, _ in blocks], [h for _, h in blocks]
    parts = data.draw(st.integers(1, sum(heavy)))
    found = balanced(costs, heavy, parts)
    fitting = [cut for cut in cuts(len(blocks), parts) if all(any(heavy[b] for b in part) for part in cut)]
    assert found in fitting
    assert worst(costs, found) == pytest.approx(min(worst(costs, cut) for cut in fitting))


def test_what_an_uneven_split_loses():
    assert imbalance([2, 2, 2]) == 0
    assert imbalance([3, 2, 1]) == pytest.approx(1 / 3)
    assert imbalance([1, 0, 0, 0]) == pytest.approx(3 / 4)
