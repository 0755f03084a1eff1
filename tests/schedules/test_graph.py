"""Cutting, placing and ordering the tasks of a step."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_samples import fixed_examples

from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.order import block_major
from hpcrnn.schedules.placement import Placement, split

GRAPHS = st.builds(
    TaskGraph,
    st.lists(st.booleans(), min_size=1, max_size=4).map(tuple),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
)

# Input layer, one recurrent layer, head; one micro-batch, two chunks.
NEEDS = """\
F(0,0,0):
F(0,0,1):
F(1,0,0): F(0,0,0)
F(1,0,1): F(0,0,1) F(1,0,0)
F(2,0,0): F(1,0,0)
F(2,0,1): F(1,0,1)
B(0,0,0): B(1,0,0) F(0,0,0)
B(0,0,1): B(1,0,1) F(0,0,1)
B(1,0,0): B(2,0,0) B(1,0,1) F(1,0,0)
B(1,0,1): B(2,0,1) F(1,0,1)
B(2,0,0): F(2,0,0)
B(2,0,1): F(2,0,1)
W(0,0,0): B(0,0,0)
W(0,0,1): B(0,0,1)
W(1,0,0): B(1,0,0)
W(1,0,1): B(1,0,1)
W(2,0,0): B(2,0,0)
W(2,0,1): B(2,0,1)
"""


def drawn(graph):
    return "".join(f"{task}: {' '.join(map(str, graph.needs(task)))}".rstrip() + "\n" for task in graph.tasks())


def test_what_each_task_needs():
    assert drawn(TaskGraph((False, True, False), 1, 2)) == NEEDS


def test_a_forward_graph_is_the_forward_part():
    forward = "".join(line for line in NEEDS.splitlines(keepends=True) if line.startswith("F"))
    assert drawn(TaskGraph((False, True, False), 1, 2, backward=False)) == forward


@given(GRAPHS)
@fixed_examples
def test_microbatches_need_nothing_of_one_another(graph):
    for task in graph.tasks():
        assert all(needed.microbatch == task.microbatch for needed in graph.needs(task))


@given(GRAPHS)
@fixed_examples
def test_every_task_is_there_once_and_needs_only_others_that_are(graph):
    tasks = list(graph.tasks())
    kinds = 3 if graph.backward else 1
    assert len(set(tasks)) == len(tasks) == kinds * graph.n_blocks * graph.n_microbatches * graph.n_chunks
    assert all(needed in tasks for task in tasks for needed in graph.needs(task))


@given(GRAPHS, st.randoms(use_true_random=False))
@fixed_examples
def test_block_major_does_every_task_after_what_it_needs(graph, rng):
    tasks = list(graph.tasks())
    rng.shuffle(tasks)
    order = block_major(tasks)
    assert sorted(map(str, order)) == sorted(map(str, tasks))
    place = {task: index for index, task in enumerate(order)}
    assert all(place[needed] < place[task] for task in tasks for needed in graph.needs(task))


@given(GRAPHS)
@fixed_examples
def test_block_major_keeps_a_blocks_tasks_together(graph):
    order = block_major(graph.tasks())
    visits = [(task.kind == "F", task.block) for task in order]
    assert len({*visits}) == sum(a != b for a, b in zip(visits, [None, *visits], strict=False))


@given(GRAPHS)
@fixed_examples
def test_a_weight_gradient_follows_its_backward_task(graph):
    order = block_major(graph.tasks())
    for index, task in enumerate(order):
        if task.kind == "W":
            assert order[index - 1] == Task("B", task.block, task.microbatch, task.chunk)


def test_the_order_written_out():
    graph = TaskGraph((True, False), 2, 2)
    tasks = list(graph.tasks())
    random.Random(0).shuffle(tasks)  # noqa: S311
    assert " ".join(map(str, block_major(tasks))) == (
        "F(0,0,0) F(0,0,1) F(0,1,0) F(0,1,1) F(1,0,0) F(1,0,1) F(1,1,0) F(1,1,1) "
        "B(1,0,1) W(1,0,1) B(1,0,0) W(1,0,0) B(1,1,1) W(1,1,1) B(1,1,0) W(1,1,0) "
        "B(0,0,1) W(0,0,1) B(0,0,0) W(0,0,0) B(0,1,1) W(0,1,1) B(0,1,0) W(0,1,0)"
    )


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


@pytest.mark.parametrize("n_replicas", [1, 2, 3])
def test_replicas_do_the_whole_graph_on_their_own_rows(n_replicas):
    graph, placement = TaskGraph((True, False), 2, 2), Placement(n_replicas)
    ranks = range(n_replicas)
    assert placement.n_ranks == n_replicas
    assert all(set(placement.tasks(graph, rank)) == set(graph.tasks()) for rank in ranks)
    assert [row for rank in ranks for row in range(7)[placement.rows(7, rank)]] == list(range(7))


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_is_not_there_has_no_tasks(rank):
    with pytest.raises(ValueError, match=f"rank {rank} of 2"):
        Placement(2).tasks(TaskGraph((True,), 1, 1), rank)
