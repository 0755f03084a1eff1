"""Programs that are wrong are refused, and the message shows where."""

from dataclasses import replace

import pytest
from program_samples import make_schedule, with_instructions
from symbolic_machine import what_is_wrong

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.drawing import grid
from hpcrnn.schedules.graph import Task, Value
from hpcrnn.schedules.program import AllReduce, AllReduceScalar, Carry, PostRecv, PostSend, Update, Wait
from hpcrnn.schedules.rank_check import RankCheck
from hpcrnn.schedules.validation import validate, validate_rank
from hpcrnn.spec import Grid


def refusal(schedule, programs):
    with pytest.raises(ScheduleError) as raised:
        validate(programs, schedule)
    return str(raised.value)


def first_line(schedule, programs):
    return refusal(schedule, programs).splitlines()[0]


def exchanged(schedule, old, new, rank=1):
    """The programs with one instruction of one rank replaced, wherever it stands; None drops it."""
    programs = schedule.programs()
    changed = [new if i == old else i for i in programs[rank].instructions]
    assert changed != list(programs[rank].instructions)
    return with_instructions(programs, {rank: [i for i in changed if i is not None]})


# Blocks input, layer0, head; F F F loss B W 2:3 B W 1:2 B W 0:1, four waits, the update.
DATA = make_schedule("data=2")
LOSS = AllReduceScalar("loss", ("data",))
SUM0, SUM1, SUM2 = (AllReduce(block, block + 1, ("data",), 500 + block) for block in range(3))

# Rank 1 is the last stage: y(1,0,0) comes, dy(1,0,0) goes.
PIPE = make_schedule("pipeline=2")
RECV, SEND = PostRecv(Value("y", 1, 0, 0), 0, 11000), PostSend(Value("dy", 1, 0, 0), 0, 21000)
NORM = AllReduceScalar("norm", ("pipeline",))

LOOP = make_schedule("time=2", carry=True)
CARRIED = PostSend(Value("halo", 1, 0, 1), 0, 31010)


@pytest.mark.parametrize(
    ("schedule", "old", "new", "expected"),
    [
        (DATA, Task("F", 1, 0, 0), Task("F", 3, 0, 0), "rank 1, step 1, F(3,0,0): not a task of this rank"),
        (DATA, Task("F", 1, 0, 0), Task("F", 1, 1, 0), "rank 1, step 1, F(1,1,0): not a task of this rank"),
        (DATA, Task("F", 1, 0, 0), Task("F", 0, 0, 0), "rank 1, step 1, F(0,0,0): done twice"),
        (DATA, Task("F", 0, 0, 0), Task("F", 1, 0, 0), "rank 1, step 0, F(1,0,0): needs F(0,0,0) first"),
        (
            DATA,
            SUM2,
            AllReduce(2, 3, ("data",), 9),
            "what sums these gradients here is AllReduce(2:3) over data, 502 B",
        ),
        (DATA, SUM2, AllReduce(2, 3, ("time",), 502), "over time, 502 B: block 2 is replicated over data"),
        (DATA, SUM2, AllReduce(2, 4, ("data",), 502), "blocks of this rank are 0, 1, 2"),
        (DATA, SUM2, AllReduce(2, 2, ("data",), 0), "blocks of this rank are 0, 1, 2"),
        (DATA, SUM2, SUM1, "rank 1, step 6, AllReduce(1:2) over data, 501 B: the gradient of block 1 is not complete"),
        (DATA, SUM1, SUM2, "rank 1, step 9, AllReduce(2:3) over data, 502 B: block 2 is summed twice"),
        (DATA, SUM1, LOSS, "rank 1, step 9, AllReduce(loss) over data, 8 B: the loss is summed twice"),
        (DATA, Task("F", 2, 0, 0), LOSS, "rank 1, step 2, AllReduce(loss) over data, 8 B: the loss is not complete"),
        (DATA, LOSS, AllReduceScalar("loss", ("time",)), "is summed over data"),
        (DATA, Wait(SUM1), Wait(SUM2), "Wait AllReduce(2:3): waits for what was not begun"),
        (DATA, Wait(SUM0), Update(), "Update: AllReduce(0:1) is still under way"),
        (DATA, Wait(SUM0), Carry(), "Carry: nothing is carried on this rank"),
        (PIPE, RECV, SEND, "PostSend dy(1,0,0) to 0, 21000 B: needs B(2,0,0) first"),
        (PIPE, RECV, PostRecv(Value("y", 2, 0, 0), 0, 1), "not a value that crosses ranks here"),
        (PIPE, RECV, PostRecv(RECV.value, 1, 11000), "the value goes from rank 0 and has 11000 bytes"),
        (PIPE, RECV, PostRecv(RECV.value, 0, 11001), "the value goes from rank 0 and has 11000 bytes"),
        (PIPE, SEND, PostSend(SEND.value, 0, 1), "the value goes to rank 0 and has 21000 bytes"),
        (PIPE, SEND, RECV, "PostRecv y(1,0,0) from 0, 11000 B: recv y(1,0,0) is begun twice"),
        (PIPE, Wait(RECV), None, "F(2,0,0): needs y(1,0,0) received first"),
        (PIPE, Wait(SEND), None, "Update: send dy(1,0,0) is still under way"),
        (PIPE, Task("W", 2, 0, 0), NORM, "AllReduce(norm) over pipeline, 8 B: the gradient is not complete"),
        (LOOP, CARRIED, Task("F", 0, 0, 0), "F(0,0,0): not a task of this rank"),
        (LOOP, Wait(CARRIED), Update(), "Update: send halo(1,0,1) is still under way"),
    ],
)
def test_a_rule_that_is_broken_is_named_with_its_place(schedule, old, new, expected):
    line = first_line(schedule, exchanged(schedule, old, new))
    assert line.startswith("rank 1, step ")
    assert line.endswith(expected)


