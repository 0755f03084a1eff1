"""The measuring loop: interleaved repetitions until the interval is narrow, decided by all ranks together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hpcrnn.backends.base import LayerSolve
from hpcrnn.errors import NumericsError
from hpcrnn.execution.compression_watch import CompressionWatch, WatchedStep
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.legs import run_leg
from hpcrnn.execution.tracing import clock_offset_ns, gather_timeline
from hpcrnn.execution.world import World
from hpcrnn.records.learning import Learning
from hpcrnn.records.record import ASKED, PHASES, FloatArray, IntArray
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.records.timeline import Timeline
from hpcrnn.spec import MeasureSpec
from hpcrnn.workloads import Batch

_WAKE_UP_S = 0.05


@dataclass(frozen=True)
class Variant:
    """One way to run the problem, among those measured side by side.

    Attributes
    ----------
    name : str
        For messages.
    n_ranks : int
        The first ``n_ranks`` ranks take part; the others wait, asleep.
    executor : Executor or None
        None on ranks that do not take part.
    batch : callable
        Step number to this rank's rows of the global batch.
    solves : bool
        Whether its layers are solved by a method whose certificate is to be kept.
    leg_steps : int
        Steps between two meetings of its ranks; a repetition is a leg, and its times are means over the steps.
    loss_shares : float64 array (n_ranks,) or None
        What each rank's loss counts in the whole's, where no step sums it; None where every step does.
    compression : CompressionWatch or None
        What looks at errors of compressed gradients, on ranks that take part.
    """

    name: str
    n_ranks: int
    executor: Executor | None
    batch: Callable[[int], Batch]
    solves: bool = False
    leg_steps: int = 1
    loss_shares: FloatArray | None = None
    compression: CompressionWatch | None = None


@dataclass
class Samples:
    """What was measured of a variant; complete on rank 0.

    Attributes
    ----------
    warmup_s, time_s : list of float64 array (n_ranks, n_phases)
        One entry a step.
    device_time_s : list of float64 array (n_ranks, n_phases)
        Seconds the devices themselves worked, one entry a counted step; NaN where that is not measured.
    cpu_time_s : list of float64 array (n_ranks, n_phases)
        CPU seconds the processes had, one entry a counted step.
    loss, gradient_norm : list of float
        One entry a step, warm-ups included.
    sent_bytes : list of int64 array (n_ranks,)
        What each rank sent, one entry a leg, warm-ups included.
    n_steps : list of int
        Steps of each leg, likewise.
    stop_reason : str
    timeline : Timeline or None
        Of the counted step nearest to the median, where a trace was asked for.
    solves : list of list of tuple of LayerSolve
        One entry a step, warm-ups included, of one entry a rank.
    exponents : list of list of dict
        Lyapunov exponents after the first and, once that was run, after the last step: each rank's, by layer.
    watched : list of WatchedStep
        Steps whose gradients were compressed and were looked at.
    staleness : int64 array (n,) or None
        Gradients that a parameter server applied late, by how late; on rank 0.
    learning : Learning or None
        Of a training to a target.
    """

    warmup_s: list[FloatArray] = field(default_factory=list)
    time_s: list[FloatArray] = field(default_factory=list)
    device_time_s: list[FloatArray] = field(default_factory=list)
    cpu_time_s: list[FloatArray] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    sent_bytes: list[IntArray] = field(default_factory=list)
    n_steps: list[int] = field(default_factory=list)
    stop_reason: str = ""
    timeline: Timeline | None = None
    solves: list[list[tuple[LayerSolve, ...]]] = field(default_factory=list)
    exponents: list[list[dict[str, float]]] = field(default_factory=list)
    watched: list[WatchedStep] = field(default_factory=list)
    staleness: IntArray | None = None
    learning: Learning | None = None

    def bytes_a_step(self, n_ranks: int) -> IntArray:
        """What each rank sent in a step, the mean over the last leg; nothing where there was none."""
        return self.sent_bytes[-1] // self.n_steps[-1] if self.sent_bytes else np.zeros(n_ranks, dtype=np.int64)

    def drop_last(self) -> None:
        """Forget the last counted leg, in which numbers were not finite."""
        rows = (self.time_s, self.device_time_s, self.cpu_time_s, self.loss, self.gradient_norm)
        for row in (*rows, self.sent_bytes, self.n_steps, self.solves):
            del row[-1:]

    def interval(self) -> Interval:
        """Median and interval of the counted steps, seconds; a step is as long as its slowest rank's."""
        return median_interval([sample[:, 0].max() for sample in self.time_s])


