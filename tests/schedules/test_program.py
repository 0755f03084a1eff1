"""A program as text, and back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_samples import bare_network, build, fixed_examples

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Program, Update, Wait, parse_program

HEAD = "# hpcrnn program 1: rank 0 of 2, blocks input layer0 head"

GOLDEN = {
    "serial_train": {},
    "data2_bucketed_train_2_chunks": {"ranks": 2, "chunks": 2},
    "data3_flat_train_2_microbatches": {"ranks": 3, "microbatches": 2, "allreduce": "flat"},
    "data2_forward": {"ranks": 2, "mode": "forward"},
}


def golden_path(name):
    return Path(__file__).parent / "golden" / f"{name}.txt"


def first_program(name):
    return build(**GOLDEN[name]).programs[0]


# To write the golden files anew, when a schedule is meant to change:
#   PYTHONPATH=tests/schedules python tests/schedules/test_program.py
# and read the difference: it is what the change does.
@pytest.mark.parametrize("name", GOLDEN)
def test_a_built_program_is_the_golden_one(name):
    assert first_program(name).to_text() == golden_path(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_reads_as_the_built_program(name):
    assert parse_program(golden_path(name).read_text(encoding="utf-8")) == first_program(name)


def test_there_is_no_golden_file_without_a_test():
    assert {path.stem for path in golden_path("").parent.iterdir()} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_replicas_differ_by_their_rank_only(name):
    programs = build(**GOLDEN[name]).programs
    texts = {p.to_text().replace(f"rank {rank} of", "rank 0 of") for rank, p in enumerate(programs)}
    assert texts == {programs[0].to_text()}


SMALL = st.integers(0, 20)
TASKS = st.builds(Task, st.sampled_from("FBW"), SMALL, SMALL, SMALL)


@st.composite
def programs(draw):
    """Any instructions in any order, valid or not; but a wait needs something to wait for."""
    instructions = []
    for choice in draw(st.lists(st.sampled_from(["task", "post", "loss", "wait", "update"]), max_size=20)):
        posts = [i for i in instructions if isinstance(i, AllReduce | AllReduceLoss)]
        if choice == "task":
            instructions.append(draw(TASKS))
        elif choice == "post":
            # The same blocks have the same bytes.
            start, stop = draw(st.tuples(SMALL, SMALL))
            instructions.append(AllReduce(start, stop, 1000 * start + stop))
        elif choice == "loss":
            instructions.append(AllReduceLoss())
        elif choice == "wait" and posts:
            instructions.append(Wait(draw(st.sampled_from(posts))))
        elif choice == "update":
            instructions.append(Update())
    names = st.from_regex(r"[a-z]+[0-9]*", fullmatch=True)
    blocks = draw(st.lists(names, min_size=1, max_size=4))
    return Program(draw(SMALL), draw(st.integers(1, 20)), tuple(blocks), tuple(instructions))


@given(programs())
@fixed_examples
def test_text_reads_back_as_the_same_program(program):
    assert parse_program(program.to_text()) == program


def test_text_names_the_blocks_and_ends_with_a_newline():
    program = Program(1, 3, ("layer0", "head"), (Task("F", 0, 0, 0), Update()))
    assert program.to_text() == "# hpcrnn program 1: rank 1 of 3, blocks layer0 head\nF(0,0,0)\nUpdate\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: not the head of a program: ''"),
        ("F(0,0,0)\n", "line 1: not the head of a program: 'F(0,0,0)'"),
        (HEAD.replace("1:", "2:") + "\n", f"line 1: not the head of a program: {HEAD.replace('1:', '2:')!r}"),
        (f"{HEAD}\nF(0,0,0)\nG(0,0,0)\n", "line 3: not an instruction: 'G(0,0,0)'"),
        (f"{HEAD}\nF(0,0)\n", "line 2: not an instruction: 'F(0,0)'"),
        (f"{HEAD}\nF(0,-1,0)\n", "line 2: not an instruction: 'F(0,-1,0)'"),
        (f"{HEAD}\nUpdate \n", "line 2: not an instruction: 'Update '"),
        (f"{HEAD}\n\nUpdate\n", "line 2: not an instruction: ''"),
        (f"{HEAD}\nAllReduce(0:1)\n", "line 2: not an instruction: 'AllReduce(0:1)'"),
        (f"{HEAD}\nAllReduce(loss) 4 B\n", "line 2: not an instruction: 'AllReduce(loss) 4 B'"),
        (f"{HEAD}\nWait AllReduce(0:1)\n", "line 2: not an instruction: 'Wait AllReduce(0:1)'"),
        (
            f"{HEAD}\nAllReduce(0:1) 4 B\nWait AllReduce(0:2)\n",
            "line 3: not an instruction: 'Wait AllReduce(0:2)'",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text, message):
    with pytest.raises(ScheduleError) as raised:
        parse_program(text)
    assert str(raised.value) == message


def test_bytes_sent_are_those_of_all_collectives():
    network = bare_network()
    gradient = 4 * network.n_parameters
    assert [p.bytes_sent for p in build(network, ranks=2).programs] == [gradient + 8] * 2
    assert build(network, ranks=2, allreduce="flat").programs[0].bytes_sent == gradient + 8
    assert build(network, ranks=2, mode="forward").programs[0].bytes_sent == 8
    assert build(network).programs[0].bytes_sent == 0


if __name__ == "__main__":
    for golden in GOLDEN:
        golden_path(golden).write_text(first_program(golden).to_text(), encoding="utf-8")
