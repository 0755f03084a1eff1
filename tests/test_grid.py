"""The grid of a run: how many ranks, and whether what is to be cut can be cut that often."""

import pytest

from hpcrnn.errors import LaunchError, SpecError
from hpcrnn.grid import resolve_grid
from hpcrnn.spec import Grid, build_spec, convert, parse_grid

ALONE = "; each rank believes it is alone, so mpirun and mpi4py use different MPI libraries"


def test_every_rank_is_on_data_unless_the_grid_says_otherwise():
    assert resolve_grid(build_spec({}), 4) == Grid(data=4)
    assert resolve_grid(build_spec({}, {"grid": "data=2", "expect_ranks": 2}), 2) == Grid(data=2)


@pytest.mark.parametrize(
    ("overrides", "n_ranks", "message"),
    [
        ({"expect_ranks": 4}, 3, "machine.expect_ranks = 4: MPI started 3"),
        (
            {"expect_ranks": 4},
            1,
            "machine.expect_ranks = 4: MPI started 1" + ALONE,
        ),
        (
            {"grid": "data=2"},
            3,
            "parallel.grid = data=2: its product is 2, allowed is the number of ranks, 3 (mpirun -n 2, or a grid of 3)",
        ),
    ],
)
def test_a_launch_that_is_not_what_was_asked_for_is_refused(overrides, n_ranks, message):
    with pytest.raises(LaunchError) as raised:
        resolve_grid(build_spec({}, overrides), n_ranks)
    assert str(raised.value) == message
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch": 2}, "problem.batch = 2: allowed is at least one row a rank of data=3"),
        ({"batch": 11, "microbatches": 4}, "parallel.microbatches = 4: allowed is at most the 3 rows of a rank"),
        ({"seq": 5, "chunks": 6}, "parallel.chunks = 6: allowed is at most seq (5)"),
        (
            {"seq": 17, "grid": "time=3", "chunks": 6},
            "parallel.chunks = 6: allowed is at most the 5 steps of a segment",
        ),
        ({"seq": 2, "grid": "time=3"}, "parallel.grid = 'time=3': allowed is at most seq (2) segments of time"),
        (
            {"layers": 2, "grid": "pipeline=3"},
            "parallel.grid = 'pipeline=3': allowed is at most layers (2) stages of the pipeline",
        ),
        ({"hidden": 2, "grid": "tensor=3"}, "parallel.grid = 'tensor=3': allowed is at most hidden (2) tensor ranks"),
        (
            {"virtual_stages": 2, "grid": "pipeline=3", "layers": 6},
            "parallel.virtual_stages = 2: allowed is 1 with order = fill_drain; more with order = interleaved",
        ),
        (
            {"order": "interleaved", "virtual_stages": 2, "grid": "time=3"},
            (
                "parallel.order = 'interleaved': allowed is fill_drain, 1f1b, seq_1f1b or zb_h1 on the grid time=3; "
                "interleaved needs pipeline > 1 and time = 1"
            ),
        ),
        (
            {"order": "interleaved", "virtual_stages": 1, "grid": "pipeline=3", "layers": 9},
            "parallel.virtual_stages = 1: allowed is 2 to 3 (layers = 9 over pipeline=3)",
        ),
        (
            {"order": "interleaved", "virtual_stages": 4, "grid": "pipeline=3", "layers": 9},
            "parallel.virtual_stages = 4: allowed is 2 to 3 (layers = 9 over pipeline=3)",
        ),
        (
            {"order": "interleaved", "virtual_stages": 2, "grid": "pipeline=3", "layers": 5},
            (
                "parallel.virtual_stages = 2: allowed is none: 5 layers are too few to interleave "
                "(layers = 5 over pipeline=3)"
            ),
        ),
    ],
)
def test_a_problem_that_cannot_be_cut_that_often_is_refused(overrides, message):
    with pytest.raises(SpecError) as raised:
        resolve_grid(build_spec({}, overrides), 3)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"grid": "pipeline=2"}, "parallel.grid = 'pipeline=2': allowed is the axis data alone"),
        ({"grid": "data=1", "method": "picard", "fold": 2}, "recurrence.method = 'picard': allowed is chain"),
    ],
)
def test_sequences_of_unequal_length_are_split_by_rows_alone(overrides, message):
    spec = build_spec({}, {"sequences": "lines", **overrides})
    with pytest.raises(SpecError) as raised:
        resolve_grid(spec, spec.parallel.grid.n_ranks)
    assert str(raised.value) == f"{message}, with sequences = lines"


def test_a_problem_cut_as_often_as_it_can_be_is_accepted():
    spec = build_spec({}, {"batch": 11, "microbatches": 3, "seq": 5, "chunks": 5})
    assert resolve_grid(spec, 3) == Grid(data=3)


@pytest.mark.parametrize("text", ["pipeline=4", "time=3,pipeline=2", "data=2,tensor=4", "tensor=6,time=5"])
def test_a_grid_reads_back_from_its_text(text):
    grid = convert(parse_grid(text), Grid)
    assert convert(parse_grid(str(grid)), Grid) == grid


def test_a_grid_of_one_rank_has_a_text_too():
    assert str(Grid()) == "data=1"
