"""The walk over the programs of all ranks: when each instruction starts and ends, and who never does."""

import numpy as np
import pytest
from program_samples import make_schedule, with_instructions

from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import AllReduceScalar, PostSend, Wait
from hpcrnn.schedules.replay import replay


def walk(programs, schedule, cost=lambda rank, i: float(isinstance(i, Task)), *, synchronous=False):
    placement = schedule.placement
    return replay(
        dict(enumerate(programs)),
        lambda r, axes: placement.group(placement.place(r), axes),
        cost,
        synchronous=synchronous,
    )


def layers_only(schedule):
    return lambda rank, i: float(isinstance(i, Task) and schedule.graph.recurrent[i.block])


def starts(found, programs, rank):
    """Start of each task."""
    rows = zip(programs[rank].instructions, found.start[rank], found.end[rank], strict=True)
    return {str(i): (float(start), float(end)) for i, start, end in rows if isinstance(i, Task)}


def test_two_stages_step_by_step():
    """``F F . B W . .`` above ``. F B W``: the gradient leaves before the weight gradient."""
    schedule = make_schedule("pipeline=2")
    programs = schedule.programs()
    found = walk(programs, schedule, layers_only(schedule))
    assert starts(found, programs, 0)["F(1,0,0)"] == (0, 1)
    assert starts(found, programs, 1)["F(2,0,0)"] == (1, 2)
    assert starts(found, programs, 1)["B(2,0,0)"] == (2, 3)
    assert starts(found, programs, 1)["W(2,0,0)"] == (3, 4)
    assert starts(found, programs, 0)["B(1,0,0)"] == (3, 4)
    assert starts(found, programs, 0)["W(1,0,0)"] == (4, 5)
    assert found.makespan == 5


def test_a_wait_lasts_until_its_message_was_sent():
    schedule = make_schedule("pipeline=2")
    programs = schedule.programs()
    found = walk(programs, schedule, layers_only(schedule))
    at = next(k for k, i in enumerate(programs[1].instructions) if isinstance(i, Wait))
    assert str(programs[1].instructions[at]) == "Wait recv y(1,0,0)"
    assert (found.start[1][at], found.end[1][at]) == (0, 1)


@pytest.mark.parametrize(
    ("grid", "cut", "makespan"),
    [("data=1", (2, 3), 18), ("data=3", (2, 3), 18), ("pipeline=3", (2, 2), 16), ("time=3", (2, 1), 10)],
)
def test_known_makespans(grid, cut, makespan):
    """M C (F + B + W), and F + B for each rank more along the pipeline or time."""
    schedule = make_schedule(grid, *cut)
    assert walk(schedule.programs(), schedule, layers_only(schedule)).makespan == makespan


def test_a_sum_ends_when_its_last_rank_has_begun_it():
    schedule = make_schedule("data=3", mode="forward")
    programs = schedule.programs()
    found = walk(programs, schedule, lambda rank, i: (1.0 + rank) * isinstance(i, Task))
    assert [found.end[rank][-1] for rank in range(3)] == [9, 9, 9]
    assert [found.start[rank][-1] for rank in range(3)] == [3, 6, 9]


def test_tensor_ranks_begin_forward_and_backward_tasks_together():
    schedule = make_schedule("tensor=2")
    found = walk(schedule.programs(), schedule, lambda rank, i: (1.0 + 2 * rank) * isinstance(i, Task))
    tasks = [i for i in schedule.program(0).instructions if isinstance(i, Task)]
    faster, slower = (starts(found, schedule.programs(), rank) for rank in (0, 1))
    assert [faster[str(t)][1] for t in tasks if t.kind == "F"] == [1, 4, 7]
    assert [slower[str(t)][1] for t in tasks if t.kind == "F"] == [3, 6, 9]
    assert faster["W(2,0,0)"][0] == faster["B(2,0,0)"][1]  # nobody waits before a weight gradient


def test_every_instruction_is_timed_and_time_does_not_run_back():
    schedule = make_schedule("data=2,pipeline=2,time=2", 2, 2, "zb_h1", carry=True)
    programs = schedule.programs()
    found = walk(programs, schedule)
    assert found.stuck == {}
    for rank, program in enumerate(programs):
        assert len(found.start[rank]) == len(found.end[rank]) == len(program.instructions)
        assert (found.end[rank] >= found.start[rank]).all()
        assert np.array_equal(found.start[rank][1:], found.end[rank][:-1])


def exchange_first(programs):
    """Both ranks send before either has posted its receive."""
    changes = {}
    for program in programs:
        sends = [i for i in program.instructions if isinstance(i, PostSend)]
        others = [i for i in program.instructions if i not in sends]
        changes[program.rank] = [*sends, *others]
    return with_instructions(programs, changes)


def test_sends_that_block_need_their_receives_posted():
    schedule = make_schedule("pipeline=2")
    programs = exchange_first(schedule.programs())
    assert walk(programs, schedule).stuck == {}
    stuck = walk(programs, schedule, synchronous=True)
    assert stuck.stuck == {0: 0, 1: 0}
    assert np.isnan(stuck.end[0]).all()


def test_a_sum_that_one_rank_never_begins_leaves_the_others_stuck():
    schedule = make_schedule("data=3", mode="forward")
    programs = schedule.programs()
    kept = [i for i in programs[1].instructions if isinstance(i, Task)]
    found = walk(with_instructions(programs, {1: kept}), schedule)
    at = programs[0].instructions.index(Wait(AllReduceScalar("loss", ("data",))))
    assert found.stuck == {0: at, 2: at}