def without(schedule, *dropped, rank=1):
    programs = schedule.programs()
    return with_instructions(programs, {rank: [i for i in programs[rank].instructions if i not in dropped]})


@pytest.mark.parametrize(
    ("schedule", "dropped", "expected"),
    [
        (DATA, [Task("F", 2, 0, 0)], "rank 1, step 2, AllReduce(loss) over data, 8 B: the loss is not complete"),
        (DATA, [Task("W", 0, 0, 0), SUM0, Wait(SUM0)], "the end: 1 tasks are missing, the first W(0,0,0)"),
        (DATA, [SUM0, Wait(SUM0)], "the end: the gradient of block 0 is never summed"),
        (DATA, [LOSS, Wait(LOSS)], "the end: the loss is never summed"),
        (DATA, [Update()], "the end: the update is missing"),
        (DATA, [Wait(SUM0), Update()], "AllReduce(0:1) over data, 500 B: is never waited for"),
        (PIPE, [NORM, Wait(NORM)], "the end: the norm is never summed"),
        (PIPE, [SEND, Wait(SEND)], "PostRecv dy(1,0,0) from 1, 21000 B: dy(1,0,0) is never sent by rank 1"),
        (LOOP, [CARRIED, Wait(CARRIED)], "the end: halo(1,0,1) is never sent"),
    ],
)
def test_what_is_missing_is_named(schedule, dropped, expected):
    assert first_line(schedule, without(schedule, *dropped)).endswith(expected)


def test_states_for_the_next_step_must_not_overwrite_those_of_this_one():
    programs = LOOP.programs()
    arrives = PostRecv(Value("halo", 1, 0, 1), 1, 31010)
    kept = [i for i in programs[0].instructions if i not in (arrives, Wait(arrives))]
    changed = with_instructions(programs, {0: [arrives, Wait(arrives), *kept]})
    assert first_line(LOOP, changed).endswith("would overwrite what F(1,0,0) starts from")


def test_a_mode_without_update_refuses_one():
    schedule = make_schedule(mode="gradient")
    (program,) = schedule.programs()
    changed = with_instructions([program], {0: [*program.instructions, Update()]})
    assert first_line(schedule, changed).endswith("Update: this mode has no update")


