"""A contest between ways of ours and of a peer to run the same step: screened, checked, measured in turns.

What :mod:`~hpcrnn.benchmarks.peer_pipeline` and :mod:`~hpcrnn.benchmarks.peer_data` share::

    1. screen   a few steps of every way; the best go on
    2. check    they compute the serial run's loss and gradients, or the script ends
    3. measure  they and the serial runs take turns, a step each, in another order every round

What was seen in the screening is not counted.  A step is as long as its slowest rank's.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hpcrnn.backends.base import Array, Part
from hpcrnn.benchmarks.comparison import FACTOR, YARDSTICK_CAP, floor, relative_error
from hpcrnn.benchmarks.planning import Plan, make_plan
from hpcrnn.benchmarks.script import say
from hpcrnn.errors import LaunchError, NumericsError
from hpcrnn.execution.measurement import wake_up
from hpcrnn.execution.world import World
from hpcrnn.grid import check_cut
from hpcrnn.records.environment import environment, host_facts
from hpcrnn.records.output import Output
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.spec import BackendName, Grid, ParallelSpec, RunSpec
from hpcrnn.workloads import Workload

_SCREENED_STEPS = 2
_KEPT = 2
"""Ways of a side that come through the screening."""
_WARM_UP = 1
"""Rounds not counted; screening and check have warmed up what lasts."""
_TOLD_EVERY_S = 5.0


@dataclass
class Contender:
    """One way to run the step, and what was measured of it.

    Attributes
    ----------
    name : str
    kind : {"ours", "torch"}
    n_ranks : int
        All, or one: the others sleep.
    load : callable or None
        Takes in the batch of a step, given by its number; None on ranks that do not take part.
    step : callable
        Runs one step.
    part : callable
        Copies what this rank computed; all ranks call it.
    samples_s : list of float
        Seconds of every counted step; on rank 0.
    """

    name: str
    kind: str
    n_ranks: int
    load: Callable[[int], None] | None
    step: Callable[[], object]
    part: Callable[[], Part]
    samples_s: list[float] = field(default_factory=list)

    @property
    def interval(self) -> Interval:
        """Median step, seconds."""
        return median_interval(self.samples_s)

    @classmethod
    def absent(cls, name: str, kind: str) -> Contender:
        """Return a serial contender as the ranks see it that do not take part."""
        return cls(name, kind, 1, None, lambda: None, lambda: Part(0.0))


class Maker(NamedTuple):
    """A contender that is not yet built: its name, and what makes its buffers and messages."""

    name: str
    make: Callable[[], Contender]


@dataclass(frozen=True)
class Contest:
    """The problem, and who runs it.

    Attributes
    ----------
    spec : RunSpec
        Its parallel section is that of no contender.
    workload : Workload
    world : World
    loss_size : float
        What an error of the loss is relative to.
    """

    spec: RunSpec
    workload: Workload
    world: World
    loss_size: float

    def plan(self, parallel: ParallelSpec) -> Plan:
        """Lay the problem out."""
        grid = parallel.grid or Grid()
        spec = msgspec.structs.replace(self.spec, parallel=parallel)
        check_cut(spec, grid)
        return make_plan(spec, self.workload, grid)

    def executed(self, name: str, kind: str, parallel: ParallelSpec) -> Contender:
        """Make a contender that the suite's executor runs."""
        plan = self.plan(parallel)
        if plan.n_ranks == 1 and not self.world.is_root:
            return Contender.absent(name, kind)
        communicators = self.world.communicators(plan.grid)
        rank = self.world.rank if plan.n_ranks > 1 else 0
        backend: BackendName = "torch" if kind == "torch" else "numpy"
        executor = plan.executor(rank, backend, communicators)
        engine, rows = executor.engine, plan.rows(rank)
        return Contender(
            name,
            kind,
            plan.n_ranks,
            lambda step: engine.load_batch(self.workload.batch(step, rows)),
            executor.run,
            engine.part,
        )

    def turn(self, contender: Contender, step: int, slept_s: float) -> tuple[float, float]:
        """Run one step of one contender, from a common start.

        Returns
        -------
        spent_s : float
            Of the slowest rank; on rank 0.
        slept_s : float
            How long this rank waited for the others afterwards.
        """
        spent_s = 0.0
        if contender.load is not None:
            contender.load(step)
            wake_up(slept_s)
            if contender.n_ranks > 1:
                self.world.comm.Barrier()
            start = time.perf_counter()
            contender.step()
            spent_s = time.perf_counter() - start
        slept_s = self.world.quiet_barrier()
        return max(self.world.comm.gather(spent_s) or [0.0]), slept_s


