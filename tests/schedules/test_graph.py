"""Cutting the work of a step into tasks and values."""

from hypothesis import given
from hypothesis import strategies as st
from program_samples import fixed_examples

from hpcrnn.schedules.graph import Task, TaskGraph, Value

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


def test_what_goes_in_and_out_of_a_task_in_the_middle():
    graph = TaskGraph((False, True, False), 1, 3)
    forward, backward = Task("F", 1, 0, 1), Task("B", 1, 0, 1)
    assert list(map(str, graph.values_into(forward))) == ["y(0,0,1)", "halo(1,0,0)"]
    assert list(map(str, graph.values_out_of(forward))) == ["y(1,0,1)", "halo(1,0,1)"]
    assert list(map(str, graph.values_into(backward))) == ["dy(1,0,1)", "dhalo(1,0,1)"]
    assert list(map(str, graph.values_out_of(backward))) == ["dy(0,0,1)", "dhalo(1,0,0)"]
    assert graph.values_into(Task("W", 1, 0, 1)) == graph.values_out_of(Task("W", 1, 0, 1)) == ()


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


@given(GRAPHS)
@fixed_examples
def test_a_value_joins_its_producer_and_its_consumer(graph):
    for task in graph.tasks():
        assert all(value.consumer == task for value in graph.values_into(task))
        assert all(task in map(producer_of, graph.values_into(value.consumer)) for value in graph.values_out_of(task))
        assert all(value.producer == task for value in graph.values_out_of(task))


def producer_of(value):
    return value.producer


def transposed(thing):
    """Blocks for chunks and chunks for blocks; states for outputs."""
    kinds = {"y": "halo", "halo": "y", "dy": "dhalo", "dhalo": "dy"}
    return type(thing)(kinds.get(thing.kind, thing.kind), thing.chunk, thing.microbatch, thing.block)


def test_blocks_and_chunks_of_recurrent_layers_are_transposes_of_one_another():
    layers, chunks = TaskGraph((True,) * 3, 2, 4), TaskGraph((True,) * 4, 2, 3)
    for task in layers.tasks():
        assert {transposed(v) for v in layers.values_into(task)} == set(chunks.values_into(transposed(task)))
        assert {transposed(v) for v in layers.values_out_of(task)} == set(chunks.values_out_of(transposed(task)))


def test_tasks_and_values_are_told_apart_by_everything_they_hold():
    assert (
        len({Task("F", 0, 0, 0), Task("B", 0, 0, 0), Task("F", 1, 0, 0), Task("F", 0, 1, 0), Task("F", 0, 0, 1)}) == 5
    )
    assert Value("y", 0, 0, 0) != Value("dy", 0, 0, 0)