def test_a_mode_without_update_needs_no_norm():
    schedule = make_schedule("pipeline=2", mode="gradient")
    programs = schedule.programs()
    changed = with_instructions(programs, {p.rank: [*p.instructions, NORM, Wait(NORM)] for p in programs})
    assert first_line(schedule, changed).endswith("this mode has no update")


def test_a_norm_of_gradients_that_are_not_summed_yet_is_refused():
    schedule = make_schedule("data=2,pipeline=2")
    changes = {}
    for program in schedule.programs():
        late = [i for i in program.instructions if isinstance(i, AllReduce)]
        kept = [i for i in program.instructions if i not in (*late, *map(Wait, late), Update())]
        changes[program.rank] = [*kept, *late, *map(Wait, late), Update()]
    changed = with_instructions(schedule.programs(), changes)
    assert what_is_wrong(changed, schedule) == "the update is not what it should be"
    assert "is never summed" in first_line(schedule, changed)


def test_states_are_carried_once():
    schedule = make_schedule(carry=True)
    (program,) = schedule.programs()
    at = program.instructions.index(Carry())
    twice = [*program.instructions[:at], Carry(), *program.instructions[at:]]
    assert first_line(schedule, with_instructions([program], {0: twice})).endswith("Carry: carried twice")


def test_nothing_may_follow_the_update():
    programs = DATA.programs()
    changed = with_instructions(programs, {0: [*programs[0].instructions, Update()]})
    assert first_line(DATA, changed).endswith("Update: nothing may follow the update")


def test_ranks_must_begin_the_same_sums():
    flat = make_schedule("data=2", data_method="allreduce_flat")
    programs = [DATA.programs()[0], flat.programs()[1]]
    line = first_line(DATA, programs)
    assert "rank 0 begins AllReduce(2:3) over data, 502 B here: collectives must match" in line


def test_a_deadlock_names_the_ranks_that_wait():
    programs = PIPE.programs()
    y = next(i for i in programs[0].instructions if isinstance(i, PostSend))
    dy = next(i for i in programs[0].instructions if isinstance(i, PostRecv))
    # Rank 0 sends y and only then posts what rank 1 sends; rank 1 posts y only after it has sent.
    kept = [i for i in programs[0].instructions if i not in (y, dy)]
    at = kept.index(Task("F", 1, 0, 0)) + 1
    assert validate([*with_instructions(programs, {0: [*kept[:at], y, dy, *kept[at:]]})], PIPE) is None
    first = with_instructions(programs, {0: [*kept[:at], Wait(dy), y, dy, *kept[at:]]})
    assert first_line(PIPE, first).endswith("Wait recv dy(1,0,0): waits for what was not begun")


def test_sends_that_wait_for_one_another_are_a_deadlock():
    schedule = make_schedule("pipeline=2", 2, 1, "1f1b", mode="gradient")
    programs = schedule.programs()
    late = {}
    for program, value in zip(programs, (Value("dy", 1, 0, 0), Value("y", 1, 1, 0)), strict=True):
        found = list(program.instructions)
        post = next(i for i in found if isinstance(i, PostRecv) and i.value == value)
        found.remove(post)
        found.insert(found.index(Wait(post)), post)  # begun only when it is needed
        late[program.rank] = found
    line = first_line(schedule, with_instructions(programs, late))
    assert "deadlock: never ends; nor does rank 1 at step" in line


@pytest.mark.parametrize("header", [{"rank": 0}, {"grid": Grid()}, {"rank": 2, "grid": Grid(data=3)}], ids=str)
def test_a_program_must_be_of_the_rank_that_runs_it(header):
    programs = DATA.programs()
    changed = replace(programs[1], **header)
    line = first_line(DATA, [programs[0], changed])
    assert line == f"rank 1, step 0, F(0,0,0): the program is of rank {changed.rank} of {changed.grid}"


def test_a_program_of_a_serial_run_is_refused_among_several():
    """It would begin no sum, and the others would wait for it forever."""
    alone = replace(make_schedule().program(0), rank=1, grid=Grid(data=2))
    assert "the end: the gradient of block 0 is never summed" in first_line(DATA, [DATA.programs()[0], alone])