@contextmanager
def torch_group(world: World) -> Iterator[str]:
    """Connect the ranks through gloo while the block runs; gives PyTorch's version."""
    from hpcrnn.backends.torch.group import VERSION, join_group, leave_group

    folder = Path(world.on_root(lambda: tempfile.mkdtemp(prefix="hpcrnn-")))
    try:
        join_group(world.rank, world.size, folder)
        yield VERSION
        leave_group()
    finally:
        if world.is_root:
            shutil.rmtree(folder, ignore_errors=True)


def check_launch(world: World, script: str, output: Output | None) -> None:
    """Refuse ranks, or a file for the results, that cannot do, before anything is built.

    Raises
    ------
    LaunchError
        Fewer than two ranks, or ranks on several nodes.
    SpecError
        The file cannot be written.
    """
    if world.size < 2:
        raise LaunchError(f"1 rank; allowed are 2 or more: mpirun -n 2 python -m hpcrnn.benchmarks.{script}")
    if world.ranks_on_node() != world.size:
        raise LaunchError("the ranks are on several nodes; allowed is one: gloo is told to use the loopback")
    if output is not None:
        world.on_root(output.check)


def check(contest: Contest, contenders: Sequence[Contender], steps: int = 1) -> None:
    """Run the first steps of all and compare with the first contender, a serial run.

    Loss, gradients and ``dx`` of the first step are compared on every rank that has them, then the losses of the steps
    after it.  The tolerance is the most that the suite allows any exact strategy to differ from a serial run in this
    dtype.

    Raises
    ------
    NumericsError
        A contender computes something else.
    """
    tolerance = FACTOR * YARDSTICK_CAP * floor(contest.spec.model.dtype)
    reference: dict[str, Array] = {}
    for contender in contenders:
        known: list[dict[str, Array]] = []
        for step in range(steps):
            contest.turn(contender, step, 0.0)
            part = contender.part()
            arrays = _compared_arrays(part) if step == 0 else {}
            if part.loss:
                arrays[f"loss of step {step + 1}"] = np.array([part.loss])
            known += contest.world.comm.gather(arrays) or []

        def compare(known: Sequence[Mapping[str, Array]] = known, name: str = contender.name) -> float:
            if not reference:
                reference.update({key: array for arrays in known for key, array in arrays.items()})
            errors = _errors(known, reference, contest.loss_size)
            worst = max(errors, key=lambda key: errors[key])
            if not errors[worst] <= tolerance:
                differs = f"{worst} differs from the serial run by {errors[worst]:.2g}, not {tolerance:.2g}"
                raise NumericsError(f"{name}: {differs}")
            return errors[worst]

        error = contest.world.on_root(compare)
        say(contest.world, f"checked {contender.name}: {error:.1e}, allowed {tolerance:.1e}", progress=True)


def _errors(known: Sequence[Mapping[str, Array]], reference: Mapping[str, Array], loss_size: float) -> dict[str, float]:
    """The largest error of every array over the ranks that have it; infinite where none has, or it is NaN."""
    errors: dict[str, float] = {}
    for key, exact in reference.items():
        found = [arrays[key] for arrays in known if key in arrays]
        if key.startswith("loss"):
            differences = [float(np.abs(value - exact)[0]) / loss_size for value in found]
        else:
            differences = [relative_error(value, exact) for value in found]
        errors[key] = max((np.inf if np.isnan(d) else d for d in differences), default=np.inf)
    return errors


def _compared_arrays(part: Part) -> dict[str, Array]:
    return {name: piece.value for name, piece in part.pieces.items() if name == "dx" or name.startswith("gradient ")}


def chosen(makers: Iterable[Maker], only: Sequence[str]) -> list[Maker]:
    """Those whose name holds one of the texts; all if there are none."""
    return [maker for maker in makers if not only or any(text in maker.name for text in only)]


def screen(contest: Contest, candidates: Sequence[Maker]) -> list[Maker]:
    """Run a few steps of each candidate and keep the fastest; one at a time, to keep memory small."""
    if len(candidates) <= _KEPT:
        return list(candidates)
    found: list[float] = []
    for number, candidate in enumerate(candidates, start=1):
        contender = candidate.make()
        slept_s, times = 0.0, []
        for step in range(1 + _SCREENED_STEPS):
            spent_s, slept_s = contest.turn(contender, step, slept_s)
            times.append(spent_s)
        found.append(min(times[1:]))
        text = f"screening {number} of {len(candidates)}: {contender.name} {found[-1] * 1e3:.0f} ms"
        say(contest.world, text, progress=True)
        del contender
        gc.collect()
    best: list[int] = sorted(range(len(found)), key=found.__getitem__)[:_KEPT]
    return [candidates[index] for index in contest.world.comm.bcast(best)]


