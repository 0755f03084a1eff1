"""The proof beside every timing: this way of running computes what a float64 serial run computes.

Before a case is timed, its own schedule runs one step, at a size a serial run can check, from random initial
states and with random gradients of the final states.  Loss, final states and every gradient are compared
with a float64 serial NumPy run.  The yardstick is what the serial run *in the same dtype* loses against
float64: a way of splitting the work may lose :data:`FACTOR` times that, and no more.

Nothing is trusted unseen.  The reference is checked by directional finite differences, so that a mistake in
the mathematics cannot hide in both.  The yardstick may not exceed :data:`YARDSTICK_CAP` times what rounding the
parameters once does to the result: a problem that amplifies rounding has a long yardstick, a broken kernel has not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hpcrnn.backends.base import Outcome, Part, state_names
from hpcrnn.benchmarks.planning import Plan, make_plan
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.world import World
from hpcrnn.model.network import Network, initial_parameters
from hpcrnn.records.record import Check, Status, Verdict
from hpcrnn.recurrence import CORRECTED, INEXACT, is_exact
from hpcrnn.spec import BackendName, Grid, MachineSpec, ParallelSpec, RecurrenceSpec, RunSpec
from hpcrnn.workloads import Workload, open_workload

Array = npt.NDArray[Any]

FACTOR = 4.0
"""An exact strategy may lose this many times what the serial run in the same dtype loses."""

YARDSTICK_CAP = 32.0
"""The serial run commits a rounding error at every step, not one: room for that, and not for a mistake."""

FULL_SIZE_FLOPS = 5e9
"""Up to this many operations a step, the check runs at the full size: about a second in all."""

Boundary = tuple[dict[str, Array], dict[str, Array]]
"""Initial states and gradients of the final states, of the whole batch."""

_VANISHED = 1e-2
"""A gradient of an initial state smaller than this share of the largest of a parameter is compared with that share: on
its way through time it may vanish altogether, and nothing is left to be right about."""

_WITHIN = 100.0
"""A method exact to a tolerance may be off by so many of it before it is called wrong: dropped corrections add up."""

_SEGMENT_STEPS = 32
"""Steps of a segment at the least, where segments run at once: about what a corrected trajectory needs to meet."""

_STEPS = (1e-4, 1e-5, 1e-6)
"""Of a finite difference: the shorter ones for losses so curved, by a long memory, that the first cuts corners."""

_DIFFERENCE_TOLERANCE = {"tanh": 1e-6, "relu": 1e-4}  # relu has kinks, and a step may cross one


def floor(dtype: str) -> float:
    """Smallest error worth holding against a run.

    In float32 two units in the last place: a serial run may be lucky.  In float64 the reference *is* the
    serial run, so its own error is unknown: 64 units leave room for another order of summation.
    """
    eps = float(np.finfo(dtype).eps)
    return 2 * eps if dtype == "float32" else 64 * eps


@dataclass(frozen=True)
class Way:
    """One way of running a problem.

    Attributes
    ----------
    backend : {"numpy", "torch"}
    spec : RunSpec
        With its grid resolved.
    """

    backend: BackendName
    spec: RunSpec

    @property
    def grid(self) -> Grid:
        """Ranks per axis."""
        return self.spec.parallel.grid or Grid()

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.grid.n_ranks

    @property
    def method(self) -> str:
        """How segments of time come to the states they start from."""
        return self.spec.recurrence.method

    @property
    def n_segments(self) -> int:
        """Segments of time that run at once, over all ranks; 1 with method ``chain``."""
        return 1 if self.method == "chain" else self.grid.time * self.spec.recurrence.fold

    @property
    def is_serial(self) -> bool:
        """Whether this is the serial run of the problem."""
        return self.n_ranks == 1 and self.method == "chain"

    def plan(self, workload: Workload) -> Plan:
        """Lay the problem out."""
        return make_plan(self.spec, workload, self.grid)


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


def verify(ways: Sequence[Way], workload: Workload, world: World) -> dict[Way, Verdict]:
    """Verify several ways of running one problem.

    Every rank calls this with the same arguments.

    Parameters
    ----------
    ways : sequence of Way
        Of the same problem, each on one rank or on all.
    workload : Workload
        Of the full size.
    world : World
    """
    small, size = checked_spec(ways, workload)
    small_workload = open_workload(small)
    boundary = _random_boundary(Way("numpy", small).plan(small_workload).network, small)

    trusted = world.on_root(lambda: _trusted_outcomes(small, small_workload, boundary, world))
    verdicts: dict[Way, Verdict] = {}
    for way in ways:
        checked = Way(
            way.backend, msgspec.structs.replace(small, parallel=way.spec.parallel, recurrence=way.spec.recurrence)
        )
        parts = _run_on_all(checked, small_workload, boundary, world)

        def judge(parts: Sequence[tuple[int, Part]] = parts, way: Way = way) -> Verdict:
            outcome, agreement = assemble(parts, trusted.reference)
            compared = compare(outcome, trusted, small)
            others = list(trusted.checks)
            if way.n_ranks > 1 and small.training.mode != "forward":
                tolerance = FACTOR * floor(small.model.dtype)
                others.append(Check("gradient agreement of ranks", agreement, 0.0, tolerance))
            return Verdict(_status(way, compared, others), size, FACTOR, tuple(compared + others))

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
        executor = plan.executor(rank, way.backend, world.communicators(way.grid))
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


def _random_boundary(network: Network, spec: RunSpec) -> Boundary:
    """Draw initial states and gradients of the final states, for the whole batch."""
    rng = np.random.default_rng(np.random.SeedSequence((spec.problem.seed, 0xB0)))
    batch, dtype = spec.problem.batch, spec.model.dtype
    scale = 1.0 / (batch * spec.problem.seq)
    initial, cotangent = {}, {}
    for block in network.blocks:
        if block.cell is not None:
            for name in state_names(block.name, block.cell.state_names):
                initial[name] = 0.5 * rng.standard_normal((batch, block.outputs)).astype(dtype)
                cotangent[name] = scale * rng.standard_normal((batch, block.outputs)).astype(dtype)
    return initial, cotangent


def run_once(executor: Executor, plan: Plan, rank: int, workload: Workload, boundary: Boundary) -> Part:
    """Run the first step of a plan on one rank, between given boundary states; return what it computed."""
    rows = plan.rows(rank)
    initial, cotangent = boundary
    engine = executor.engine
    engine.set_boundary({k: v[rows] for k, v in initial.items()}, {k: v[rows] for k, v in cotangent.items()})
    if plan.spec.recurrence.method == "tbptt_stale":  # what it starts from is what a step on other data left
        engine.load_batch(workload.batch(1, rows))
        executor.run()
        engine.load_parameters(initial_parameters(plan.network, plan.spec.problem.seed))
    engine.load_batch(workload.batch(0, rows))
    executor.run()
    return engine.part()


def run_alone(executor: Executor, plan: Plan, workload: Workload, boundary: Boundary) -> Outcome:
    """As :func:`run_once` on a plan of one rank, which knows the whole outcome."""
    part = run_once(executor, plan, 0, workload, boundary)
    return Outcome(part.loss, {name: piece.value for name, piece in part.pieces.items()})


@dataclass(frozen=True)
class Trusted:
    """What a run is held against.

    Attributes
    ----------
    reference : Outcome
        Of the float64 serial run.
    yardstick : Outcome
        Of the serial run in the dtype under test.
    perturbed : Outcome
        Of a float64 serial run whose parameters were rounded to the dtype under test once more.
    checks : list of Check
        Finite differences of the reference.
    loss_size : float
        What an error of the loss is relative to.
    """

    reference: Outcome
    yardstick: Outcome
    perturbed: Outcome
    checks: list[Check]
    loss_size: float


def _trusted_outcomes(spec: RunSpec, workload: Workload, boundary: Boundary, world: World) -> Trusted:
    """Run the float64 reference, the finite differences that check it, and the yardstick."""
    exact = msgspec.structs.replace(
        spec,
        model=msgspec.structs.replace(spec.model, dtype="float64"),
        parallel=SERIAL,
        recurrence=RecurrenceSpec(),
        machine=MachineSpec(gemm="numpy", threads=spec.machine.threads),
    )
    plan, alone = Way("numpy", exact).plan(workload), world.communicators(Grid())
    executor = plan.executor(0, "numpy", alone)
    parameters = _rounded_parameters(plan.network, spec)
    executor.engine.load_parameters(parameters)
    reference = run_alone(executor, plan, workload, boundary)
    checks = difference_checks(exact, parameters, reference, workload, boundary, world)
    size = abs(reference.loss)
    if plan.network.loss == "linear":
        # An inner product with random signs cancels: its error is relative to the terms' root-sum-square.
        steps = spec.problem.seq * spec.problem.batch
        size = max(size, (steps * spec.model.hidden) ** 0.5 / steps)
    if spec.model.dtype == "float64":
        return Trusted(reference, reference, reference, checks, size)
    rng = np.random.default_rng(np.random.SeedSequence((spec.problem.seed, 0xE5)))
    eps = float(np.finfo(spec.model.dtype).eps)
    noisy = {name: value * (1 + eps * rng.choice((-0.5, 0.5), value.shape)) for name, value in parameters.items()}
    executor.engine.load_parameters(noisy)
    perturbed = run_alone(executor, plan, workload, boundary)
    serial_plan = Way("numpy", msgspec.structs.replace(spec, parallel=SERIAL)).plan(workload)
    yardstick = run_alone(serial_plan.executor(0, "numpy", alone), serial_plan, workload, boundary)
    return Trusted(reference, yardstick, perturbed, checks, size)


SERIAL = ParallelSpec(grid=Grid())
"""The parallel section of the serial run of a problem: in one piece, as fast as it can be."""


def _rounded_parameters(network: Network, spec: RunSpec) -> dict[str, Array]:
    """The values the run under test starts from: float64 parameters rounded to its dtype.

    Inputs and states are rounded too, so that what is compared is arithmetic alone.
    """
    parameters = initial_parameters(network, spec.problem.seed)
    return {name: value.astype(spec.model.dtype).astype(np.float64) for name, value in parameters.items()}


def compare(outcome: Outcome, trusted: Trusted, spec: RunSpec) -> list[Check]:
    """Compare everything a step computed with the reference.

    Parameters
    ----------
    outcome : Outcome
        Of the run under test.
    trusted : Trusted
    spec : RunSpec

    Returns
    -------
    list of Check
    """
    lowest = floor(spec.model.dtype)
    reference, yardstick, perturbed = trusted.reference, trusted.yardstick, trusted.perturbed

    def check(quantity: str, error: float, serial_error: float, sensitivity: float) -> Check:
        allowed = min(serial_error, YARDSTICK_CAP * max(sensitivity, lowest))
        return Check(quantity, error, serial_error, FACTOR * max(allowed, lowest))

    loss_errors = (abs(run.loss - reference.loss) / trusted.loss_size for run in (outcome, yardstick, perturbed))
    checks = [check("loss", *loss_errors)]
    gradients = [a for name, a in reference.arrays.items() if name.startswith("gradient ")]
    vanished = _VANISHED * max((float(np.linalg.norm(a)) for a in gradients), default=0.0)
    for name, exact in reference.arrays.items():
        least = vanished if name.startswith("d ") else 0.0
        errors = [_error_of(run.arrays, name, exact, least) for run in (outcome, yardstick, perturbed)]
        checks.append(check(name, *errors))
    return checks


def _error_of(found: Mapping[str, Array], name: str, exact: Array, least: float) -> float:
    return relative_error(found[name], exact, least) if name in found else float("nan")


def relative_error(found: Array, exact: Array, least: float = 0.0) -> float:
    """``|found - exact| / |exact|`` in the 2-norm, of an ``|exact|`` of at least ``least``; NaN of unequal shapes."""
    if found.shape != exact.shape:
        return float("nan")
    difference = float(np.linalg.norm((found.astype(np.float64) - exact).ravel()))
    size = max(float(np.linalg.norm(exact.ravel())), least)
    return difference / size if size > 0 else difference


def difference_checks(
    spec: RunSpec,
    parameters: Mapping[str, Array],
    reference: Outcome,
    workload: Workload,
    boundary: Boundary,
    world: World,
) -> list[Check]:
    """Check each parameter's reference gradient by a central difference of the loss along one direction.

    The direction is the claimed gradient plus a random vector of the same length: the first makes the
    derivative large, the second sees components that are missing from the claim.
    """
    forward = msgspec.structs.replace(spec, training=msgspec.structs.replace(spec.training, mode="forward"))
    plan = Way("numpy", forward).plan(workload)
    executor = plan.executor(0, "numpy", world.communicators(Grid()))
    rng = np.random.default_rng(np.random.SeedSequence((spec.problem.seed, 0xD1)))
    relu = spec.model.cell == "elman" and spec.model.activation == "relu"
    tolerance = _DIFFERENCE_TOLERANCE["relu" if relu else "tanh"]
    checks = []
    gradients = {
        name.removeprefix("gradient "): a for name, a in reference.arrays.items() if name.startswith("gradient ")
    }
    for name, gradient in gradients.items():
        length = float(np.linalg.norm(gradient)) or 1.0
        noise = rng.standard_normal(gradient.shape)
        direction = gradient / length + noise / np.linalg.norm(noise)
        claimed = float(np.sum(gradient * direction))

        def error(
            step: float, name: str = name, direction: Array = direction, claimed: float = claimed, size: float = length
        ) -> float:
            objectives = []
            for sign in (1, -1):
                executor.engine.load_parameters({**parameters, name: parameters[name] + sign * step * direction})
                objectives.append(_objective(run_alone(executor, plan, workload, boundary), boundary))
            return abs((objectives[0] - objectives[1]) / (2 * step) - claimed) / size

        found = error(_STEPS[0])
        for step in _STEPS[1:]:
            found = found if found <= tolerance else min(found, error(step))
        checks.append(Check(f"finite difference {name}", found, 0.0, tolerance))
    return checks


def _objective(outcome: Outcome, boundary: Boundary) -> float:
    """Loss plus the inner product of the final states with their given gradients."""
    _, cotangent = boundary
    return outcome.loss + sum(float(np.sum(outcome.arrays[f"state {name}"] * c)) for name, c in cotangent.items())
