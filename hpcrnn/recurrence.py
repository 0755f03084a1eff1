"""Whether a method fits the problem, the grid and the numbers it works with."""

from __future__ import annotations

from hpcrnn.errors import SpecError
from hpcrnn.spec import BackendName, Grid, RecurrenceSpec, RunSpec

LINEAR_CELLS = ("mingru", "minlstm")
"""Cells whose state enters a step linearly, and elementwise."""

CORRECTED = ("picard", "gateprod", "scan", "deer")
"""Methods that go on until trajectories have met."""

INEXACT = ("tbptt_zero", "tbptt_stale", "burnin", "overlap_verified")
"""Methods that drop what crosses segments, or a part of it."""

WARMED_UP = ("burnin", "overlap_verified")
"""Methods that are nothing without a warm-up."""

SEGMENTED: tuple[BackendName, ...] = ("numpy", "cupy")
"""Backends that run segments of time at once."""

LARGEST_HIDDEN = 64
"""Hidden units up to which a segment's Jacobian is worth its price."""

_STATES_AND_GATES = {"elman": (1, 1), "gru": (1, 3), "lstm": (2, 4), "mingru": (1, 2), "minlstm": (1, 3)}

_EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
_LEAST_UNITS = 4
"""Units in the last place that two trajectories may differ by where nothing but rounding differs."""


def least_tolerance(dtype: str) -> float:
    """Return the smallest difference that rounding lets two trajectories come to."""
    return _LEAST_UNITS * _EPS[dtype]


def is_exact(recurrence: RecurrenceSpec, dtype: str) -> bool:
    """Whether what a method computes is to be held to what rounding allows."""
    if recurrence.method == "chain":
        return True
    tight = recurrence.method == "scan" or recurrence.tolerance <= 4 * least_tolerance(dtype)
    unlimited = recurrence.max_rounds is None and recurrence.halo_codec == "none"
    return recurrence.method in CORRECTED and tight and unlimited


def check_recurrence(spec: RunSpec, grid: Grid) -> None:
    """Refuse a method that does not fit.

    Raises
    ------
    SpecError
        Naming what would be allowed.
    """
    recurrence = spec.recurrence
    if recurrence.method == "chain":
        for key, value, default in (
            ("fold", recurrence.fold, 1),
            ("max_rounds", recurrence.max_rounds, None),
            ("burn_in", recurrence.burn_in, 0),
            ("halo_codec", recurrence.halo_codec, "none"),
        ):
            if value != default:
                raise SpecError(f"recurrence.{key}", value, f"{default} with method chain; more with picard and others")
        return
    _check_split(spec, grid)
    _check_method(spec)
    _check_numbers(spec, grid)


def _check_split(spec: RunSpec, grid: Grid) -> None:
    method, parallel = spec.recurrence.method, spec.parallel
    if parallel.chunks > 1:
        raise SpecError("parallel.chunks", parallel.chunks, f"1 with method {method}, which has segments (--fold)")
    if grid.tensor > 1:
        raise SpecError("parallel.grid", str(grid), f"the axes data, pipeline and time with method {method}")
    if not set(SEGMENTED) & set(spec.machine.backend):
        allowed = f"{' or '.join(SEGMENTED)}, or a list with one of them, with {method}"
        raise SpecError("machine.backend", ",".join(spec.machine.backend), allowed)
    steps = spec.problem.seq // grid.time
    if spec.recurrence.fold > steps:
        of = f"seq ({spec.problem.seq})" if grid.time == 1 else f"the {steps} steps of a time rank"
        raise SpecError("recurrence.fold", spec.recurrence.fold, f"at most {of}: a segment has at least one step")


def _check_method(spec: RunSpec) -> None:
    method, model = spec.recurrence.method, spec.model
    if method == "scan" and model.cell not in LINEAR_CELLS:
        raise SpecError(
            "recurrence.method", method, f"another one with cell {model.cell}; scan is exact for linear cells"
        )
    if method == "deer" and model.hidden > LARGEST_HIDDEN:
        n_states, n_gates = _STATES_AND_GATES[model.cell]
        segments = spec.recurrence.fold * spec.problem.batch
        n = n_states * model.hidden
        # The Jacobians, and for every unit vector what a backward step reads and writes.
        row = n + model.hidden * (3 * n_gates + 4 * n_states)
        needed = segments * n * row * (4 if model.dtype == "float32" else 8)
        raise SpecError(
            "model.hidden",
            model.hidden,
            f"at most {LARGEST_HIDDEN} with method deer: {segments} Jacobians of {n} by {n} take "
            f"{needed / 2**20:.4g} MiB a layer and {n} backward passes a round",
        )


def _check_numbers(spec: RunSpec, grid: Grid) -> None:
    recurrence, dtype = spec.recurrence, spec.model.dtype
    if recurrence.method in (*CORRECTED, "auto") and recurrence.tolerance < least_tolerance(dtype):
        least = f"at least {least_tolerance(dtype):.2g} in {dtype}, whose rounding keeps trajectories that far apart"
        raise SpecError("recurrence.tolerance", recurrence.tolerance, least)
    if recurrence.max_rounds is not None and recurrence.method not in (*CORRECTED, "auto"):
        raise SpecError("recurrence.max_rounds", recurrence.max_rounds, f"nothing with {recurrence.method}: it has one")
    segment = spec.problem.seq // grid.time // recurrence.fold
    if recurrence.method in WARMED_UP and not recurrence.burn_in:
        raise SpecError("recurrence.burn_in", 0, f"1 to {segment} (the steps of a segment) with {recurrence.method}")
    if recurrence.burn_in > segment:
        raise SpecError("recurrence.burn_in", recurrence.burn_in, f"at most the {segment} steps of a segment")
    if recurrence.burn_in and recurrence.method.startswith("tbptt"):
        raise SpecError("recurrence.burn_in", recurrence.burn_in, f"0 with {recurrence.method}")
    if recurrence.halo_codec != "none" and grid.time == 1:
        raise SpecError(
            "recurrence.halo_codec", recurrence.halo_codec, "none on a grid with time=1: no halo crosses ranks"
        )
