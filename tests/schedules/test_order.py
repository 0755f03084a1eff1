"""In which order ranks take their tasks: the drawn rows are what is expected.

A row is a rank, a word a unit, ``F01`` the forward task of micro-batch 0 and chunk 1; input layer and head are left
out.  Two micro-batches of two chunks each.
"""

from itertools import chain

import pytest
from program_samples import make_schedule

from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.order import turns, units
from hpcrnn.schedules.placement import Place, make_placement
from hpcrnn.spec import Grid

ROWS = {
    ("pipeline=2", "fill_drain"): """
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
    """,
    ("pipeline=2", "1f1b"): """
        F00F01 F10F11 B01W01B00W00 B11W11B10W10
        F00F01 B01W01B00W00 F10F11 B11W11B10W10
    """,
    ("pipeline=2", "seq_1f1b"): """
        F00 F01 F10 B01W01 F11 B00W00 B11W11 B10W10
        F00 F01 B01W01 F10 B00W00 F11 B11W11 B10W10
    """,
    ("pipeline=2", "zb_h1"): """
        F00 F01 F10 B01W01 F11 B00W00 B11W11 B10W10
        F00 F01 B01 F10 B00W01 F11 B11W00 B10W11 W10
    """,
    ("pipeline=3", "fill_drain"): """
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
    """,
    ("pipeline=3", "1f1b"): """
        F00F01 F10F11 B01W01B00W00 B11W11B10W10
        F00F01 F10F11 B01W01B00W00 B11W11B10W10
        F00F01 B01W01B00W00 F10F11 B11W11B10W10
    """,
    ("pipeline=3", "seq_1f1b"): """
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 B01W01 F11 B00W00 B11W11 B10W10
        F00 F01 B01W01 F10 B00W00 F11 B11W11 B10W10
    """,
    ("pipeline=3", "zb_h1"): """
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 B01 F11 B00W01 B11W00 B10W11 W10
        F00 F01 B01 F10 B00 F11 B11W01 B10W00 W11 W10
    """,
    ("pipeline=4", "fill_drain"): """
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
    """,
    ("pipeline=4", "1f1b"): """
        F00F01 F10F11 B01W01B00W00 B11W11B10W10
        F00F01 F10F11 B01W01B00W00 B11W11B10W10
        F00F01 F10F11 B01W01B00W00 B11W11B10W10
        F00F01 B01W01B00W00 F10F11 B11W11B10W10
    """,
    ("pipeline=4", "seq_1f1b"): """
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 B01W01 F11 B00W00 B11W11 B10W10
        F00 F01 B01W01 F10 B00W00 F11 B11W11 B10W10
    """,
    ("pipeline=4", "zb_h1"): """
        F00 F01 F10 F11 B01W01 B00W00 B11W11 B10W10
        F00 F01 F10 F11 B01 B00W01 B11W00 B10W11 W10
        F00 F01 F10 B01 F11 B00 B11W01 B10W00 W11 W10
        F00 F01 B01 F10 B00 F11 B11 B10W01 W00 W11 W10
    """,
}

# "a" and "b" are the first and second virtual stage of a rank.
INTERLEAVED = {
    2: """
        Fa00 Fa10 Fb00 Fb10 Bb00Wb00 Bb10Wb10 Ba00Wa00 Ba10Wa10
        Fa00 Fa10 Fb00 Bb00Wb00 Fb10 Bb10Wb10 Ba00Wa00 Ba10Wa10
    """,
    3: """
        Fa00 Fa10 Fa20 Fb00 Fb10 Fb20 Bb00Wb00 Bb10Wb10 Bb20Wb20 Ba00Wa00 Ba10Wa10 Ba20Wa20
        Fa00 Fa10 Fa20 Fb00 Fb10 Fb20 Bb00Wb00 Bb10Wb10 Bb20Wb20 Ba00Wa00 Ba10Wa10 Ba20Wa20
        Fa00 Fa10 Fa20 Fb00 Bb00Wb00 Fb10 Bb10Wb10 Fb20 Bb20Wb20 Ba00Wa00 Ba10Wa10 Ba20Wa20
    """,
}

# Where pipeline and time are cut, a unit is a whole segment; rows are stage by stage, segment by segment.
BOTH = """
    F00F01 F10F11 B01B00W01W00 B11B10W11W10
    F02F03 F12F13 B03B02W03W02 B13B12W13W12
    F00F01 F10F11 B01B00W01W00 B11B10W11W10
    F02F03 B03B02W03W02 F12F13 B13B12W13W12
"""

# Two layers, three segments: a unit is a layer, with the input layer or the head beside it.
SEGMENTS = {
    "1f1b": """
        F00F00 F10F10 B00W00B00W00 B10W10B10W10
        F01F01 F11F11 B01W01B01W01 B11W11B11W11
        F02F02 B02W02B02W02 F12F12 B12W12B12W12
    """,
    "seq_1f1b": """
        F00 F00 F10 F10 B00W00 B00W00 B10W10 B10W10
        F01 F01 F11 B01W01 F11 B01W01 B11W11 B11W11
        F02 F02 B02W02 F12 B02W02 F12 B12W12 B12W12
    """,
    "zb_h1": """
        F00 F00 F10 F10 B00W00 B00W00 B10W10 B10W10
        F01 F01 F11 B01 F11 B01W01 B11W01 B11W11 W11
        F02 F02 B02 F12 B02 F12 B12W02 B12W02 W12 W12
    """,
}


