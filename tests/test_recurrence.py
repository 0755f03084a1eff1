"""Which methods fit a problem, a grid and its numbers; and what is said about those that do not."""

import msgspec
import pytest

from hpcrnn.errors import SpecError
from hpcrnn.grid import resolve_grid
from hpcrnn.recurrence import CORRECTED, INEXACT, LARGEST_HIDDEN, check_recurrence, is_exact, least_tolerance
from hpcrnn.spec import Grid, RecurrenceSpec, build_spec

EVERY_METHOD = ("chain", "auto", *CORRECTED, *INEXACT)

SIZES = {"hidden": 12, "batch": 5, "seq": 40}


def check(overrides):
    spec = build_spec({}, {**SIZES, **overrides})
    check_recurrence(spec, spec.parallel.grid or Grid())


FITTING = [
    {},
    *({"method": method, "fold": 8} for method in ("auto", "picard", "gateprod", "deer")),
    *({"method": method, "fold": 8} for method in ("tbptt_zero", "tbptt_stale")),
    *({"method": method, "fold": 8, "burn_in": 5} for method in ("auto", "picard", "burnin", "overlap_verified")),
    {"method": "scan", "cell": "mingru", "fold": 40},
    {"method": "scan", "cell": "minlstm", "fold": 1},
    {"method": "tbptt_zero", "tolerance": 1e-30},
    {"method": "picard", "fold": 20, "grid": "time=2", "halo_codec": "int8", "max_rounds": 3},
    {"method": "picard", "grid": "data=2,pipeline=2,time=40"},
    {"method": "picard", "dtype": "float64", "tolerance": 1e-15},
    {"method": "picard", "tolerance": 4.8e-7},
    {"method": "deer", "hidden": LARGEST_HIDDEN},
    {"method": "picard", "microbatches": 5, "carry": True, "order": "1f1b", "backend": "torch,numpy"},
]


@pytest.mark.parametrize("overrides", FITTING, ids=str)
def test_what_fits_is_accepted(overrides):
    check(overrides)


