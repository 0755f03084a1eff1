"""Shares in proportion to speeds: whole numbers, never none, and the best there are along one axis."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_samples import fixed_examples

from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.placement import Place, balanced, make_placement, split
from hpcrnn.schedules.shares import ALIKE, SHARED, Speeds, share_out, speeds_of
from hpcrnn.spec import AXES, Grid

SPEEDS = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


def counts(parts):
    return [part.stop - part.start for part in parts]


@pytest.mark.parametrize(
    ("length", "speeds", "least", "expected"),
    [
        (9, (2, 1, 1), 1, [5, 2, 2]),
        (64, (1, 0.5), 1, [43, 21]),
        (10, (1, 1000), 1, [1, 9]),
        (10, (1, 1000, 1000), 3, [3, 4, 3]),
        (3, (5, 1, 1), 1, [1, 1, 1]),
        (7, (1, 1, 1), 1, [3, 2, 2]),
        (7, (1, 1, 2), 1, [2, 2, 3]),  # quotas 1.75, 1.75, 3.5: the first two remainders are the largest
    ],
)
def test_shares_by_example(length, speeds, least, expected):
    assert counts(share_out(length, speeds, least)) == expected


@given(SPEEDS, st.integers(1, 4), st.integers(0, 200))
@fixed_examples
def test_shares_are_whole_contiguous_and_within_one_of_the_quota(speeds, least, more):
    length = least * len(speeds) + more
    parts = share_out(length, speeds, least)
    assert [index for part in parts for index in range(length)[part]] == list(range(length))
    found = counts(parts)
    assert min(found) >= least
    # Among those above the least, each is within one of its share of what the others leave.
    above = [k for k, n in enumerate(found) if n > least]
    rest, whole = sum(found[k] for k in above), sum(speeds[k] for k in above)
    for k in above:
        assert abs(found[k] - rest * speeds[k] / whole) < 1 + len(speeds) * 1e-9 + least
    if least == 1 and all(length * speed / sum(speeds) >= 1 for speed in speeds):
        assert all(abs(n - length * s / sum(speeds)) <= 1 for n, s in zip(found, speeds, strict=True))


@given(st.integers(1, 300), st.integers(1, 20))
@fixed_examples
def test_equal_speeds_share_as_evenly_as_can_be(length, parts):
    if length >= parts:
        assert share_out(length, (0.1,) * parts) == split(length, parts)


def test_too_little_for_everybody_is_refused():
    with pytest.raises(ValueError, match="5 in 2 parts of 3 or more"):
        share_out(5, (1, 1), 3)


@pytest.mark.parametrize(
    ("grid", "weights", "expected"),
    [
        (Grid(data=2), (), ALIKE),
        (Grid(data=3), (2, 2, 2), ALIKE),
        (Grid(data=3), (2, 1, 1), Speeds(data=(2, 1, 1))),
        (Grid(pipeline=2), (2, 1), Speeds(pipeline=(2, 1))),
        (Grid(time=2), (1, 3), Speeds(time=(1, 3))),
        (Grid(tensor=2), (1, 3), ALIKE),  # hidden units are shared evenly
        # A replica is as fast as the slowest of its stages; with fewer rows its stages need not be uneven.
        (Grid(data=2, pipeline=2), (1, 1, 1, 0.5), Speeds(data=(2, 1))),
        # The second stage of both replicas is slow: rows cannot mend that, layers can.
        (Grid(data=2, pipeline=2), (1, 0.5, 1, 0.5), Speeds(pipeline=(2, 1))),
        # Both at once.
        (Grid(data=2, time=2), (4, 2, 2, 1), Speeds(data=(2, 1), time=(2, 1))),
        # Of the tensor ranks of a replica the slowest counts.
        (Grid(data=2, tensor=2), (1, 1, 3, 0.5), Speeds(data=(2, 1))),
    ],
)
def test_speeds_of_positions_by_example(grid, weights, expected):
    found = speeds_of(grid, weights)
    for axis in SHARED:
        known, wanted = getattr(found, axis), getattr(expected, axis)
        assert np.array(known) / max(known, default=1) == pytest.approx(np.array(wanted) / max(wanted, default=1))


def slowest(grid, weights, speeds):
    """Time of the slowest rank where shares may be any fractions."""
    shares = {axis: np.array(speeds.along(axis, grid)) for axis in AXES}
    parts = np.meshgrid(*(shares[axis] / shares[axis].sum() for axis in AXES), indexing="ij")
    return float((np.prod(parts, axis=0).ravel() / np.array(weights)).max())


GRIDS = st.builds(Grid, **{axis: st.integers(1, 3) for axis in AXES})


@given(GRIDS, st.data())
@fixed_examples
def test_balancing_never_makes_the_slowest_rank_slower(grid, data):
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=grid.n_ranks, max_size=grid.n_ranks))
    even, balanced_time = slowest(grid, weights, ALIKE), slowest(grid, weights, speeds_of(grid, weights))
    assert balanced_time <= even * (1 + 1e-9)
    ideal = 1 / sum(weights)
    assert balanced_time >= ideal * (1 - 1e-9)


@given(st.sampled_from(SHARED), st.lists(st.floats(0.1, 10), min_size=1, max_size=5))
@fixed_examples
def test_one_axis_alone_reaches_the_ideal(axis, weights):
    grid = Grid(**{axis: len(weights)})
    assert slowest(grid, weights, speeds_of(grid, weights)) == pytest.approx(1 / sum(weights))


@given(st.lists(st.floats(0.2, 5), min_size=1, max_size=4), st.integers(0, 4), st.floats(0, 4), st.floats(0, 4))
@fixed_examples
def test_no_cut_of_a_network_suits_unequal_speeds_better(speeds, more, first, last):
    layers = len(speeds) + more
    costs, heavy = [first, 1.5, *[1.0] * (layers - 1), last], [False, *[True] * layers, False]

    def longest(cut):
        return max(sum(costs[b] for b in part) / speed for part, speed in zip(cut, speeds, strict=True))

    found = balanced(costs, heavy, len(speeds), speeds)
    assert [b for part in found for b in part] == list(range(len(costs)))
    assert all(any(heavy[b] for b in part) for part in found)
    best = min(
        longest([range(a, b) for a, b in zip((0, *inner), (*inner, len(costs)), strict=True)])
        for inner in product(range(2, layers + 1), repeat=len(speeds) - 1)
        if list(inner) == sorted(set(inner))
    )
    assert longest(found) == pytest.approx(best)


def test_a_placement_shares_rows_and_layers_by_speed():
    graph = TaskGraph((False, *[True] * 6, False), n_microbatches=2, n_chunks=1)
    speeds = Speeds(data=(3, 1), pipeline=(2, 1))
    placement = make_placement(graph, Grid(data=2, pipeline=2), [0, 1, 1, 1, 1, 1, 1, 0], speeds=speeds)
    assert placement.stages == (range(5), range(5, 8))
    assert [placement.rows(16, Place(data=d)) for d in range(2)] == [slice(0, 12), slice(12, 16)]
    assert [placement.rows(4, Place(data=d)) for d in range(2)] == [slice(0, 2), slice(2, 4)]  # a row a micro-batch


def test_virtual_stages_take_turns_at_the_speeds_of_their_positions():
    costs, heavy = [1.0] * 12, [True] * 12
    assert list(map(len, balanced(costs, heavy, 4, (2, 1)))) == [4, 2, 4, 2]
