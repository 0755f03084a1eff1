"""The proof beside every timing: this way of running computes what a float64 serial run computes.

Before a case is timed, its own schedule runs one step, at a size a serial run can check, from random initial
states and with random gradients of the final states.  Loss, final states and every gradient are compared with a float64
serial NumPy run (:mod:`hpcrnn.benchmarks.reference`), by a yardstick (:mod:`hpcrnn.benchmarks.comparison`).  Nothing is
trusted unseen: finite differences check the reference, and the yardstick has an end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from hpcrnn.backends.base import Array, Outcome, Part
from hpcrnn.benchmarks.comparison import FACTOR, compare, factor, floor, relative_error
from hpcrnn.benchmarks.one_step import Boundary, random_boundary, run_once
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.benchmarks.reference import Trusted, trusted_outcomes
from hpcrnn.benchmarks.replicas import GRADIENT, PieceOfWorkload, as_parts_of_one_step, disagreement, shared_boundary
from hpcrnn.benchmarks.ways import Way
from hpcrnn.data_methods import AVERAGED, EXACT, INDEPENDENT
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.world import World
from hpcrnn.model.network import initial_parameters
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
    chunks = max(_pieces_of_time(way) * way.spec.parallel.chunks for way in ways)
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


def _pieces_of_time(way: Way) -> int:
    """Pieces that the ranks cut every row into."""
    return way.grid.data if way.spec.parallel.data_method == "subsequence" else way.grid.time


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
        found = _run_on_all(checked, small_workload, boundary, world)

        def judge(found: Sequence[Found] = found, way: Way = way, checked: Way = checked) -> Verdict:
            if checked.plan(small_workload).cut.pieces:
                compared, others = _against_own_pieces(checked, found, small_workload, boundary, world)
            else:
                compared, others = _against_one_step(checked.plan(small_workload), found, trusted)
            return Verdict(_status(way, compared, others), size, factor(checked.spec), (*compared, *others))

        verdicts[way] = world.on_root(judge)
    return verdicts


def _against_one_step(plan: Plan, found: Sequence[Found], trusted: Trusted) -> tuple[list[Check], list[Check]]:
    """Compare what the ranks computed together with the serial step; and the ranks with one another."""
    parts = as_parts_of_one_step(plan, [one.part for one in found])
    rows = [one.first_row for one in found]
    outcome, agreement = assemble(list(zip(rows, parts, strict=True)), trusted.reference)
    others, tolerance = list(trusted.checks), FACTOR * floor(plan.spec.model.dtype)
    if plan.n_ranks > 1 and plan.spec.training.mode != "forward":
        others.append(Check("gradient agreement of ranks", agreement, 0.0, tolerance))
    models = [one.model for one in found if one.model is not None]
    if models:
        others.append(Check("parameter agreement of ranks", disagreement(models), 0.0, tolerance))
    compared = compare(outcome, trusted, plan.spec)
    held = [one.held_back for one in found if one.held_back is not None]
    if held:
        whole = compare(_with_what_is_held_back(outcome, held), trusted, plan.spec)
        others += [replace(c, quantity=f"with what is held back, {c.quantity}") for c in whole if _is_gradient(c)]
        compared = [replace(c, tolerance=np.inf) if _is_gradient(c) else c for c in compared]
    return compared, others


def _is_gradient(check: Check) -> bool:
    return check.quantity.startswith(GRADIENT)


def _with_what_is_held_back(outcome: Outcome, held: Sequence[Mapping[str, Array]]) -> Outcome:
    """What a codec applied and what it holds back on all ranks, which is the gradient whatever the codec."""
    whole = {name: outcome.arrays[name] + sum(own[name].astype(np.float64) for own in held) for name in held[0]}
    return Outcome(outcome.loss, outcome.arrays | whole)


def _against_own_pieces(
    way: Way, found: Sequence[Found], workload: Workload, boundary: Boundary, world: World
) -> tuple[list[Check], list[Check]]:
    """Compare each rank with a serial float64 run on its own piece of every row; of all ranks the worst counts."""
    plan = way.plan(workload)
    compared: dict[str, Check] = {}
    others: dict[str, Check] = {}
    for rank, one in enumerate(found):
        chunks = plan.cut.chunks_of(plan.place(rank))
        piece = slice(chunks[0].start, chunks[-1].stop)
        problem = msgspec.structs.replace(way.spec.problem, seq=piece.stop - piece.start)
        spec = msgspec.structs.replace(way.spec, problem=problem)
        trusted = trusted_outcomes(spec, (), PieceOfWorkload(workload, piece), boundary, world)
        outcome = Outcome(one.part.loss, {name: piece.value for name, piece in one.part.pieces.items()})
        for worst, checks in ((compared, compare(outcome, trusted, way.spec)), (others, trusted.checks)):
            for check in checks:
                before = worst.get(check.quantity, check)
                worst[check.quantity] = max(before, check, key=lambda c: _nan_last(c.error / c.tolerance))
    return list(compared.values()), list(others.values())


def _nan_last(value: float) -> float:
    """Order a value so that one that is not a number is the worst."""
    return np.inf if np.isnan(value) else value


def _status(way: Way, compared: Sequence[Check], others: Sequence[Check]) -> Status:
    """Judge a way: of one that is inexact by nature, or was allowed to be, the errors need not be small, but known.

    A data method that is inexact computes right gradients, of its own rows, and then does something else with them.
    What a codec applies may be off by anything that is known; with what is held back it is the gradient.
    """
    if not all(check.passed for check in others):
        return "INVALID"
    if way.compresses:
        return "APPROXIMATE" if all(c.passed and np.isfinite(c.error) for c in compared) else "INVALID"
    if all(check.passed for check in compared) and way.method not in INEXACT:
        return "VALID" if way.n_ranks == 1 or way.spec.parallel.data_method in EXACT else "APPROXIMATE"
    if is_exact(way.spec.recurrence, way.spec.model.dtype):
        # What a small tolerance costs may still be more than rounding does; a mistake would cost more than that.
        limit = _WITHIN * way.spec.recurrence.tolerance if way.method in CORRECTED else 0.0
    else:
        limit = np.inf
    return "APPROXIMATE" if all(check.error < limit for check in compared if not check.passed) else "INVALID"


@dataclass(frozen=True)
class Found:
    """What one rank found in one step.

    Attributes
    ----------
    first_row : int
    part : Part
    model : dict of str to array, or None
        Its parameters after the step, where all ranks must have the same and come by them in different ways.
    held_back : dict of str to array, or None
        What its codec held back of each parameter's gradient, named as in an outcome.
    """

    first_row: int
    part: Part
    model: dict[str, Array] | None
    held_back: dict[str, Array] | None


def _run_on_all(way: Way, workload: Workload, boundary: Boundary, world: World) -> Sequence[Found]:
    """Run one step on all ranks that take part; on rank 0 return what each found.

    Of a method that averages models now and then it is a step that does.
    """
    one: Found | None = None
    if way.n_ranks > 1 or world.is_root:
        plan, rank = way.plan(workload), world.rank if way.n_ranks > 1 else 0
        executor = plan.executor(rank, way.backend_of(rank), world.communicators(way.grid, plan.nodes))
        data_method = way.spec.parallel.data_method
        if data_method in INDEPENDENT:
            executor.engine.load_parameters(initial_parameters(plan.network, plan.spec.problem.seed))
        executor.n_steps = len(plan.cycle) - 1
        part = run_once(executor, plan, rank, workload, shared_boundary(plan, rank, boundary))
        model = None
        if way.n_ranks > 1 and data_method in ("parameter_server_sync", *AVERAGED):
            model = {name: piece.value for name, piece in executor.engine.parameter_pieces().items()}
        held_back = _held_back(executor, plan) if way.compresses else None
        one = Found(plan.rows(rank).start, part, model, held_back)
    gathered = world.comm.gather(one) if way.n_ranks > 1 else [one]
    return [found for found in gathered or () if found is not None]


def _held_back(executor: Executor, plan: Plan) -> dict[str, Array]:
    """What a rank's codec holds back of each parameter's gradient."""
    layout, flat = plan.cut.gradient_layout(0, len(plan.network.blocks)), executor.held_back()
    parts = zip(layout.names, layout.shapes, layout.slices, strict=True)
    return {f"{GRADIENT}{name}": flat[where].reshape(shape) for name, shape, where in parts}


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