def measure(contest: Contest, contenders: Sequence[Contender], max_time_s: float) -> None:
    """Let all take turns until the time is over; fills ``samples_s`` on rank 0.

    Every round has another order, the same on all ranks, so that nobody always follows the same neighbour.
    """
    slept_s, start, step, told = 0.0, time.monotonic(), 0, 0.0
    shuffle = np.random.default_rng(contest.spec.problem.seed)
    while contest.world.comm.bcast(step <= _WARM_UP or time.monotonic() - start < max_time_s):
        for index in shuffle.permutation(len(contenders)):
            spent_s, slept_s = contest.turn(contenders[index], step, slept_s)
            if step >= _WARM_UP:
                contenders[index].samples_s.append(spent_s)
        step += 1
        elapsed = time.monotonic() - start
        if elapsed - told >= _TOLD_EVERY_S:
            told = elapsed
            text = f"round {step}, {_WARM_UP} of them not counted, {elapsed:.0f} of at most {max_time_s:.0f} s"
            say(contest.world, text, progress=True)


def serial_runs(contenders: Iterable[Contender]) -> dict[str, Contender]:
    """The serial runs, by kind."""
    return {c.kind: c for c in contenders if c.n_ranks == 1}


def best(contenders: Iterable[Contender], kind: str) -> Contender:
    """Return the fastest parallel way of ours or of the peer."""
    return min((c for c in contenders if c.kind == kind and c.n_ranks > 1), key=lambda c: c.interval.median)


def paired_ratio(numerator: Contender, denominator: Contender, factor: float = 1.0) -> Interval:
    """Median of the ratios within each round: drift of the machine, which both meet alike, drops out."""
    pairs = zip(numerator.samples_s, denominator.samples_s, strict=True)
    return median_interval([factor * a / b for a, b in pairs])


def table(contenders: Sequence[Contender]) -> Iterator[str]:
    """Lines of the result: every contender, and how much faster it is than the serial run of its kind."""
    serial = serial_runs(contenders)
    width = max(len(c.name) for c in contenders)
    yield f"{'':{width}}  {'n':>3}  {'median step, ms':>26}  {'of own serial run':>24}"
    for c in contenders:
        speedup = shown(paired_ratio(serial[c.kind], c), 1, 2) + " ×"
        yield f"{c.name:{width}}  {c.interval.n:3}  {shown(c.interval, 1e3, 1):>26}  {speedup:>24}"


def shown(interval: Interval, factor: float, digits: int) -> str:
    """``1.23 [1.20, 1.31]``: a median with its interval, where there is one, each times a factor."""
    values = (value * factor for value in (interval.median, interval.low, interval.high))
    median, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{median} [n too small]" if isnan(interval.low) else f"{median} [{low}, {high}]"


def facts(world: World, torch_version: str) -> dict[str, Any]:
    """Describe what it runs on; every rank calls this, and it means something on rank 0."""
    hosts, mpi = world.comm.gather(host_facts()), world.facts()
    return environment(hosts, mpi) | {"torch": torch_version} if hosts else {}


def to_plain(contest: Contest, contenders: Sequence[Contender], known: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, and on what, as plain values.

    Parameters
    ----------
    contest : Contest
    contenders : sequence of Contender
    known : mapping
        Of :func:`facts`.
    """
    sections = ("model", "problem", "training", "machine")
    return {
        "problem": {name: msgspec.to_builtins(getattr(contest.spec, name)) for name in sections},
        "n_ranks": contest.world.size,
        "environment": dict(known),
        "contenders": [
            {"name": c.name, "kind": c.kind, "n_ranks": c.n_ranks, "step_s": c.samples_s} for c in contenders
        ],
    }


def headline(spec: RunSpec, n_ranks: int, torch_version: str) -> str:
    """Say what was measured, in one line."""
    model, problem = spec.model, spec.problem
    sizes = f"L{model.layers} H{model.hidden} B{problem.batch} T{problem.seq}"
    return f"{model.cell} {sizes}, {n_ranks} ranks of one thread, torch {torch_version}"


def write(output: Output, found: Mapping[str, Any], world: World) -> None:
    """Put the results in their place; rank 0 calls this."""
    world.farewell.finish(output, f"{json.dumps(found, indent=1, default=str)}\n".encode())
