"""Programs that are right are accepted, those that are not are refused, and the message shows where."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from program_samples import bare_network, build, fixed_examples, token_network

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Update, Wait
from hpcrnn.schedules.validation import grid

NETWORKS = [token_network(1), token_network(3), bare_network()]


@given(
    network=st.sampled_from(NETWORKS),
    ranks=st.integers(1, 5),
    microbatches=st.integers(1, 3),
    chunks=st.integers(1, 3),
    mode=st.sampled_from(["train", "gradient", "forward"]),
    allreduce=st.sampled_from(["bucketed", "flat"]),
)
@fixed_examples
def test_every_program_that_is_built_is_accepted(**options):
    build(**options).check()


def test_a_thousand_ranks_are_validated():
    build(token_network(4), ranks=1024, chunks=2).check()


def refusal(built, programs=None):
    with pytest.raises(ScheduleError) as raised:
        built.check(programs)
    return str(raised.value)


def first_line(built, programs):
    return refusal(built, programs).splitlines()[0]


def with_replaced(built, old, new, rank=1):
    """The programs with one instruction of one rank replaced, wherever it stands."""
    changed = [new if i == old else i for i in built.programs[rank].instructions]
    assert changed != list(built.programs[rank].instructions)
    return built.with_rank(rank, changed)


# Blocks input, layer0, head; F F F loss B W 2:3 B W 1:2 B W 0:1 and four waits.
BUILT = build(token_network(1), ranks=2)
LOSS = AllReduceLoss()
SUM0, SUM1, SUM2 = AllReduce(0, 1, 84), AllReduce(1, 2, 180), AllReduce(2, 3, 168)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Task("F", 1, 0, 0), Task("F", 3, 0, 0), "rank 1, step 1, F(3,0,0): not a task of this graph"),
        (Task("F", 1, 0, 0), Task("F", 1, 1, 0), "rank 1, step 1, F(1,1,0): not a task of this graph"),
        (Task("F", 1, 0, 0), Task("F", 1, 0, 1), "rank 1, step 1, F(1,0,1): not a task of this graph"),
        (Task("F", 1, 0, 0), Task("F", 0, 0, 0), "rank 1, step 1, F(0,0,0): done twice"),
        (Task("F", 0, 0, 0), Task("F", 1, 0, 0), "rank 1, step 0, F(1,0,0): needs F(0,0,0) first"),
        (SUM2, AllReduce(2, 3, 169), "rank 1, step 6, AllReduce(2:3) 169 B: the gradients have 168 bytes"),
        (SUM2, AllReduce(2, 4, 168), "rank 1, step 6, AllReduce(2:4) 168 B: blocks are 0:3"),
        (SUM2, AllReduce(2, 2, 0), "rank 1, step 6, AllReduce(2:2) 0 B: blocks are 0:3"),
        (SUM2, SUM1, "rank 1, step 6, AllReduce(1:2) 180 B: the gradient of block 1 is not complete"),
        (SUM1, SUM2, "rank 1, step 9, AllReduce(2:3) 168 B: block 2 is summed twice"),
        (SUM1, LOSS, "rank 1, step 9, AllReduce(loss) 8 B: the loss is summed twice"),
        (Task("F", 2, 0, 0), LOSS, "rank 1, step 2, AllReduce(loss) 8 B: the loss is not complete"),
        (Wait(SUM1), Wait(SUM2), "rank 1, step 15, Wait AllReduce(2:3): waits for what was not begun"),
        (Wait(SUM0), Update(), "rank 1, step 16, Update: AllReduce(0:1) 84 B is still under way"),
    ],
)
def test_a_rule_that_is_broken_is_named_with_its_place(old, new, expected):
    assert first_line(BUILT, with_replaced(BUILT, old, new)) == expected


def without(built, *dropped, rank=1):
    return built.with_rank(rank, [i for i in built.programs[rank].instructions if i not in dropped])


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        ([Task("F", 2, 0, 0)], "rank 1, step 2, AllReduce(loss) 8 B: the loss is not complete"),
        ([Task("W", 0, 0, 0), SUM0, Wait(SUM0)], "the end: 1 tasks are missing, the first W(0,0,0)"),
        ([SUM0, Wait(SUM0)], "the end: the gradient of block 0 is never summed"),
        ([LOSS, Wait(LOSS)], "the end: the loss is never summed"),
        ([Update()], "the end: the update is missing"),
        ([Wait(SUM0), Update()], "AllReduce(0:1) 84 B: is never waited for"),
    ],
)
def test_what_is_missing_is_named(dropped, expected):
    assert expected in first_line(BUILT, without(BUILT, *dropped))


def test_a_mode_without_update_refuses_one():
    built = build(mode="gradient")
    programs = built.with_rank(0, [*built.programs[0].instructions, Update()])
    assert first_line(built, programs).endswith("the end: this mode has no update")


def test_nothing_may_follow_the_update():
    programs = BUILT.with_rank(0, [*BUILT.programs[0].instructions, Update()])
    assert first_line(BUILT, programs).endswith("Update: nothing may follow the update")


def test_a_sum_may_not_begin_before_the_last_chunks_weight_gradient():
    built = build(ranks=2, chunks=2)
    instructions = list(built.programs[0].instructions)
    late = Task("W", 3, 0, 0)
    post = next(i for i in instructions if isinstance(i, AllReduce) and i.start == 3)
    instructions.remove(late)
    instructions.insert(instructions.index(post) + 1, late)
    expected = f"rank 0, step {instructions.index(post)}, {post}: the gradient of block 3 is not complete"
    assert first_line(built, built.with_rank(0, instructions)) == expected


def test_a_gradient_cannot_be_summed_in_forward_mode():
    built = build(ranks=2, mode="forward")
    post = AllReduce(0, 1, built.sizes[0])
    programs = built.with_all(lambda found: [*found, post, Wait(post)])
    assert first_line(built, programs).endswith("the gradient of block 0 is not complete")


def test_ranks_must_begin_the_same_collectives():
    flat = build(token_network(1), ranks=2, allreduce="flat")
    programs = [BUILT.programs[0], flat.programs[1]]
    assert "rank 0 begins AllReduce(2:3) 168 B here: collectives must match" in first_line(BUILT, programs)


@pytest.mark.parametrize("header", [{"rank": 0}, {"n_ranks": 1}, {"rank": 2, "n_ranks": 3}], ids=str)
def test_a_program_must_be_of_the_rank_that_runs_it(header):
    changed = replace(BUILT.programs[1], **header)
    expected = f"rank 1, step 0, F(0,0,0): the program is of rank {changed.rank} of {changed.n_ranks}, not 1 of 2"
    assert first_line(BUILT, [BUILT.programs[0], changed]) == expected


def test_a_program_of_a_serial_run_is_refused_among_several():
    """It would begin no sum, and the others would wait for it forever."""
    alone = replace(build(token_network(1)).programs[0], rank=1, n_ranks=2)
    assert first_line(BUILT, [BUILT.programs[0], alone]).endswith("the end: the loss is never summed")


GRID = """\
step  rank 0                rank 1
0     F(0,0,0)              F(0,0,0)
1     F(1,0,0)              F(1,0,0)
2     F(2,0,0)              F(2,0,0)
3     AllReduce(loss) 8 B   >AllReduce(loss) 8 B<
4     B(2,0,0)              B(2,0,0)
5     W(2,0,0)              W(2,0,0)
6     AllReduce(2:3) 168 B  AllReduce(2:3) 168 B"""


def test_the_grid_shows_the_neighbourhood_and_marks_the_place():
    assert grid(BUILT.programs, 1, 3) == GRID


def test_an_error_carries_the_grid():
    message = refusal(BUILT, with_replaced(BUILT, Task("F", 1, 0, 0), Task("F", 0, 0, 0)))
    assert ">F(0,0,0)<" in message
    rows = [line.split() for line in message.splitlines()[1:]]
    assert rows[0] == ["step", "rank", "0", "rank", "1"]
    assert rows[2] == ["1", "F(1,0,0)", ">F(0,0,0)<"]


@pytest.mark.parametrize(("rank", "first"), [(0, 0), (4, 0), (6, 2), (8, 4), (11, 4)])
def test_of_many_ranks_the_grid_shows_eight_around_the_place(rank, first):
    built = build(token_network(1), ranks=12)
    message = refusal(built, with_replaced(built, Task("F", 1, 0, 0), Task("F", 0, 0, 0), rank))
    assert message.startswith(f"rank {rank}, step 1, F(0,0,0): done twice\n")
    head, *rows = [line.split("  ") for line in message.splitlines()[1:]]
    shown = [cell.strip() for cell in head if cell.strip()]
    assert shown == ["step", *(f"rank {r}" for r in range(first, first + 8))]
    marked = [cell.strip() for cell in rows[1] if cell.strip()]
    assert marked.index(">F(0,0,0)<") == shown.index(f"rank {rank}")
    assert message.count(">") == 1


def test_an_error_at_the_end_marks_the_place_after_the_last():
    message = refusal(BUILT, without(BUILT, Update()))
    place = len(BUILT.programs[1].instructions) - 1
    assert message.startswith(f"rank 1, step {place}, the end: the update is missing\n")
    assert any(line.split() == [str(place), "Update", ">-<"] for line in message.splitlines())
