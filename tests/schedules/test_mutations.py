"""Every change of a program: refused where it would hang or compute something else, accepted where it is harmless.

What is harmless, the symbolic machine says, which runs the changed programs on the slots they would get and knows
none of the validator's rules.  Small programs are changed in every way, larger ones in ways drawn with a fixed seed;
on one rank, or on all replicas and tensor ranks of its place alike.
"""

import random
from collections import Counter
from functools import cache

import pytest
from program_samples import SMALL, make_schedule, with_instructions
from symbolic_machine import slots_of, what_is_wrong

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.program import Carry, PostRecv, PostSend, Wait
from hpcrnn.schedules.validation import validate

STRICT = {
    "done twice": "a task repeated at once may compute the same; but a benchmark must not do work twice",
    "carried twice": "the same",
    "nothing may follow the update": "the update ends a step: what comes later would fall into the next one's time",
    "is still under way": "the same, of a wait that is moved behind the update",
    "the loss is not complete": "only the first tensor rank counts the loss; but no engine has to do it that way",
}
"""Reasons for which a harmless change may be refused."""

ALL_WAYS = 40
"""Programs of up to so many instructions, all ranks together, are changed in every way."""

DRAWN = 16


def ways(n, n_ranks):
    """Changes of a program of n instructions: what, where, and where to."""
    rng = random.Random(n)  # noqa: S311
    moves = [("move", i, j) for i in range(n) for j in range(n) if i != j]
    swaps = [("swap", i, j) for i in range(n) for j in range(i + 2, n)]
    doubles = [("double", i, j) for i in range(n) for j in range(n + 1)]
    drops = [("drop", i, i) for i in range(n)]
    if n * n_ranks <= ALL_WAYS:
        return [*drops, *moves, *swaps, *doubles]
    return [*drops, *rng.sample(moves, 2 * DRAWN), *rng.sample(swaps, DRAWN), *rng.sample(doubles, DRAWN)]


def changed(instructions, what, source, target):
    found = list(instructions)
    if what == "swap":
        found[source], found[target] = found[target], found[source]
    elif what == "double":
        found.insert(target, found[source])
    else:
        mover = found.pop(source)
        if what == "move":
            found.insert(target, mover)
    return found


def places_to_change(schedule):
    """Sets of ranks that are changed alike: each alone, and all that share a stage and a segment and do the same."""
    ranks = [(rank,) for rank in range(schedule.n_ranks)]
    if not schedule.is_symmetric:
        return ranks
    alike = {schedule.placement.group(schedule.placement.place(rank), ("data", "tensor")) for (rank,) in ranks}
    return [*ranks, *sorted(group for group in alike if len(group) > 1)]


def refusal(programs, schedule):
    try:
        validate(programs, schedule)
    except ScheduleError as error:
        return str(error).splitlines()[0]
    return ""


@cache
def verdicts(name):
    """Count changes by verdict; list those on which validator and machine disagree."""
    schedule = SMALL[name]
    programs = schedule.programs()
    slots = [slots_of(program, schedule) for program in programs]
    counts, disagreements = Counter(), []
    for ranks in places_to_change(schedule):
        for way in ways(len(programs[ranks[0]].instructions), len(programs)):
            new = with_instructions(programs, {r: changed(programs[r].instructions, *way) for r in ranks})
            own = [slots_of(p, schedule) if p.rank in ranks else slots[p.rank] for p in new]
            wrong, refused = what_is_wrong(new, schedule, slots=own), refusal(new, schedule)
            strict = refused and not wrong and any(reason in refused for reason in STRICT)
            counts["wrong" if wrong else "strict" if strict else "harmless"] += 1
            if bool(wrong) != bool(refused) and not strict:
                disagreements.append((ranks, way, programs[ranks[0]].instructions[way[1]], wrong, refused))
    return counts, disagreements


@pytest.mark.parametrize("name", SMALL)
def test_a_change_is_refused_exactly_where_it_is_wrong(name):
    assert verdicts(name)[1] == []


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("synchronous", [True, False], ids=["synchronous", "eager"])
def test_programs_are_right_before_they_are_changed(name, synchronous):
    programs = SMALL[name].programs()
    validate(programs, SMALL[name])
    assert what_is_wrong(programs, SMALL[name], synchronous=synchronous) == ""


