"""What a run is held against: a serial run in float64, which is itself checked by finite differences.

A mistake in the mathematics would be in the run and in its reference alike, and would not show; differences of the
loss along a direction do not share it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from hpcrnn.backends.base import Array, Outcome
from hpcrnn.benchmarks.one_step import Boundary, run_alone
from hpcrnn.benchmarks.ways import SERIAL, Way
from hpcrnn.execution.world import World
from hpcrnn.model.network import Network, initial_parameters
from hpcrnn.records.record import Check
from hpcrnn.spec import Grid, MachineSpec, Precision, RecurrenceSpec, RunSpec
from hpcrnn.workloads import Workload

_STEPS = (1e-4, 1e-5, 1e-6)
"""Of a finite difference: the shorter ones for losses so curved, by a long memory, that the first cuts corners."""

_DIFFERENCE_TOLERANCE = {"tanh": 1e-6, "relu": 1e-4}  # relu has kinks, and a step may cross one


EPS: dict[Precision, float] = {"float32": 2.0**-23, "tf32": 2.0**-10, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""From one to the next number."""


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
    coarse : dict of Precision to Outcome
        The same, rounded to each other precision under test: of those there is no serial run on the host.
    checks : list of Check
        Finite differences of the reference.
    loss_size : float
        What an error of the loss is relative to.
    """

    reference: Outcome
    yardstick: Outcome
    perturbed: Outcome
    coarse: dict[Precision, Outcome]
    checks: list[Check]
    loss_size: float


def trusted_outcomes(
    spec: RunSpec, precisions: Collection[Precision], workload: Workload, boundary: Boundary, world: World
) -> Trusted:
    """Run the float64 reference, the finite differences that check it, and the yardstick; on one rank.

    Parameters
    ----------
    spec : RunSpec
        Of the size to check at.
    precisions : collection of Precision
        Those under test.
    workload : Workload
    boundary : Boundary
    world : World
    """
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
        return Trusted(reference, reference, reference, {}, checks, size)

    def perturbed_by(eps: float) -> Outcome:
        rng = np.random.default_rng(np.random.SeedSequence((spec.problem.seed, 0xE5)))
        noisy = {name: value * (1 + eps * rng.choice((-0.5, 0.5), value.shape)) for name, value in parameters.items()}
        executor.engine.load_parameters(noisy)
        return run_alone(executor, plan, workload, boundary)

    coarse: dict[Precision, Outcome] = {p: perturbed_by(EPS[p]) for p in precisions if p != "float32"}
    perturbed = perturbed_by(EPS["float32"])
    serial_plan = Way("numpy", msgspec.structs.replace(spec, parallel=SERIAL)).plan(workload)
    yardstick = run_alone(serial_plan.executor(0, "numpy", alone), serial_plan, workload, boundary)
    return Trusted(reference, yardstick, perturbed, coarse, checks, size)


def _rounded_parameters(network: Network, spec: RunSpec) -> dict[str, Array]:
    """The values the run under test starts from: float64 parameters rounded to its dtype.

    Inputs and states are rounded too, so that what is compared is arithmetic alone.
    """
    parameters = initial_parameters(network, spec.problem.seed)
    return {name: value.astype(spec.model.dtype).astype(np.float64) for name, value in parameters.items()}


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
