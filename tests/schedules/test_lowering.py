"""The communication that is derived from ordered tasks."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_samples import PIPELINE_ORDERS, fixed_examples, make_schedule
from symbolic_machine import what_is_wrong

from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.lowering import receive_ahead
from hpcrnn.schedules.order import units
from hpcrnn.schedules.program import AllReduce, AllReduceScalar, Carry, PostRecv, PostSend, Update, Wait
from hpcrnn.schedules.replay import replay
from hpcrnn.schedules.validation import validate

every_mode = pytest.mark.parametrize("mode", ["train", "gradient", "forward"])


def only(kind, program):
    return [i for i in program.instructions if isinstance(i, kind)]


def texts(kind, program):
    return [str(i) for i in only(kind, program)]


def test_the_messages_of_a_stage_in_the_middle():
    program = make_schedule("pipeline=3").program(1)
    assert texts(PostRecv, program) == ["PostRecv y(1,0,0) from 0, 11000 B", "PostRecv dy(2,0,0) from 2, 22000 B"]
    assert texts(PostSend, program) == ["PostSend y(2,0,0) to 2, 12000 B", "PostSend dy(1,0,0) to 0, 21000 B"]


def test_the_messages_of_a_segment_in_the_middle():
    """Halo states forward, their gradients backward; no outputs."""
    program = make_schedule("time=3").program(1)
    assert texts(PostRecv, program) == ["PostRecv halo(1,0,0) from 0, 31000 B", "PostRecv dhalo(1,0,1) from 2, 41010 B"]
    assert texts(PostSend, program) == ["PostSend halo(1,0,1) to 2, 31010 B", "PostSend dhalo(1,0,0) to 0, 41000 B"]


def test_messages_stay_in_the_replica_and_the_tensor_group():
    schedule = make_schedule("data=2,pipeline=2,time=2,tensor=2", 2, 1, carry=True)
    for program in schedule.programs():
        place = schedule.placement.place(program.rank)
        for post in only(PostRecv | PostSend, program):
            there = schedule.placement.place(post.peer)
            assert (there.data, there.tensor) == (place.data, place.tensor)
            assert post.n_bytes == schedule.sizes.value_bytes(post.value, place)


@pytest.mark.parametrize("grid", ["pipeline=3", "time=3", "pipeline=2,time=2"])
def test_a_receive_is_posted_a_unit_before_the_unit_that_needs_it(grid):
    schedule = make_schedule(grid, 3, 2, "seq_1f1b")
    for program in schedule.programs():
        own = units(schedule.graph, schedule.placement, schedule.placement.place(program.rank), schedule.order)
        unit_of = {task: number for number, unit in enumerate(own) for task in unit}
        done = -1
        for i in program.instructions:
            if isinstance(i, Task):
                done = unit_of[i]
            elif isinstance(i, PostRecv):
                assert done == max(-1, unit_of[i.value.consumer] - 2)


def test_a_receive_is_waited_for_directly_before_its_task():
    for program in make_schedule("pipeline=2,time=2", 2, 2, "seq_1f1b").programs():
        found = list(program.instructions)
        for at, i in enumerate(found):
            if isinstance(i, Wait) and isinstance(i.post, PostRecv):
                after = next(j for j in found[at:] if isinstance(j, Task))
                assert after == i.post.value.consumer


def test_a_send_is_begun_directly_after_its_task():
    for program in make_schedule("pipeline=2,time=2", 2, 2, "seq_1f1b").programs():
        done = None
        for i in program.instructions:
            done = i if isinstance(i, Task) else done
            if isinstance(i, PostSend):
                assert i.value.producer == done


def test_a_send_is_waited_for_late():
    """An output before its own backward task, a gradient after the next unit, states at the end."""
    schedule = make_schedule("pipeline=3,time=2", 4, 1, "seq_1f1b")
    for program in schedule.programs():
        own = units(schedule.graph, schedule.placement, schedule.placement.place(program.rank), schedule.order)
        unit_of = {task: number for number, unit in enumerate(own) for task in unit}
        found, done = list(program.instructions), -1
        for at, i in enumerate(found):
            done = unit_of[i] if isinstance(i, Task) else done
            if isinstance(i, Wait) and isinstance(i.post, PostSend):
                v = i.post.value
                if v.kind == "y":
                    after = next(j for j in found[at:] if isinstance(j, Task))
                    assert after == Task("B", v.block, v.microbatch, v.chunk)
                else:
                    assert done == (min(unit_of[v.producer] + 1, len(own) - 1) if v.kind == "dy" else len(own) - 1)


def test_final_states_go_to_where_the_next_step_begins():
    schedule = make_schedule("time=3", 2, 1, layers=2, carry=True)
    first, middle, last = schedule.programs()
    sent = [post for post in only(PostSend, last) if post.value.kind == "halo"]
    assert [str(post.value) for post in sent] == ["halo(1,0,2)", "halo(1,1,2)", "halo(2,0,2)", "halo(2,1,2)"]
    assert {post.peer for post in sent} == {0}
    assert [p.value for p in only(PostRecv, first) if p.value.kind == "halo"] == [post.value for post in sent]
    assert not [p for p in only(PostRecv | PostSend, middle) if p.value.chunk == 2 and p.value.kind == "halo"]
    assert not any(only(Carry, program) for program in (first, middle, last))


@every_mode
@pytest.mark.parametrize("grid", ["data=1", "data=2", "pipeline=2"])
def test_states_are_carried_where_they_lie_when_time_is_whole(grid, mode):
    for carry in (True, False):
        for program in make_schedule(grid, mode=mode, carry=carry).programs():
            assert len(only(Carry, program)) == carry
            assert not [p for p in only(PostSend, program) if p.value.kind == "halo"]


SUMS = {
    "data=2": ("data", "data", ""),
    "pipeline=2": ("", "", "pipeline"),
    "time=2": ("time", "time", ""),
    "tensor=2": ("tensor", "", "tensor"),
    "data=2,pipeline=2": ("data", "data", "pipeline"),
    "data=2,tensor=2": ("data,tensor", "data", "tensor"),
    "data=2,pipeline=2,time=2,tensor=2": ("data,time,tensor", "data,time", "pipeline,tensor"),
}


@pytest.mark.parametrize("grid", SUMS)
def test_gradients_are_summed_over_their_copies_and_norms_over_their_parts(grid):
    of_input, of_layers, of_norm = SUMS[grid]
    schedule = make_schedule(grid)
    for program in schedule.programs():
        owned = schedule.placement.blocks_at(schedule.placement.place(program.rank))
        found = {post.start: ",".join(post.axes) for post in only(AllReduce, program)}
        wanted = {block: of_input if block == 0 else of_layers for block in owned}
        assert found == {block: axes for block, axes in wanted.items() if axes}
        scalars = {post.quantity: ",".join(post.axes) for post in only(AllReduceScalar, program)}
        everything = ",".join(axis for axis in ("data", "pipeline", "time", "tensor") if axis in grid)
        assert scalars == {"loss": everything} | ({"norm": of_norm} if of_norm else {})


def test_a_bucket_is_begun_directly_after_the_last_weight_gradient_of_its_block():
    (program, _) = make_schedule("data=2", 2, 2, layers=2).programs()
    found = program.instructions
    for at, i in enumerate(found):
        if isinstance(i, AllReduce):
            assert (found[at - 1].kind, found[at - 1].block) == ("W", i.start)
            assert not [t for t in found[at:] if isinstance(t, Task) and (t.kind, t.block) == ("W", i.start)]


def test_flat_sums_join_neighbours_that_are_replicated_alike():
    program = make_schedule("data=2,tensor=2", layers=2, data_method="allreduce_flat").program(0)
    assert texts(AllReduce, program) == [
        "AllReduce(1:4) over data, 1506 B",
        "AllReduce(0:1) over data,tensor, 500 B",
    ]
    # Virtual stages of a rank are not neighbours.
    program = make_schedule(
        "data=2,pipeline=2", 2, 1, "interleaved", n_virtual=2, data_method="allreduce_flat"
    ).program(0)
    assert {(post.start, post.stop) for post in only(AllReduce, program)} == {(0, 2), (3, 4)}


def test_sums_are_waited_for_in_the_order_in_which_they_were_begun():
    for program in make_schedule("data=2,pipeline=2", 2, 2, "zb_h1").programs():
        begun = [p for p in only(AllReduce | AllReduceScalar, program) if getattr(p, "quantity", "") != "norm"]
        waits = [i.post for i in only(Wait, program) if i.post in begun]
        assert waits == begun


@every_mode
def test_only_training_updates(mode):
    for program in make_schedule("data=2,pipeline=2", mode=mode).programs():
        assert only(Update, program) == ([Update()] if mode == "train" else [])
        assert {task.kind for task in only(Task, program)} == (set("F") if mode == "forward" else set("FBW"))


def test_a_serial_program_has_no_communication():
    program = make_schedule(microbatches=2, chunks=2, order="1f1b").program(0)
    assert not only(PostRecv | PostSend | AllReduce | AllReduceScalar | Wait, program)


def test_of_the_others_nothing_is_built(monkeypatch):
    """Else a rank of a thousand would take a thousand times as long."""
    from hpcrnn.schedules import lowering

    asked = []
    monkeypatch.setattr(lowering, "units", lambda *a: asked.append(a[2]) or units(*a))
    schedule = make_schedule("pipeline=1024", 2, 2, "seq_1f1b")
    schedule.program(512)
    assert [place.pipeline for place in asked] == [512]


def ends(schedule, *, synchronous):
    placement = schedule.placement
    programs = dict(enumerate(schedule.programs()))
    return not replay(
        programs, lambda r, axes: placement.group(placement.place(r), axes), lambda *_: 1.0, synchronous=synchronous
    ).stuck


@given(
    grid=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 2)),
    cut=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    order=st.sampled_from(PIPELINE_ORDERS),
    layers=st.integers(1, 6),
    mode=st.sampled_from(["train", "gradient", "forward"]),
    data_method=st.sampled_from(["allreduce_bucketed", "allreduce_flat"]),
    carry=st.booleans(),
)
@settings(fixed_examples, max_examples=36)
def test_whatever_the_grid_programs_are_right(grid, cut, order, **options):
    axes = ",".join(f"{axis}={n}" for axis, n in zip(("data", "pipeline", "time", "tensor"), grid, strict=True))
    schedule = make_schedule(axes, *cut, order, **options)
    programs = schedule.programs()
    validate(programs, schedule)
    for synchronous in (True, False):
        assert what_is_wrong(programs, schedule, synchronous=synchronous) == ""


@pytest.mark.parametrize(
    ("grid", "order"),
    [(f"{axis}=8", order) for axis in ("pipeline", "time") for order in PIPELINE_ORDERS],
)
@pytest.mark.parametrize("cut", [(1, 1), (3, 2), (9, 1)])
def test_eight_ranks_along_an_axis(grid, order, cut):
    schedule = make_schedule(grid, *cut, order, layers=3)
    programs = schedule.programs()
    validate(programs, schedule)
    assert what_is_wrong(programs, schedule) == ""


# All of P = 2 .. 8, V = 2 .. 4, M = 1 .. 12, C = 1 .. 3 were run when the bound was found; every fifth is kept.
RINGS = list(product(range(2, 9), (2, 3), range(1, 13), (1, 2, 3)))[::5]


def test_virtual_stages_end_with_sends_that_block():
    for n_stages, n_virtual, microbatches, chunks in RINGS:
        schedule = make_schedule(f"pipeline={n_stages}", microbatches, chunks, "interleaved", n_virtual=n_virtual)
        assert ends(schedule, synchronous=True), (n_stages, n_virtual, microbatches, chunks)


@pytest.mark.parametrize(
    ("cut", "ahead"), [((4, 1), 2), ((2, 1), 2), ((5, 1), 4), ((7, 1), 8), ((8, 1), 2), ((11, 1), 6)]
)
def test_uneven_turns_need_receives_posted_earlier(cut, ahead):
    schedule = make_schedule("pipeline=4", *cut, "interleaved", n_virtual=2)
    assert receive_ahead(schedule.graph, schedule.placement) == ahead


@pytest.mark.parametrize("mode", ["train", "forward"])
@pytest.mark.parametrize("n_virtual", [2, 3])
@pytest.mark.parametrize("cut", [(1, 1), (3, 2), (7, 1)])
def test_virtual_stages_are_right(cut, n_virtual, mode):
    schedule = make_schedule("pipeline=3", *cut, "interleaved", layers=11, n_virtual=n_virtual, mode=mode, carry=True)
    programs = schedule.programs()
    validate(programs, schedule)
    for synchronous in (True, False):
        assert what_is_wrong(programs, schedule, synchronous=synchronous) == ""
