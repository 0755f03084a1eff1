"""The proof beside every timing: this way of running computes what a float64 serial run computes.

Before a case is timed, its own schedule runs one step, at a size a serial run can check, from random initial
states and with random gradients of the final states.  Loss, final states and every gradient are compared with a float64
serial NumPy run (:mod:`hpcrnn.benchmarks.reference`), by a yardstick (:mod:`hpcrnn.benchmarks.comparison`).  Nothing is
trusted unseen: finite differences check the reference, and the yardstick has an end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from hpcrnn.backends.base import Array, Outcome, Part
from hpcrnn.benchmarks.comparison import FACTOR, compare, factor, floor, relative_error
from hpcrnn.benchmarks.one_step import Boundary, random_boundary, run_once
from hpcrnn.benchmarks.reference import trusted_outcomes
from hpcrnn.benchmarks.ways import Way
from hpcrnn.execution.world import World
from hpcrnn.records.record import Check, Status, Verdict
from hpcrnn.recurrence import CORRECTED, INEXACT, is_exact
from hpcrnn.spec import RecurrenceSpec, RunSpec
from hpcrnn.workloads import Workload, open_workload

FULL_SIZE_FLOPS = 5e9
"""Up to this many operations a step, the check runs at the full size: about a second in all."""

_WITHIN = 100.0
"""A method exact to a tolerance may be off by so many of it before it is called wrong: dropped corrections add up."""

_SEGMENT_STEPS = 32
"""Steps of a segment at the least, where segments run at once: about what a corrected trajectory needs to meet."""


def checked_spec(ways: Sequence[Way], workload: Workload) -> tuple[RunSpec, str]:
    """Choose the size to check at: the full one where that is cheap, else a smaller one that can be cut the same ways.

    Parameters
    ----------
    ways : sequence of Way
        Of one problem.
    workload : Workload

    Returns
    -------
    spec : RunSpec
    description : str
    """
    # Clipping would change the gradients that are to be compared.
    spec = msgspec.structs.replace(ways[0].spec, recurrence=RecurrenceSpec())
    spec = msgspec.structs.replace(spec, training=msgspec.structs.replace(spec.training, clip=None))
    if Way("numpy", spec).plan(workload).flops() <= FULL_SIZE_FLOPS:
        return spec, "full size"
    parts = max(way.grid.data * way.spec.parallel.microbatches for way in ways)
    chunks = max(way.grid.time * way.spec.parallel.chunks for way in ways)
    shards = max(way.grid.tensor for way in ways)
    segments = max(way.n_segments for way in ways)
    problem, model = spec.problem, spec.model
    # Keep the remainders: an uneven split stays uneven.
    batch = min(problem.batch, 2 * parts + problem.batch % parts)
    pieces = max(chunks, segments)
    least = max(2 * chunks, 12, _SEGMENT_STEPS * segments if segments > 1 else 0)
    seq = min(problem.seq, least + problem.seq % pieces)
    small = msgspec.structs.replace(spec, problem=msgspec.structs.replace(problem, batch=batch, seq=seq))
    if Way("numpy", small).plan(workload).flops() > FULL_SIZE_FLOPS:
        hidden = min(model.hidden, max(96, shards) + model.hidden % shards)
        embed = None if model.embed is None else min(model.embed, 80)
        features = None if problem.features is None else min(problem.features, 80)
        small = msgspec.structs.replace(
            small,
            model=msgspec.structs.replace(model, hidden=hidden, embed=embed),
            problem=msgspec.structs.replace(small.problem, features=features),
        )
    size = f"B{small.problem.batch} T{small.problem.seq} H{small.model.hidden} L{small.model.layers}"
    return small, f"reduced to {size}"


def _unseen(name: str) -> None:
    """Show nothing."""


def verify(
    ways: Sequence[Way], workload: Workload, world: World, begin: Callable[[str], None] = _unseen
) -> dict[Way, Verdict]:
    """Verify several ways of running one problem.

    Every rank calls this with the same arguments.

    Parameters
    ----------
    ways : sequence of Way
        Of the same problem, each on one rank or on all.
    workload : Workload
        Of the full size.
    world : World
    begin : callable
        Hears what is run next: the name of a way, or of what they are held against.
    """
    small, size = checked_spec(ways, workload)
    small_workload = open_workload(small)
    boundary = random_boundary(Way("numpy", small).plan(small_workload).network, small)

    precisions = sorted({way.spec.machine.precision for way in ways})
    begin("the float64 reference")
    trusted = world.on_root(lambda: trusted_outcomes(small, precisions, small_workload, boundary, world))
    verdicts: dict[Way, Verdict] = {}
    for way in ways:
        begin(way.name)
        own = way.spec
        reduced = msgspec.structs.replace(small, parallel=own.parallel, recurrence=own.recurrence, machine=own.machine)
        checked = Way(way.backend, reduced, way.layout)
        parts = _run_on_all(checked, small_workload, boundary, world)

        def judge(parts: Sequence[tuple[int, Part]] = parts, way: Way = way, spec: RunSpec = reduced) -> Verdict:
            outcome, agreement = assemble(parts, trusted.reference)
            compared = compare(outcome, trusted, spec)
            others = list(trusted.checks)
            if way.n_ranks > 1 and small.training.mode != "forward":
                tolerance = FACTOR * floor(small.model.dtype)
                others.append(Check("gradient agreement of ranks", agreement, 0.0, tolerance))
            return Verdict(_status(way, compared, others), size, factor(spec), tuple(compared + others))

        verdicts[way] = world.on_root(judge)
    return verdicts


def _status(way: Way, compared: Sequence[Check], others: Sequence[Check]) -> Status:
    """Judge a way: of one that is inexact by nature, or was allowed to be, the errors need not be small, but known."""
    if not all(check.passed for check in others):
        return "INVALID"
    if all(check.passed for check in compared) and way.method not in INEXACT:
        return "VALID"
    if is_exact(way.spec.recurrence, way.spec.model.dtype):
        # What a small tolerance costs may still be more than rounding does; a mistake would cost more than that.
        limit = _WITHIN * way.spec.recurrence.tolerance if way.method in CORRECTED else 0.0
    else:
        limit = np.inf
    return "APPROXIMATE" if all(check.error < limit for check in compared if not check.passed) else "INVALID"


def _run_on_all(way: Way, workload: Workload, boundary: Boundary, world: World) -> Sequence[tuple[int, Part]]:
    """Run one step on all ranks that take part; on rank 0 return the first row and the part of each."""
    part: tuple[int, Part] | None = None
    if way.n_ranks > 1 or world.is_root:
        plan, rank = way.plan(workload), world.rank if way.n_ranks > 1 else 0
        executor = plan.executor(rank, way.backend_of(rank), world.communicators(way.grid))
        part = plan.rows(rank).start, run_once(executor, plan, rank, workload, boundary)
    gathered = world.comm.gather(part) if way.n_ranks > 1 else [part]
    return [found for found in gathered or () if found is not None]


def assemble(parts: Sequence[tuple[int, Part]], like: Outcome) -> tuple[Outcome, float]:
    """Put what the ranks know together.

    Parameters
    ----------
    parts : sequence of (int, Part)
        First row of each rank, and its part.
    like : Outcome
        Gives the shapes.

    Returns
    -------
    outcome : Outcome
        NaN where no rank knows a value.
    disagreement : float
        Largest relative difference between two ranks that know the same part of a gradient.
    """
    arrays: dict[str, Array] = {name: np.full(array.shape, np.nan) for name, array in like.arrays.items()}
    disagreement = 0.0
    for first_row, part in parts:
        for name, piece in part.pieces.items():
            if name not in arrays:
                continue
            index = piece.index
            if not name.startswith("gradient "):
                index = (slice(index[0].start + first_row, index[0].stop + first_row), *index[1:])
            known = arrays[name][index]
            if known.shape != piece.value.shape:
                arrays[name] = np.full(0, np.nan)  # a wrong shape is a wrong result
            elif np.isnan(known).all():
                arrays[name][index] = piece.value
            else:
                disagreement = max(disagreement, relative_error(piece.value, known))
    return Outcome(parts[0][1].loss, arrays), disagreement
