"""A leg: the steps between two meetings of all ranks.

Ranks meet at its start and at its end, not between.  Most methods sum gradients in every step, so that their ranks
are together anyway: their legs are one step long.  A method whose ranks go their own ways for a while is measured over
a leg as long as that while, and a step of it takes the leg's time over the leg's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from hpcrnn.execution.executor import Executor
from hpcrnn.records.record import PHASES, FloatArray
from hpcrnn.workloads import Batch


@dataclass(frozen=True, eq=False)
class Leg:
    """What a rank knows of a leg it ran.

    Attributes
    ----------
    times_s : float64 array (3, n_phases)
        Seconds of each phase by the clock, by the device's clock and of CPU time, means over the steps; NaN where
        there is no device.
    loss : float
        Mean over the steps of what the rank's engine calls the loss.
    gradient_norm : float
        Of the last step.
    sent_bytes : int
        What the rank sent in all steps together.
    """

    times_s: FloatArray
    loss: float
    gradient_norm: float
    sent_bytes: int


def run_leg(executor: Executor, batches: Sequence[Batch], meet: Callable[[], None]) -> Leg:
    """Run a leg on this rank.

    The first batch is loaded before the clock starts, as it is where every step is a leg; those after it are loaded
    while the clock runs, and the phase ``other`` holds that.

    Parameters
    ----------
    executor : Executor
    batches : sequence of Batch
        One a step, at least one.
    meet : callable
        Returns when all ranks have come.
    """
    engine = executor.engine
    engine.load_batch(batches[0])
    meet()
    start = perf_counter()
    times, losses, sent_bytes = np.zeros((3, len(PHASES))), [], 0
    # Numbers that are not finite are looked for; NumPy need not say so as well.
    with np.errstate(over="ignore", invalid="ignore"):
        for step, batch in enumerate(batches):
            if step:
                engine.load_batch(batch)
            times += executor.run(), device_times(engine.device_seconds), executor.cpu_s
            losses.append(engine.loss)
            sent_bytes += executor.sent_bytes
    n_steps = len(batches)
    if n_steps > 1:
        times[0, 0] = perf_counter() - start
        times[0, -1] = times[0, 0] - times[0, 1:-1].sum()
    return Leg(times / n_steps, sum(losses) / n_steps, executor.gradient_norm, sent_bytes)


def device_times(seconds: Mapping[str, float]) -> FloatArray:
    """Set what a device measured of some phases in the order of all; NaN stands for the others.

    Parameters
    ----------
    seconds : mapping of str to float
        As :attr:`~hpcrnn.backends.base.Engine.device_seconds` has it.

    Returns
    -------
    float64 array (n_phases,)
    """
    row = np.full(len(PHASES), np.nan)
    for phase, spent_s in seconds.items():
        row[PHASES.index(phase)] = spent_s
    return row