def places(schedule):
    placement = schedule.placement
    return [placement.place(rank) for rank in range(placement.n_ranks)]


def rank_units(schedule, place):
    return units(schedule.graph, schedule.placement, place, schedule.order)


def drawn(schedule):
    def label(task):
        virtual = schedule.placement.stage(task.block) // schedule.placement.grid.pipeline
        stage = "ab"[virtual] if schedule.placement.n_virtual > 1 else ""
        return f"{task.kind}{stage}{task.microbatch}{task.chunk}" if schedule.graph.recurrent[task.block] else ""

    return [["".join(map(label, unit)) for unit in rank_units(schedule, place)] for place in places(schedule)]


def rows(text):
    return [line.split() for line in text.strip().splitlines()]


@pytest.mark.parametrize(("grid", "order"), ROWS)
def test_rows_of_a_pipeline(grid, order):
    assert drawn(make_schedule(grid, 2, 2, order)) == rows(ROWS[grid, order])


@pytest.mark.parametrize("n_stages", INTERLEAVED)
def test_rows_of_virtual_stages(n_stages):
    schedule = make_schedule(f"pipeline={n_stages}", n_stages, 1, "interleaved", n_virtual=2)
    assert drawn(schedule) == rows(INTERLEAVED[n_stages])


def test_rows_of_a_pipeline_over_segments():
    assert drawn(make_schedule("pipeline=2,time=2", 2, 2, "seq_1f1b")) == rows(BOTH)


@pytest.mark.parametrize("order", SEGMENTS)
def test_rows_of_segments(order):
    schedule = make_schedule("time=3", 2, 1, order, layers=2)
    assert drawn(schedule) == rows(SEGMENTS[order])
    tasks = [str(task) for unit in rank_units(schedule, Place()) for task in unit]
    assert tasks[:4] == ["F(0,0,0)", "F(1,0,0)", "F(2,0,0)", "F(3,0,0)"]


def test_fill_drain_without_a_pipeline_goes_block_by_block():
    schedule = make_schedule(microbatches=2, chunks=2)
    found = [str(task) for unit in rank_units(schedule, Place()) for task in unit]
    assert found[:8] == [f"F({block},{m},{c})" for block in (0, 1) for m in (0, 1) for c in (0, 1)]
    assert found[12:20] == [f"{kind}(2,{m},{c})" for m in (0, 1) for kind in "BW" for c in (1, 0)]


def transposed(unit):
    return tuple(Task(task.kind, task.chunk, task.microbatch, task.block) for task in unit)


@pytest.mark.parametrize("order", ["1f1b", "seq_1f1b", "zb_h1"])
@pytest.mark.parametrize(("n_ranks", "n_items", "n_microbatches"), [(2, 3, 1), (3, 2, 2), (4, 5, 3), (3, 1, 4)])
def test_a_pipeline_over_chunks_is_the_transpose_of_segments_over_layers(n_ranks, n_items, n_microbatches, order):
    by_layer = TaskGraph((True,) * n_ranks, n_microbatches, n_items)
    by_time = TaskGraph((True,) * n_items, n_microbatches, n_ranks)
    pipeline = make_placement(by_layer, Grid(pipeline=n_ranks), [1.0] * n_ranks)
    segments = make_placement(by_time, Grid(time=n_ranks), [1.0] * n_items)
    for k in range(n_ranks):
        expected = units(by_layer, pipeline, Place(pipeline=k), order)
        assert tuple(map(transposed, units(by_time, segments, Place(time=k), order))) == expected


@pytest.mark.parametrize("order", ["fill_drain", "1f1b", "seq_1f1b", "zb_h1", "interleaved"])
@pytest.mark.parametrize("mode", ["train", "forward"])
@pytest.mark.parametrize(("grid", "cut"), [("pipeline=3", (5, 2)), ("time=3", (2, 3)), ("pipeline=2,time=2", (3, 2))])
def test_every_rank_does_each_of_its_tasks_once(grid, cut, mode, order):
    schedule = make_schedule(grid, *cut, order, layers=6, mode=mode, n_virtual=2 if order == "interleaved" else 1)
    for place in places(schedule):
        found = list(chain(*rank_units(schedule, place)))
        own = [t for t in schedule.graph.tasks() if schedule.placement.owner(t, place) == place]
        assert len(found) == len(own)
        assert set(found) == set(own)


@pytest.mark.parametrize(
    ("n_items", "sizes"), [(1, [1]), (4, [4]), (7, [7]), (8, [4, 4]), (11, [6, 5]), (12, [4, 4, 4])]
)
def test_turns_of_at_least_four(n_items, sizes):
    assert [part.stop - part.start for part in turns(n_items, 4)] == sizes