class Watcher(Protocol):
    """Who wants to see progress; called on rank 0 only."""

    def __call__(self, repetition: int, elapsed_s: float, samples: Sequence[Samples]) -> None:
        """Hear that a round is over; ``repetition`` is negative during warm-up."""


class Keeper(Protocol):
    """Who keeps what has been measured so far, lest a kill lose it."""

    def is_due(self) -> bool:
        """Whether to keep it now; asked on rank 0 after a round that counts."""

    def keep(self, samples: Sequence[Samples]) -> None:
        """Keep it; called on all ranks, between two rounds, where no clock of a step runs."""


def measure(
    variants: Sequence[Variant], world: World, limits: MeasureSpec, watch: Watcher, keeper: Keeper
) -> list[Samples]:
    """Measure variants round after round, one leg of each a round.

    Interleaving lets drift of the machine fall on all variants alike.  Every rank calls this; only rank 0
    gets samples.

    Parameters
    ----------
    variants : sequence of Variant
    world : World
    limits : MeasureSpec
        Warm-up, interval width, time and repetition limits.
    watch : Watcher
    keeper : Keeper

    Returns
    -------
    list of Samples
        One a variant.

    Raises
    ------
    NumericsError
        A loss or a gradient is not finite.
    """
    samples = [Samples() for _ in variants]
    stamps: list[list[IntArray]] = [[] for _ in variants]
    slept_s = 0.0
    start = time.monotonic()
    for step in range(limits.warmup + limits.max_repeats):
        counted = step >= limits.warmup
        for variant, found, kept in zip(variants, samples, stamps, strict=True):
            steps = range(step * variant.leg_steps, (step + 1) * variant.leg_steps)
            slept_s = one_leg(variant, found, world, steps, slept_s, counted=counted)
            if variant.solves and step == 0:
                keep_exponents(variant, found, world)
            if limits.trace and counted and variant.executor is not None:
                kept.append(variant.executor.stamps_ns.copy())
        reason, due = "", False
        if world.is_root:
            elapsed = time.monotonic() - start
            watch(step - limits.warmup, elapsed, samples)
            if counted:
                reason, due = _reason_to_stop(samples, elapsed, limits, asked=world.farewell.asked), keeper.is_due()
        reason, due = world.comm.bcast((reason, due))
        if reason:
            break
        if due:
            slept_s += _keep(keeper, samples)
    for variant, found in zip(variants, samples, strict=True):
        found.stop_reason = reason
        found.staleness = None if variant.executor is None else variant.executor.staleness
        if variant.solves:
            keep_exponents(variant, found, world)
    if limits.trace:
        _keep_timelines(variants, samples, stamps, world)
    return samples


def _keep(keeper: Keeper, samples: Sequence[Samples]) -> float:
    """Keep what has been measured; return the seconds, in which cores may have dozed while a disk was waited for."""
    start = time.monotonic()
    keeper.keep(samples)
    return time.monotonic() - start


def _keep_timelines(
    variants: Sequence[Variant], samples: Sequence[Samples], stamps: Sequence[list[IntArray]], world: World
) -> None:
    """Keep the timeline of each variant's most typical step: the one nearest to the median."""
    offset_ns = clock_offset_ns(world)
    for variant, found, kept in zip(variants, samples, stamps, strict=True):
        steps_s = np.array([sample[:, 0].max() for sample in found.time_s])
        typical = int(np.abs(steps_s - np.median(steps_s)).argmin()) if world.is_root else 0
        typical = world.comm.bcast(typical)
        own = kept[typical] if kept else None
        found.timeline = gather_timeline(world, variant.executor, own, offset_ns, typical)