CHAIN = "with method chain; more with picard and others"
REFUSED = {
    # What chain has not.
    "fold": ({"fold": 2}, f"recurrence.fold = 2: allowed is 1 {CHAIN}"),
    "rounds": ({"max_rounds": 3}, f"recurrence.max_rounds = 3: allowed is None {CHAIN}"),
    "warm-up": ({"burn_in": 4}, f"recurrence.burn_in = 4: allowed is 0 {CHAIN}"),
    "codec": (
        {"halo_codec": "int8", "grid": "time=2"},
        f"recurrence.halo_codec = 'int8': allowed is none {CHAIN}",
    ),
    # How the work is cut.
    "chunks": (
        {"method": "picard", "chunks": 2},
        "parallel.chunks = 2: allowed is 1 with method picard, which has segments (--fold)",
    ),
    "tensor": (
        {"method": "gateprod", "grid": "time=2,tensor=2"},
        "parallel.grid = 'time=2,tensor=2': allowed is the axes data, pipeline and time with method gateprod",
    ),
    "backend": (
        {"method": "auto", "backend": "torch"},
        "machine.backend = 'torch': allowed is numpy or cupy, or a list with one of them, with auto",
    ),
    "segments shorter than a step": (
        {"method": "picard", "fold": 41},
        "recurrence.fold = 41: allowed is at most seq (40): a segment has at least one step",
    ),
    "and on time ranks": (
        {"method": "auto", "fold": 14, "grid": "time=3"},
        "recurrence.fold = 14: allowed is at most the 13 steps of a time rank: a segment has at least one step",
    ),
    # What a method is for.
    "scan": (
        {"method": "scan", "cell": "gru"},
        "recurrence.method = 'scan': allowed is another one with cell gru; scan is exact for linear cells",
    ),
    "deer": (
        {"method": "deer", "hidden": 65, "cell": "lstm", "fold": 4},
        (
            "model.hidden = 65: allowed is at most 64 with method deer: 20 Jacobians of 130 by 130 take 14.18 MiB "
            "a layer and 130 backward passes a round"
        ),
    ),
    "deer in float64": (
        {"method": "deer", "hidden": 128, "cell": "gru", "dtype": "float64"},
        (
            "model.hidden = 128: allowed is at most 64 with method deer: 5 Jacobians of 128 by 128 take 8.75 MiB "
            "a layer and 128 backward passes a round"
        ),
    ),
    # Numbers.
    "tolerance": (
        {"method": "picard", "tolerance": 4e-7},
        (
            "recurrence.tolerance = 4e-07: allowed is at least 4.8e-07 in float32, whose rounding keeps trajectories "
            "that far apart"
        ),
    ),
    "tolerance in float64": (
        {"method": "auto", "tolerance": 1e-16, "dtype": "float64"},
        (
            "recurrence.tolerance = 1e-16: allowed is at least 8.9e-16 in float64, whose rounding keeps trajectories "
            "that far apart"
        ),
    ),
    "one round": (
        {"method": "tbptt_zero", "max_rounds": 2},
        "recurrence.max_rounds = 2: allowed is nothing with tbptt_zero: it has one",
    ),
    "no warm-up": (
        {"method": "burnin", "fold": 4},
        "recurrence.burn_in = 0: allowed is 1 to 10 (the steps of a segment) with burnin",
    ),
    "too long a warm-up": (
        {"method": "picard", "fold": 3, "grid": "time=2", "burn_in": 7},
        "recurrence.burn_in = 7: allowed is at most the 6 steps of a segment",
    ),
    "a warm-up of nothing": (
        {"method": "tbptt_stale", "burn_in": 1},
        "recurrence.burn_in = 1: allowed is 0 with tbptt_stale",
    ),
    "nothing to compress": (
        {"method": "picard", "fold": 4, "halo_codec": "float16", "grid": "data=2"},
        "recurrence.halo_codec = 'float16': allowed is none on a grid with time=1: no halo crosses ranks",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_with_what_would(overrides, message):
    with pytest.raises(SpecError) as raised:
        check(overrides)
    assert str(raised.value) == message


def test_a_grid_is_resolved_only_for_a_method_that_fits():
    with pytest.raises(SpecError, match=r"recurrence\.fold = 2"):
        resolve_grid(build_spec({}, {**SIZES, "fold": 2}), 1)
    assert resolve_grid(build_spec({}, {**SIZES, "fold": 2, "method": "picard"}), 1) == Grid(data=1)


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_tolerances_are_positive_numbers(value):
    with pytest.raises(SpecError, match=r"recurrence\.tolerance"):
        build_spec({}, {"tolerance": float(value)})


@pytest.mark.parametrize("method", ["newton", "Picard", ""])
def test_an_unknown_method_is_refused_with_all_there_are(method):
    with pytest.raises(SpecError) as raised:
        build_spec({}, {"method": method})
    assert all(name in str(raised.value) for name in EVERY_METHOD)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_is_what_rounding_alone_separates_from_the_chain(dtype):
    tight = 4 * least_tolerance(dtype)

    def exact(method, **settings):
        return is_exact(RecurrenceSpec(method=method, **{"tolerance": tight, **settings}), dtype)

    for method in CORRECTED:
        assert exact(method)
        assert exact(method, tolerance=least_tolerance(dtype))
        assert not exact(method, max_rounds=5)
        assert not exact(method, halo_codec="bfloat16")
        assert exact(method, tolerance=1.01 * tight) == (method == "scan")
    assert not any(exact(method) for method in INEXACT)
    assert exact("chain", tolerance=1.0)


def test_the_default_tolerance_is_exact_in_single_precision():
    assert is_exact(msgspec.structs.replace(RecurrenceSpec(), method="picard"), "float32")
    assert not is_exact(msgspec.structs.replace(RecurrenceSpec(), method="picard"), "float64")
