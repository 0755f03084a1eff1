"""How it is said that ranks are unequal, and what of it is refused."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.errors import SpecError
from hpcrnn.grid import resolve_grid
from hpcrnn.spec import build_spec
from hpcrnn.spec.unequal import Handicap, parse_handicap, parse_weights


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("even", ()),
        ("measured", ()),
        ("weights:1", (1,)),
        ("weights:2,1,0.5", (2, 1, 0.5)),
        ("weights:10,00.1", (10, 0.1)),
    ],
)
def test_weights_by_example(text, weights):
    assert parse_weights(build_spec({}, {"balance": text}).parallel.balance) == weights


@pytest.mark.parametrize(
    "text",
    ["", "odd", "weights", "weights:", "weights:0", "weights:1,0.00", "weights:-1", "weights:nan", "weights:inf",
     "weights:1,", "weights:1,,2", "weights:1e3", "weights: 1", "weights:1\n", "weights:.5", "Even",
     "weights:1234567890123"],
)  # fmt: skip
def test_what_is_no_balance_is_refused(text):
    with pytest.raises(
        SpecError, match="allowed is even, measured or weights:2,1,1 with a number above 0 for each rank"
    ):
        build_spec({}, {"balance": text})


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=9))
@settings(derandomize=True, deadline=None)
def test_weights_that_are_written_are_read(weights):
    text = "weights:" + ",".join(f"{weight:.9f}" for weight in weights)
    found = parse_weights(build_spec({}, {"balance": text}).parallel.balance)
    assert all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(found, weights, strict=True))


@pytest.mark.parametrize(
    ("text", "slowed"),
    [
        ("1:0.5", {1: Handicap(0.5, 0)}),
        ("1:0.5@40,3:0.08", {1: Handicap(0.5, 40), 3: Handicap(0.08, 0)}),
        ("0:0.9999@0", {0: Handicap(0.9999, 0)}),
    ],
)
def test_handicaps_by_example(text, slowed):
    assert parse_handicap(build_spec({}, {"handicap": text}).machine.handicap) == slowed


@pytest.mark.parametrize(
    "text",
    ["", "1", "1:", "1:1", "1:1.5", "1:0", "1:0.0", "1:0.009", "1:-0.5", "-1:0.5", "1:nan", "1:0.5@", "1:0.5@-1",
     "1:0.5@1.5", "1:0.5,", "1:0.5 ", "a:0.5", "1:0.5\n"],
)  # fmt: skip
def test_what_is_no_handicap_is_refused(text):
    with pytest.raises(SpecError, match="allowed is RANK:SPEED or RANK:SPEED@STEP"):
        build_spec({}, {"handicap": text})


@pytest.mark.parametrize(
    ("overrides", "n_ranks", "message"),
    [
        (
            {"balance": "weights:1,2"},
            3,
            "parallel.balance = 'weights:1,2': allowed is a weight for each of 3 ranks, not 2",
        ),
        (
            {"balance": "weights:1,2"},
            1,
            "parallel.balance = 'weights:1,2': allowed is a weight for each of 1 ranks, not 2",
        ),
        (
            {"balance": "measured", "grid": "tensor=2"},
            2,
            "parallel.balance = 'measured': allowed is even on the grid tensor=2: hidden units are shared evenly",
        ),
        ({"handicap": "2:0.5"}, 2, "machine.handicap = '2:0.5': allowed is ranks 0 to 1"),
        ({"handicap": "0:0.5,0:0.6"}, 2, "machine.handicap = '0:0.5,0:0.6': allowed is each rank once"),
        (
            {"handicap": "0:0.5"},
            1,
            (
                "machine.handicap = '0:0.5': allowed is none on one rank: a serial run is what others are measured "
                "against"
            ),
        ),
        (
            {"handicap": "1:0.5", "grid": "tensor=2"},
            2,
            (
                "machine.handicap = '1:0.5': allowed is none where ranks wait for one another inside a task "
                "(tensor > 1, or another method than chain)"
            ),
        ),
        (
            {"handicap": "1:0.5", "backend": "cupy"},
            2,
            "machine.handicap = '1:0.5': allowed is ranks that compute on a CPU, which rank 1 does not",
        ),
        (
            {"rank_backends": "numpy,cupy,numpy"},
            2,
            "machine.rank_backends = 'numpy,cupy,numpy': allowed is a backend for each of 2 ranks, not 3",
        ),
        (
            {"rank_backends": "numpy,cupy", "grid": "time=2"},
            2,
            "parallel.grid = 'time=2': allowed is the axis data alone, and method chain, with rank_backends",
        ),
    ],
)
def test_what_does_not_fit_the_ranks_is_refused(overrides, n_ranks, message):
    with pytest.raises(SpecError) as raised:
        resolve_grid(build_spec({}, overrides), n_ranks)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("overrides", "n_ranks"),
    [
        ({"balance": "measured"}, 1),
        ({"balance": "measured", "grid": "data=2,tensor=2"}, 4),
        ({"balance": "weights:1,2", "handicap": "0:0.5@7,1:0.25"}, 2),
    ],
)
def test_what_fits_is_accepted(overrides, n_ranks):
    assert resolve_grid(build_spec({}, overrides), n_ranks).n_ranks == n_ranks
