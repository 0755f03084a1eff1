"""Where the collectives of a program lie."""

from itertools import pairwise

import pytest
from program_samples import bare_network, build, token_network

from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.order import block_major
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Update, Wait

SPLITS = [{}, {"chunks": 3}, {"microbatches": 2}, {"microbatches": 2, "chunks": 2}]
every_split = pytest.mark.parametrize("cut", SPLITS, ids=str)
every_bucketing = pytest.mark.parametrize("allreduce", ["bucketed", "flat"])


def instructions(*args, **options):
    return build(*args, **options).programs[-1].instructions


def only(kind, found):
    return [i for i in found if isinstance(i, kind)]


@every_bucketing
@every_split
@pytest.mark.parametrize("mode", ["train", "gradient", "forward"])
def test_tasks_stay_in_the_order_they_were_given(mode, cut, allreduce):
    built = build(ranks=2, mode=mode, allreduce=allreduce, **cut)
    for program in built.programs:
        assert only(Task, program.instructions) == list(block_major(built.graph.tasks()))


@every_split
def test_a_bucket_is_posted_directly_after_the_last_weight_gradient_of_its_block(cut):
    found = instructions(ranks=2, **cut)
    posted = {}
    for before, post in pairwise(found):
        if isinstance(post, AllReduce):
            posted[post.start] = before
            later = found[found.index(post) :]
            assert not [t for t in only(Task, later) if t.kind == "W" and t.block == post.start]
            assert post.stop == post.start + 1
    assert {block: (task.kind, task.block) for block, task in posted.items()} == {b: ("W", b) for b in range(4)}


@every_split
def test_a_flat_sum_is_one_post_after_the_last_task(cut):
    network = token_network()
    found = instructions(network, ranks=2, allreduce="flat", **cut)
    (post,) = only(AllReduce, found)
    assert post == AllReduce(0, 4, 4 * network.n_parameters)
    assert found[found.index(post) - 1] == only(Task, found)[-1]


@every_bucketing
@every_split
@pytest.mark.parametrize("mode", ["train", "gradient", "forward"])
def test_the_loss_is_posted_directly_after_the_last_forward_task(mode, cut, allreduce):
    found = instructions(ranks=2, mode=mode, allreduce=allreduce, **cut)
    last = [t for t in only(Task, found) if t.kind == "F"][-1]
    assert last.block == 3
    assert found[found.index(last) + 1] == AllReduceLoss()


@every_bucketing
@every_split
def test_waits_stand_at_the_end_in_the_order_of_the_posts(cut, allreduce):
    found = instructions(ranks=2, allreduce=allreduce, **cut)
    posts = only((AllReduce, AllReduceLoss), found)
    assert list(found[-len(posts) - 1 :]) == [*map(Wait, posts), Update()]


def test_a_block_without_parameters_is_not_summed():
    found = instructions(bare_network(), ranks=2)
    assert [post.start for post in only(AllReduce, found)] == [0]


@pytest.mark.parametrize("dtype_bytes", [("float32", 4), ("float64", 8)], ids=str)
def test_bytes_are_those_of_the_dtype(dtype_bytes):
    dtype, itemsize = dtype_bytes
    network = token_network()
    network = type(network)(network.blocks, network.hidden, network.loss, dtype, network.needs_dx)
    posts = only(AllReduce, instructions(network, ranks=2))
    assert [post.n_bytes for post in posts] == [itemsize * b.n_parameters for b in reversed(network.blocks)]


def test_forward_mode_sums_the_loss_and_nothing_else():
    found = instructions(ranks=2, mode="forward")
    assert {i.kind for i in only(Task, found)} == {"F"}
    assert [i for i in found if not isinstance(i, Task)] == [AllReduceLoss(), Wait(AllReduceLoss())]


@pytest.mark.parametrize("mode", ["train", "gradient", "forward"])
def test_a_serial_program_has_no_communication(mode):
    found = instructions(mode=mode)
    assert [i for i in found if not isinstance(i, Task)] == ([Update()] if mode == "train" else [])


@pytest.mark.parametrize("ranks", [1, 2])
def test_only_training_updates(ranks):
    assert only(Update, instructions(ranks=ranks, mode="train")) == [Update()]
    assert not only(Update, instructions(ranks=ranks, mode="gradient"))
    assert not only(Update, instructions(ranks=ranks, mode="forward"))
