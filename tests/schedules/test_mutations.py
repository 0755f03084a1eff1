"""Every small change of a valid program: refused where it changes the meaning, accepted where it does not.

What a step computes does not depend on the order of two instructions unless one *must precede* the other:

- a task precedes those that need it;
- a task precedes the post of the sum that it completes: W(l) that of block l, F(head) that of the loss;
- a post precedes its wait;
- a post precedes the posts after it, because collectives match by their order, which all ranks share: it may
  change on all ranks together, not on one;
- everything precedes the update.

Anything else may be exchanged.
"""

import pytest
from program_samples import bare_network, build, token_network

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Update, Wait

Post = AllReduce | AllReduceLoss


def late_posts(built):
    """The same programs with all posts side by side after the last task."""

    def reorder(found):
        posts = [i for i in found if isinstance(i, Post)]
        return [*(i for i in found if isinstance(i, Task)), *posts, *(i for i in found if isinstance(i, Wait | Update))]

    return built._replace(programs=tuple(built.with_all(reorder)))


def early_waits(built):
    """The same programs with every wait directly after its post."""

    def reorder(found):
        return [j for i in found if not isinstance(i, Wait) for j in ([i, Wait(i)] if isinstance(i, Post) else [i])]

    return built._replace(programs=tuple(built.with_all(reorder)))


BUILT = {
    "serial train": build(token_network(1), chunks=2),
    "serial gradient": build(token_network(1), microbatches=2, mode="gradient"),
    "serial forward": build(token_network(1), microbatches=2, chunks=2, mode="forward"),
    "bucketed train": build(token_network(1), ranks=2, chunks=2),
    "bucketed gradient": build(token_network(1), ranks=3, mode="gradient"),
    "flat train": build(token_network(1), ranks=2, microbatches=2, allreduce="flat"),
    "forward": build(token_network(1), ranks=2, chunks=2, mode="forward"),
    "no parameters in the head": build(bare_network(), ranks=2, microbatches=2),
    "posts at the end": late_posts(build(token_network(1), ranks=2)),
    "waits at once": early_waits(build(token_network(1), ranks=2)),
}
every_program = pytest.mark.parametrize("built", BUILT.values(), ids=BUILT)


def must_precede(built, first, second, *, one_rank):
    """Whether an instruction has to stay before another that stands behind it."""
    if isinstance(second, Update):
        return True
    if isinstance(first, Task) and isinstance(second, Task):
        return first in built.graph.needs(second)
    if isinstance(first, Task) and isinstance(second, AllReduce):
        return first.kind == "W" and second.start <= first.block < second.stop
    if isinstance(first, Task) and isinstance(second, AllReduceLoss):
        return first.kind == "F" and first.block == built.graph.n_blocks - 1
    if isinstance(first, Post) and isinstance(second, Post):
        return one_rank
    return isinstance(second, Wait) and second.post == first


def accepted(built, programs):
    try:
        built.check(programs)
    except ScheduleError:
        return False
    return True


def moved(instructions, source, target):
    found = list(instructions)
    found.insert(target, found.pop(source))
    return found


def moves(built):
    """Every way to take one instruction out and put it elsewhere; next to its place, that is a swap."""
    n = len(built.programs[0].instructions)
    return [(source, target) for source in range(n) for target in range(n) if source != target]


def keeps_the_meaning(built, source, target, *, one_rank):
    found = built.programs[0].instructions
    mover = found[source]
    if source < target:
        return not any(must_precede(built, mover, i, one_rank=one_rank) for i in found[source + 1 : target + 1])
    return not any(must_precede(built, i, mover, one_rank=one_rank) for i in found[target:source])


@every_program
def test_the_programs_are_valid_before_they_are_changed(built):
    built.check()


@every_program
def test_dropping_any_instruction_of_any_rank_is_refused(built):
    for rank, program in enumerate(built.programs):
        for index in range(len(program.instructions)):
            changed = [i for at, i in enumerate(program.instructions) if at != index]
            assert not accepted(built, built.with_rank(rank, changed)), f"{program.instructions[index]} on rank {rank}"


@every_program
def test_doubling_any_instruction_anywhere_later_is_refused(built):
    rank = len(built.programs) - 1
    instructions = built.programs[rank].instructions
    for index, instruction in enumerate(instructions):
        for target in range(index + 1, len(instructions) + 1):
            changed = [*instructions[:target], instruction, *instructions[target:]]
            assert not accepted(built, built.with_rank(rank, changed)), f"{instruction} again at {target}"


@every_program
def test_moving_an_instruction_of_one_rank_is_refused_exactly_where_it_changes_the_meaning(built):
    alone = len(built.programs) == 1
    for rank in {0, len(built.programs) - 1}:
        for source, target in moves(built):
            changed = moved(built.programs[rank].instructions, source, target)
            harmless = keeps_the_meaning(built, source, target, one_rank=not alone)
            assert accepted(built, built.with_rank(rank, changed)) == harmless, f"{changed[target]} to {target}"


@every_program
def test_moving_an_instruction_of_all_ranks_may_change_the_order_of_posts_too(built):
    for source, target in moves(built):
        changed = built.with_all(lambda found, source=source, target=target: moved(found, source, target))
        harmless = keeps_the_meaning(built, source, target, one_rank=False)
        assert accepted(built, changed) == harmless, f"{source} to {target}"


def test_both_kinds_of_move_occur():
    """Else the tests above would prove little."""
    for built in BUILT.values():
        kept = [keeps_the_meaning(built, *move, one_rank=True) for move in moves(built)]
        assert 0.02 < sum(kept) / len(kept) < 0.9


def test_two_posts_side_by_side_may_be_swapped_on_all_ranks_but_not_on_one():
    built = BUILT["posts at the end"]
    instructions = built.programs[0].instructions
    at = next(i for i, post in enumerate(instructions) if isinstance(post, AllReduce))
    assert accepted(built, built.with_all(lambda found: moved(found, at, at + 1)))
    with pytest.raises(ScheduleError, match="collectives must match"):
        built.check(built.with_rank(1, moved(instructions, at, at + 1)))


def test_two_waits_may_be_swapped_on_one_rank():
    built = BUILT["bucketed train"]
    at = next(i for i, wait in enumerate(built.programs[0].instructions) if isinstance(wait, Wait))
    assert accepted(built, built.with_rank(1, moved(built.programs[1].instructions, at, at + 1)))
