"""Programs as text: written, read, and kept beside the tests to be looked at."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_samples import fixed_examples, make_schedule

from hpcrnn.errors import ScheduleError
from hpcrnn.records.timeline import awaited, read_post
from hpcrnn.schedules.graph import Task, Value
from hpcrnn.schedules.program import (
    SPANS,
    Add,
    AllReduce,
    AllReduceParameters,
    AllReduceScalar,
    Average,
    Carry,
    Post,
    PostRecv,
    PostSend,
    Program,
    Serve,
    SumStage,
    Update,
    Vector,
    Wait,
    parse_program,
)
from hpcrnn.spec import AXES, Grid

GOLDEN = Path(__file__).parent / "golden"

SAMPLES = {
    "serial_train": (make_schedule(chunks=2, layers=2), 0),
    "data2_bucketed": (make_schedule("data=2", chunks=2, layers=2), 0),
    "pipeline2_seq_1f1b": (make_schedule("pipeline=2", 2, 2, "seq_1f1b"), 0),
    "pipeline2_zb_h1": (make_schedule("pipeline=2", 2, 2, "zb_h1"), 1),
    "pipeline2_interleaved": (make_schedule("pipeline=2", 2, 1, "interleaved", n_virtual=2), 1),
    "time2_carry": (make_schedule("time=2", 2, 1, layers=2, carry=True), 1),
    "pipeline2_time2": (make_schedule("pipeline=2,time=2", 2, 1, "seq_1f1b"), 1),
    "hierarchical": (
        make_schedule("data=3", layers=2, data_method="hierarchical", nodes=(0, 0, 1), mode="gradient"),
        0,
    ),
    "server": (make_schedule("data=3", data_method="parameter_server_sync"), 0),
    "worker": (make_schedule("data=3", data_method="parameter_server_sync"), 2),
    "late_server": (make_schedule("data=3", data_method="parameter_server_async", staleness=2), 0),
    "late_worker": (make_schedule("data=3", data_method="parameter_server_async", staleness=2), 1),
    "average": (make_schedule("data=2", data_method="local_sgd", averages=True), 0),
    "data3_int8": (make_schedule("data=3", layers=2, codec="int8"), 1),
    "data2_topk": (make_schedule("data=2", data_method="allreduce_flat", codec="topk:0.01"), 0),
    "data2_powersgd": (make_schedule("data=2", codec="powersgd:2"), 0),
    "data2_tensor2_flat": (make_schedule("data=2,tensor=2", data_method="allreduce_flat"), 3),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_programs_are_those_kept_beside_the_tests(name):
    """Write them anew with ``HPCRNN_GOLDEN=1 pytest tests/schedules/test_program.py``, and look at the difference."""
    schedule, rank = SAMPLES[name]
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("HPCRNN_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(schedule.program(rank).to_text())
    assert schedule.program(rank).to_text() == path.read_text()


def test_nothing_else_is_kept_there():
    assert {path.stem for path in GOLDEN.glob("*")} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_programs_are_read_back(name):
    schedule, rank = SAMPLES[name]
    assert parse_program((GOLDEN / f"{name}.txt").read_text()) == schedule.program(rank)


numbers = st.integers(0, 10**6)
axes = st.lists(st.sampled_from(AXES), min_size=1, max_size=4, unique=True).map(tuple)
values = st.builds(Value, st.sampled_from(["y", "dy", "halo", "dhalo"]), numbers, numbers, numbers)
vectors = st.builds(Vector, st.sampled_from(["gradient", "parameters"]), numbers, numbers)
verbs, spans = st.sampled_from(["ReduceScatter", "AllReduce", "AllGather"]), st.sampled_from(SPANS)
coded = st.sampled_from(["AllToAll", "AllReduce", "AllGather"])
posts = st.one_of(
    st.builds(PostRecv, values | vectors, numbers, numbers),
    st.builds(PostSend, values | vectors, numbers, numbers),
    st.builds(SumStage, verbs, numbers, numbers, spans, numbers),
    st.builds(SumStage, coded, numbers, numbers, axes, numbers, st.sampled_from(["int8", "float16", "topk", "P", "Q"])),
    st.builds(AllReduceParameters, axes, numbers),
    st.builds(AllReduce, numbers, numbers, axes, numbers),
    st.builds(AllReduceScalar, st.sampled_from(["loss", "norm"]), axes),
)
others = st.one_of(
    st.builds(Task, st.sampled_from("FBW"), numbers, numbers, numbers),
    st.builds(Add, vectors, numbers),
    st.builds(Serve, vectors, st.lists(numbers, min_size=1, max_size=5).map(tuple), numbers, numbers),
    st.sampled_from([Carry(), Update(), Average()]),
)


@st.composite
def programs(draw):
    """Any instructions at all, as long as what is waited for was begun."""
    begun = draw(st.lists(posts, max_size=8, unique_by=lambda post: post.handle))
    instructions = [*begun, *map(Wait, draw(st.permutations(begun))), *draw(st.lists(others, max_size=8))]
    grid = draw(st.builds(Grid, **{axis: st.integers(1, 2000) for axis in AXES}))
    names = draw(st.lists(st.from_regex(r"[a-z]+[0-9]*", fullmatch=True), min_size=1, max_size=4))
    return Program(draw(numbers), grid, tuple(names), tuple(instructions))


@given(programs())
@fixed_examples
def test_text_is_read_back_as_it_was_written(program):
    assert parse_program(program.to_text()) == program


HEAD = "# hpcrnn program 2: rank 0 of pipeline=2, blocks input layer0 head\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: not the head of a program: ''"),
        ("F(0,0,0)\n", "line 1: not the head of a program: 'F(0,0,0)'"),
        (HEAD.replace("program 2", "program 1"), "line 1: not the head of a program: '# hpcrnn program 1"),
        (HEAD.replace("pipeline=2", "pipeline=0"), "line 1: pipeline"),
        (HEAD.replace("pipeline", "depth"), "line 1: "),
        (HEAD + "F(0,0)\n", "line 2: not an instruction: 'F(0,0)'"),
        (HEAD + "F(0,0,-1)\n", "line 2: not an instruction: 'F(0,0,-1)'"),
        (HEAD + "G(0,0,0)\n", "line 2: not an instruction: 'G(0,0,0)'"),
        (HEAD + "F(0,0,0)\nPostSend x(0,0,0) to 1, 8 B\n", "line 3: not an instruction"),
        (
            HEAD + "Wait send y(0,0,0)\nPostSend y(0,0,0) to 1, 8 B\n",
            "line 2: not an instruction: 'Wait send y(0,0,0)'",
        ),
        (HEAD + "Update\n\n", "line 3: not an instruction: ''"),
    ],
)
def test_text_that_is_no_program_is_refused_with_its_line(text, expected):
    with pytest.raises(ScheduleError) as raised:
        parse_program(text)
    assert expected in str(raised.value)


@given(posts | others)
@fixed_examples
def test_what_a_file_keeps_of_an_instruction_is_read_without_the_schedules(instruction):
    """Posts are read from their text alone in :mod:`hpcrnn.records.timeline`; nothing else is one."""
    read, is_post = read_post(str(instruction)), isinstance(instruction, Post)
    assert (read is not None) == is_post
    if is_post:
        assert (read.handle, read.n_bytes) == (instruction.handle, instruction.n_bytes)
        assert awaited(str(Wait(instruction))) == instruction.handle


def test_bytes_of_a_server_are_what_it_hands_out():
    schedule = SAMPLES["late_server"][0]
    (serve,) = schedule.program(0).instructions
    assert schedule.program(0).bytes_sent == 2 * serve.n_bytes
    assert schedule.program(1).bytes_sent == serve.n_bytes


def test_posts_are_told_apart_even_with_the_same_numbers():
    value = Value("y", 0, 0, 0)
    assert (
        len({PostRecv(value, 1, 8), PostSend(value, 1, 8), Wait(PostRecv(value, 1, 8)), Wait(PostSend(value, 1, 8))})
        == 4
    )


def test_bytes_sent_are_those_of_sends_and_sums():
    program = SAMPLES["time2_carry"][0].program(1)
    lines = [line for line in program.to_text().splitlines() if line.startswith(("PostSend", "AllReduce"))]
    assert program.bytes_sent == sum(int(line.split()[-2]) for line in lines) > 0
