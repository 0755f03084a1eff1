"""Buffers that share memory never live at the same time, and as few are made as can be."""

from collections import Counter
from itertools import combinations

import pytest
from program_samples import PIPELINE_ORDERS, SMALL, make_schedule

from hpcrnn.schedules.lifetimes import assign_slots, lives, peak_live
from hpcrnn.schedules.placement import Place


def laid_out(schedule, rank):
    program = schedule.program(rank)
    chunks = schedule.placement.chunks_at(schedule.placement.place(rank))
    return lives(program, schedule.graph, chunks), assign_slots(program, schedule.graph, chunks)


@pytest.mark.parametrize("name", SMALL)
def test_buffers_of_a_slot_do_not_overlap_and_no_slot_is_too_many(name):
    schedule = SMALL[name]
    for rank in range(schedule.n_ranks):
        found, slots = laid_out(schedule, rank)
        assert set(slots.of) == set(found)
        for a, b in combinations(found, 2):
            if (a.family, a.block, slots.of[a]) == (b.family, b.block, slots.of[b]):
                assert found[a][1] < found[b][0] or found[b][1] < found[a][0], f"{a} and {b}"
        n_steps = len(schedule.program(rank).instructions)
        alive = [
            Counter((b.family, b.block) for b, (start, stop) in found.items() if start <= s <= stop)
            for s in range(n_steps)
        ]
        assert slots.counts == {pool: max(count[pool] for count in alive) for pool in slots.counts}


def peaks(order, n_stages, microbatches, chunks):
    schedule = make_schedule(f"pipeline={n_stages}", microbatches, chunks, order)
    return [
        peak_live(schedule.program(rank), schedule.graph, schedule.placement.chunks_at(Place(pipeline=rank)))
        for rank in range(n_stages)
    ]


CUTS = [(P, M, C) for P in (2, 3, 4, 8) for M in (2, 3, 8) for C in (1, 2, 5)]


@pytest.mark.parametrize(("n_stages", "M", "C"), CUTS)
def test_fill_drain_keeps_every_microbatch(n_stages, M, C):
    assert peaks("fill_drain", n_stages, M, C) == [M * C] * n_stages


@pytest.mark.parametrize(("n_stages", "M", "C"), CUTS)
def test_1f1b_keeps_as_many_microbatches_as_ranks_follow(n_stages, M, C):
    """min(M, P) on the first stage."""
    assert peaks("1f1b", n_stages, M, C) == [min(M, n_stages - rank) * C for rank in range(n_stages)]


@pytest.mark.parametrize(("n_stages", "M", "C"), CUTS)
def test_seq_1f1b_keeps_one_microbatch_and_a_chunk_for_each_rank_that_follows(n_stages, M, C):
    """(C + P - 1) / C micro-batches on the first stage, of M >= 2; never more than there are."""
    assert peaks("seq_1f1b", n_stages, M, C) == [min(M * C, C + n_stages - 1 - rank) for rank in range(n_stages)]


@pytest.mark.parametrize(("n_stages", "M", "C"), CUTS)
def test_zb_h1_keeps_on_every_stage_what_the_first_keeps(n_stages, M, C):
    """Deferred weight gradients take the memory that the later stages of 1F1B leave."""
    assert peaks("zb_h1", n_stages, M, C) == [min(M * C, C + n_stages - 1)] * n_stages


@pytest.mark.parametrize("order", PIPELINE_ORDERS)
def test_inference_keeps_no_more_than_what_is_under_way(order):
    schedule = make_schedule("pipeline=2", 8, 2, order, mode="forward")
    for rank in range(2):
        assert peak_live(schedule.program(rank), schedule.graph, schedule.placement.segments[0]) <= 4