GRID = """\
step  rank 0                         rank 1
0     F(0,0,0)                       F(0,0,0)
1     F(1,0,0)                       F(1,0,0)
2     F(2,0,0)                       F(2,0,0)
3     AllReduce(loss) over data, 8 B  >AllReduce(loss) over data, 8 B<
4     B(2,0,0)                       B(2,0,0)
5     W(2,0,0)                       W(2,0,0)
6     AllReduce(2:3) over data, 502 B  AllReduce(2:3) over data, 502 B"""


def cells(text):
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_the_grid_shows_the_neighbourhood_and_marks_the_place():
    drawn = grid(DATA.programs(), 1, 3)
    assert cells(drawn) == cells(GRID)
    columns = {line.index("rank 1" if "rank" in line else line.split("  ")[-1]) for line in drawn.splitlines()[1:3]}
    assert len(columns) == 1


def test_an_error_carries_the_grid():
    message = refusal(DATA, exchanged(DATA, Task("F", 1, 0, 0), Task("F", 0, 0, 0)))
    assert ">F(0,0,0)<" in message
    rows = [line.split() for line in message.splitlines()[1:]]
    assert rows[0] == ["step", "rank", "0", "rank", "1"]
    assert rows[2] == ["1", "F(1,0,0)", ">F(0,0,0)<"]


@pytest.mark.parametrize(("rank", "first"), [(0, 0), (4, 0), (6, 2), (8, 4), (11, 4)])
def test_of_many_ranks_the_grid_shows_eight_around_the_place(rank, first):
    schedule = make_schedule("data=12")
    message = refusal(schedule, exchanged(schedule, Task("F", 1, 0, 0), Task("F", 0, 0, 0), rank))
    assert message.startswith(f"rank {rank}, step 1, F(0,0,0): done twice\n")
    head, *rows = cells(message.split("\n", 1)[1])
    assert head == ["step", *(f"rank {r}" for r in range(first, first + 8))]
    assert rows[1].index(">F(0,0,0)<") == head.index(f"rank {rank}")
    assert message.count(">") == 1


def test_an_error_at_the_end_marks_the_place_after_the_last():
    message = refusal(DATA, without(DATA, Update()))
    place = len(DATA.program(1).instructions) - 1
    assert message.startswith(f"rank 1, step {place}, the end: the update is missing\n")
    assert any(line.split() == [str(place), "Update", ">-<"] for line in message.splitlines())


@pytest.mark.parametrize(
    ("grid_text", "rank", "neighbours"),
    [("pipeline=1024", 512, [511, 512, 513]), ("data=64,pipeline=16", 16, [16, 17]), ("time=1024", 1023, [1022, 1023])],
)
def test_one_rank_of_a_thousand_needs_the_programs_of_its_neighbours_only(monkeypatch, grid_text, rank, neighbours):
    schedule = make_schedule(grid_text, 4, 2, "seq_1f1b")
    asked = []
    build = type(schedule).program
    monkeypatch.setattr(type(schedule), "program", lambda self, r: asked.append(r) or build(self, r))
    assert validate_rank(schedule, rank).rank == rank
    assert sorted(asked) == neighbours


def test_one_rank_is_checked_against_its_neighbours(monkeypatch):
    build = type(PIPE).program

    def silent(self, rank):
        program = build(self, rank)
        kept = [i for i in program.instructions if not isinstance(i, PostSend)]
        return replace(program, instructions=tuple(kept)) if rank == 0 else program

    monkeypatch.setattr(type(PIPE), "program", silent)
    with pytest.raises(ScheduleError, match="is never sent by rank 0"):
        validate_rank(PIPE, 1)


def test_every_thousandth_rank_costs_the_same(monkeypatch):
    """A thousand replicas: the work of checking one does not grow with their number."""
    steps = []
    run = RankCheck.run
    monkeypatch.setattr(RankCheck, "run", lambda self: steps.append(self._rank) or run(self))
    validate_rank(make_schedule("data=1024", 2, 2), 1000)
    assert steps == [1000]