def keep_exponents(variant: Variant, samples: Samples, world: World) -> None:
    """Bring the Lyapunov exponents of the last step's trajectories to rank 0; every rank calls this."""
    exponents = {} if variant.executor is None else variant.executor.engine.exponents()
    samples.exponents.append((world.comm.gather(exponents) or [])[: variant.n_ranks])


def one_leg(variant: Variant, samples: Samples, world: World, steps: range, slept_s: float, *, counted: bool) -> float:
    """Run one leg of one variant and bring its times to rank 0.

    Every rank calls this.

    Parameters
    ----------
    variant : Variant
    samples : Samples
        Take the leg in, on rank 0.
    world : World
    steps : range
        Numbers of the steps, which name their batches.
    slept_s : float
        How long this rank slept before.
    counted : bool
        Whether it is no warm-up.

    Returns
    -------
    float
        Seconds this rank slept after it.

    Raises
    ------
    NumericsError
        A loss or a gradient is not finite, and the executor does not go on all the same.
    """
    times = np.full((3, len(PHASES)), np.nan)  # of the executor's clock, of the device's, and of CPU time
    outcome = np.full(3, np.nan)
    if variant.executor is not None:

        def meet() -> None:
            wake_up(slept_s)
            if variant.n_ranks > 1:
                # The common start: all ranks are awake and have their batch.
                world.comm.Barrier()

        if variant.compression is not None:
            variant.compression.before(steps)
        found = run_leg(variant.executor, [variant.batch(step) for step in steps], meet)
        if variant.compression is not None:
            samples.watched = variant.compression.after(steps)
        if not np.isfinite(found.loss):
            what = f"the loss is not finite ({found.loss}) at step {steps[0]} of {variant.name}"
            variant.executor.not_finite(
                NumericsError(f"{what}; a smaller training.lr or a training.clip usually helps")
            )
        times = found.times_s
        outcome[:] = found.loss, found.gradient_norm, found.sent_bytes
    slept_s = world.quiet_barrier()
    gathered = np.empty((world.size, *times.shape)) if world.is_root else None
    world.comm.Gather(times, gathered)
    outcomes = np.empty((world.size, *outcome.shape)) if world.is_root else None
    world.comm.Gather(outcome, outcomes)
    if gathered is not None and outcomes is not None:
        on_clock, on_device, on_cpu = (gathered[: variant.n_ranks, which].copy() for which in range(3))
        (samples.time_s if counted else samples.warmup_s).append(on_clock)
        if counted:
            samples.device_time_s.append(on_device)
            samples.cpu_time_s.append(on_cpu)
        losses, shares = outcomes[: variant.n_ranks, 0], variant.loss_shares
        samples.loss.append(float(losses[0] if shares is None else losses @ shares))
        samples.gradient_norm.append(float(outcomes[0, 1]))
        samples.sent_bytes.append(outcomes[: variant.n_ranks, 2].astype(np.int64))
        samples.n_steps.append(len(steps))
    if variant.solves:
        solves = () if variant.executor is None else variant.executor.engine.solves()
        samples.solves.append((world.comm.gather(solves) or [])[: variant.n_ranks])
    return slept_s


def wake_up(slept_s: float) -> None:
    """Keep the core busy for a moment after a sleep, before the clock starts.

    A core that dozed while another rank measured alone runs its next 200 ms up to a quarter slower (measured: 266
    instead of 211 ms a step, and 219 after 20 ms of work); without this, every parallel case would pay for the
    serial one before it.
    """
    end = time.perf_counter() + min(slept_s, _WAKE_UP_S)
    while time.perf_counter() < end:
        pass


def _reason_to_stop(samples: Sequence[Samples], elapsed_s: float, limits: MeasureSpec, *, asked: bool = False) -> str:
    """Why measuring should end now; empty where it should not."""
    if asked:
        return ASKED
    n = len(samples[0].time_s)
    if n >= limits.min_repeats and all(s.interval().relative_width <= limits.ci_width for s in samples):
        return "ci_width"
    if elapsed_s >= limits.max_time:
        return "max_time"
    return "max_repeats" if n >= limits.max_repeats else ""