@pytest.mark.parametrize("name", SMALL)
def test_dropping_any_instruction_of_any_rank_is_refused(name):
    schedule = SMALL[name]
    programs = schedule.programs()
    for program in programs:
        for index in range(len(program.instructions)):
            new = with_instructions(programs, {program.rank: changed(program.instructions, "drop", index, index)})
            assert refusal(new, schedule), f"{program.instructions[index]} of rank {program.rank}"


def test_changes_of_every_verdict_occur():
    """Else the tests above would prove little."""
    counts = sum((verdicts(name)[0] for name in SMALL), Counter())
    assert counts["harmless"] > 0.05 * counts.total()
    assert counts["wrong"] > 0.5 * counts.total()
    assert counts["strict"] < counts["harmless"]


def begun(instruction):
    return instruction.post if isinstance(instruction, Wait) else instruction


def without_message(programs, value):
    """Programs that neither send nor receive a value."""
    kept = {
        p.rank: [i for i in p.instructions if not isinstance(begun(i), PostSend | PostRecv) or begun(i).value != value]
        for p in programs
    }
    return with_instructions(programs, kept)


@pytest.mark.parametrize("name", [n for n, s in SMALL.items() if s.n_ranks > 1])
def test_a_message_missing_on_both_ends_is_refused(name):
    schedule = SMALL[name]
    programs = schedule.programs()
    values = {i.value for p in programs for i in p.instructions if isinstance(i, PostSend)}
    for value in values:
        new = without_message(programs, value)
        assert what_is_wrong(new, schedule), value
        assert refusal(new, schedule), value


@pytest.mark.parametrize("name", [n for n, s in SMALL.items() if s.axes("data", "pipeline", "time", "tensor")])
def test_a_sum_missing_on_all_ranks_is_refused(name):
    schedule = SMALL[name]
    programs = schedule.programs()
    for handle in {i.handle for p in programs for i in p.instructions if hasattr(i, "axes")}:
        kept = {p.rank: [i for i in p.instructions if getattr(begun(i), "handle", "") != handle] for p in programs}
        new = with_instructions(programs, kept)
        assert what_is_wrong(new, schedule), handle
        assert refusal(new, schedule), handle


def crossed(instruction, schedule):
    """The same message with the other replica."""
    post = begun(instruction)
    if not isinstance(post, PostSend | PostRecv):
        return instruction
    there = schedule.placement.place(post.peer)
    (other,) = set(schedule.placement.group(there, ("data",))) - {post.peer}
    made = type(post)(post.value, other, post.n_bytes)
    return made if post is instruction else Wait(made)


@pytest.mark.parametrize("grid", ["data=2,pipeline=2", "data=2,time=2"])
def test_messages_between_replicas_match_but_are_refused(grid):
    """Every send has its receive, and all ranks come to the end; but each replica gets the other's rows."""
    schedule = make_schedule(grid)
    programs = schedule.programs()
    new = with_instructions(programs, {p.rank: [crossed(i, schedule) for i in p.instructions] for p in programs})
    assert what_is_wrong(new, schedule) == "the loss is not what it should be"
    assert "the value goes to rank" in refusal(new, schedule) or "the value goes from rank" in refusal(new, schedule)


def test_tensor_ranks_must_not_take_independent_tasks_in_different_orders():
    schedule = make_schedule("tensor=2", microbatches=2)
    programs = schedule.programs()
    at = [str(i) for i in programs[1].instructions].index("F(1,0,0)")
    new = with_instructions(programs, {1: changed(programs[1].instructions, "move", at, at + 1)})
    assert what_is_wrong(new, schedule) == "hangs"
    assert "rank 0 does F(1,0,0) here: tensor ranks work in lockstep" in refusal(new, schedule)


def test_the_machine_sees_states_that_are_carried_before_they_are_there():
    schedule = SMALL["serial carry"]
    (program,) = schedule.programs()
    at = program.instructions.index(Carry())
    new = with_instructions([program], {0: changed(program.instructions, "move", at, 3)})
    assert what_is_wrong(new, schedule).startswith("reads ('final'")
