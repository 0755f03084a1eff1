"""Our layer pipeline beside PyTorch's: ``mpirun -n 2 python -m hpcrnn.benchmarks.peer_pipeline``.

The same recurrent layers with the same parameters on the same ranks, one thread each: forward and backward of one
batch, the loss linear in the output.  Ours goes through MPI in several orders and with several numbers of
chunks; the peer is ``torch.distributed.pipelining`` over gloo, GPipe and 1F1B at several numbers of micro-batches.
The best of each counts.  A serial run of each is the base::

    1. screen   a few steps of every way of both; the best of each go on
    2. check    they compute the serial run's loss and gradients, or the script ends
    3. measure  they and both serial runs take turns, a step each

What was seen in the screening is not counted.  A step is as long as its slowest rank's.  All ranks must share one node:
gloo is told to use the loopback.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from hpcrnn.backends.base import Array, Part
from hpcrnn.backends.registry import check_backends
from hpcrnn.benchmarks.arguments import add_output, output_of, positive
from hpcrnn.benchmarks.comparison import FACTOR, YARDSTICK_CAP, floor, relative_error
from hpcrnn.benchmarks.planning import Plan, make_plan
from hpcrnn.benchmarks.script import ScriptParser, on_ranks, say
from hpcrnn.errors import EXIT_VALID, HpcrnnError, LaunchError, NumericsError, SpecError
from hpcrnn.execution.measurement import wake_up
from hpcrnn.execution.world import World
from hpcrnn.grid import check_cut
from hpcrnn.model.network import initial_parameters
from hpcrnn.records.environment import host_facts
from hpcrnn.records.output import Output
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.spec import Grid, OrderName, ParallelSpec, RunSpec, build_spec
from hpcrnn.workloads import Batch, Workload, open_workload

_SCREENED_STEPS = 2
_KEPT = 2
"""Ways of ours, and of the peer, that come through the screening."""
_WARM_UP = 1
"""Rounds not counted; screening and check have warmed up what lasts."""
_PEER_MICROBATCHES = (2, 4, 8)
_PEER_SCHEDULES = ("GPipe", "1F1B")


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
        Takes in a batch; None on ranks that do not take part.
    step : callable
        Runs one step.
    part : callable
        Copies what this rank computed.
    samples_s : list of float
        Seconds of every counted step; on rank 0.
    """

    name: str
    kind: str
    n_ranks: int
    load: Callable[[Batch], None] | None
    step: Callable[[], object]
    part: Callable[[], Part]
    samples_s: list[float] = field(default_factory=list)

    @property
    def interval(self) -> Interval:
        """Median step, seconds."""
        return median_interval(self.samples_s)


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
    """

    spec: RunSpec
    workload: Workload
    world: World

    def plan(self, parallel: ParallelSpec) -> Plan:
        """Lay the problem out."""
        grid = parallel.grid or Grid()
        spec = msgspec.structs.replace(self.spec, parallel=parallel)
        check_cut(spec, grid)
        return make_plan(spec, self.workload, grid)

    @property
    def pipeline(self) -> Grid:
        """All ranks along the layers."""
        return Grid(pipeline=self.world.size)

    def ours(self, parallel: ParallelSpec) -> Contender:
        """Our way to run it, with the given order and parts."""
        return self._executed(_name(parallel), "ours", self.plan(parallel))

    def serial(self, kind: str) -> Contender:
        """The whole network on rank 0."""
        return self._executed(f"{kind} serial", kind, self.plan(ParallelSpec(grid=Grid())))

    def _executed(self, name: str, kind: str, plan: Plan) -> Contender:
        """A plan that the suite's executor runs."""
        if plan.n_ranks == 1 and not self.world.is_root:
            return Contender(name, kind, 1, None, _nothing, _nothing_known)
        communicators = self.world.communicators(plan.grid)
        rank = self.world.rank if plan.n_ranks > 1 else 0
        executor = plan.executor(rank, "torch" if kind == "torch" else "numpy", communicators)
        engine = executor.engine
        return Contender(name, kind, plan.n_ranks, engine.load_batch, executor.run, engine.part)

    def peer(self, schedule: str, n_microbatches: int) -> Contender:
        """PyTorch's pipeline."""
        from hpcrnn.backends.torch.engine import TorchEngine
        from hpcrnn.backends.torch.pipeline import TorchPipeline

        plan = self.plan(ParallelSpec(grid=self.pipeline, microbatches=n_microbatches))
        rank, n_ranks = self.world.rank, self.world.size
        extent = plan.extent(rank)
        engine = TorchEngine(plan.network, extent, self.spec.training, self.spec.machine.threads)
        engine.load_parameters(initial_parameters(plan.network, self.spec.problem.seed))
        pipeline = TorchPipeline(engine, plan.network, extent, rank, n_ranks, schedule)  # type: ignore[arg-type]
        name = f"torch {schedule} M={n_microbatches}"
        return Contender(name, "torch", n_ranks, pipeline.load_batch, pipeline.step, pipeline.part)

    def orders(self, parts: Sequence[int]) -> Iterator[Maker]:
        """Our ways that are worth a try and can be cut like that."""
        orders: tuple[OrderName, ...] = ("seq_1f1b", "zb_h1", "fill_drain", "1f1b")
        for order in orders:
            for n in parts:
                # 1f1b takes turns by whole micro-batches; the others need no more than chunks of time.
                microbatches, chunks = (n, 1) if order == "1f1b" else (1, n)
                parallel = ParallelSpec(grid=self.pipeline, order=order, microbatches=microbatches, chunks=chunks)
                try:
                    self.plan(parallel)
                except SpecError:
                    continue
                yield Maker(_name(parallel), partial(self.ours, parallel))

    def peers(self) -> list[Maker]:
        """All ways of the peer that cut the batch evenly, as it requires."""
        rows = self.spec.problem.batch
        possible = [n for n in _PEER_MICROBATCHES if rows % n == 0 and n >= self.world.size]
        if not possible:
            allowed = f"a multiple of one of {', '.join(map(str, _PEER_MICROBATCHES))}, that being at least the ranks"
            raise SpecError("problem.batch", rows, allowed)
        return [
            Maker(f"torch {schedule} M={n}", partial(self.peer, schedule, n))
            for schedule in _PEER_SCHEDULES
            for n in possible
        ]

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
            contender.load(self.workload.batch(step))
            wake_up(slept_s)
            if contender.n_ranks > 1:
                self.world.comm.Barrier()
            start = time.perf_counter()
            contender.step()
            spent_s = time.perf_counter() - start
        slept_s = self.world.quiet_barrier()
        return max(self.world.comm.gather(spent_s) or [0.0]), slept_s


def _name(parallel: ParallelSpec) -> str:
    parts = f"M={parallel.microbatches}" if parallel.microbatches > 1 else f"C={parallel.chunks}"
    return f"ours {parallel.order} {parts}"


def _nothing() -> None:
    """What a rank does that does not take part."""


def _nothing_known() -> Part:
    return Part(0.0)


def check(contest: Contest, contenders: Sequence[Contender]) -> None:
    """Run the first step of all and compare loss, gradients and ``dx`` with the first, a serial run.

    The tolerance is the most that the suite allows any exact strategy to differ from a serial run in this dtype.

    Raises
    ------
    NumericsError
        A contender computes something else.
    """
    dtype = contest.spec.model.dtype
    tolerance = FACTOR * YARDSTICK_CAP * floor(dtype)
    reference: dict[str, Array] = {}
    for contender in contenders:
        contest.turn(contender, 0, 0.0)
        known = contest.world.comm.gather(_comparable(contest, contender.part()))

        def compare(known: Sequence[Mapping[str, Array]] = known or (), name: str = contender.name) -> float:
            found = {key: array for part in known for key, array in part.items()}
            if not reference:
                reference.update(found)
            worst = max(reference, key=lambda key: _difference(key, found, reference))
            error = _difference(worst, found, reference)
            if not error <= tolerance:
                raise NumericsError(f"{name}: {worst} differs from the serial run by {error:.2g}, not {tolerance:.2g}")
            return error

        error = contest.world.on_root(compare)
        say(contest.world, f"checked {contender.name}: {error:.1e}, allowed {tolerance:.1e}", progress=True)


def _comparable(contest: Contest, part: Part) -> dict[str, Array]:
    """The gradients and ``dx`` of a part; and the loss, from the last rank, which has the whole of it."""
    arrays = {name: piece.value for name, piece in part.pieces.items() if name == "dx" or name.startswith("gradient ")}
    problem = contest.spec.problem
    # An inner product with random signs cancels: its error is relative to the terms' root-sum-square.
    size = (contest.spec.model.hidden / (problem.seq * problem.batch)) ** 0.5
    return arrays | ({"loss": np.array([part.loss / size])} if part.loss else {})


def _difference(key: str, found: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    if key not in found:
        return float("inf")
    if key == "loss":
        return abs(float(found[key][0] - reference[key][0]))
    error = relative_error(found[key], reference[key])
    return float("inf") if np.isnan(error) else error


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
    """Let all take turns until the time is over; fills ``samples_s`` on rank 0."""
    slept_s, start, step = 0.0, time.monotonic(), 0
    while contest.world.comm.bcast(step <= _WARM_UP or time.monotonic() - start < max_time_s):
        for contender in contenders:
            spent_s, slept_s = contest.turn(contender, step, slept_s)
            if step >= _WARM_UP:
                contender.samples_s.append(spent_s)
        step += 1
        elapsed = time.monotonic() - start
        text = f"round {step}, {_WARM_UP} of them not counted, {elapsed:.0f} of at most {max_time_s:.0f} s"
        say(contest.world, text, progress=True)


def best(contenders: Sequence[Contender], kind: str) -> Contender:
    """Return the fastest pipeline of ours or of the peer."""
    piped = [c for c in contenders if c.kind == kind and c.n_ranks > 1]
    return min(piped, key=lambda c: c.interval.median)


def paired_ratio(numerator: Contender, denominator: Contender) -> Interval:
    """Median of the ratios within each round: drift of the machine, which both meet alike, drops out."""
    pairs = zip(numerator.samples_s, denominator.samples_s, strict=True)
    return median_interval([a / b for a, b in pairs])


def table(contenders: Sequence[Contender]) -> Iterator[str]:
    """Lines of the result: every contender, and the two ratios that matter."""
    serial = {c.kind: c for c in contenders if c.n_ranks == 1}
    yield f"{'':22}  {'n':>3}  {'median step, ms':>26}  {'of own serial run':>24}"
    for c in contenders:
        speedup = paired_ratio(serial[c.kind], c)
        yield f"{c.name:22}  {c.interval.n:3}  {_shown(c.interval, 1e3, 1):>26}  {_shown(speedup, 1, 2) + ' ×':>24}"
    ours, torch = best(contenders, "ours"), best(contenders, "torch")
    yield f"{torch.name} / {ours.name}: {_shown(paired_ratio(torch, ours), 1, 2)}"
    yield f"torch serial / ours serial: {_shown(paired_ratio(serial['torch'], serial['ours']), 1, 2)}"


def _shown(interval: Interval, factor: float, digits: int) -> str:
    values = (value * factor for value in (interval.median, interval.low, interval.high))
    median, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{median} [{low}, {high}]"


def to_plain(contest: Contest, contenders: Sequence[Contender], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, and on what, as plain values."""
    ours, torch = best(contenders, "ours"), best(contenders, "torch")
    ratio = paired_ratio(torch, ours)
    sections = ("model", "problem", "machine")
    return {
        "problem": {name: msgspec.to_builtins(getattr(contest.spec, name)) for name in sections},
        "n_ranks": contest.world.size,
        "environment": dict(facts),
        "contenders": [
            {"name": c.name, "kind": c.kind, "n_ranks": c.n_ranks, "step_s": c.samples_s} for c in contenders
        ],
        "torch_over_ours": {"best_torch": torch.name, "best_ours": ours.name, **vars(ratio)},
    }


def _chosen(makers: Iterable[Maker], only: Sequence[str]) -> list[Maker]:
    """Those whose name holds one of the texts; all if there are none."""
    return [maker for maker in makers if not only or any(text in maker.name for text in only)]


def _parse(world: World) -> tuple[RunSpec, Any]:
    parser = ScriptParser(world, "peer_pipeline", __doc__)
    parser.add_argument("--cell", choices=("elman", "lstm", "gru"), default="lstm")
    sizes = {"layers": 4, "hidden": 512, "batch": 64, "seq": 64}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N", help=f"default {default}")
    parts = parser.add_argument("--parts", type=positive, nargs="+", default=[2, 4, 8, 16], metavar="N")
    parts.help = "chunks, or micro-batches, that ours is tried with; default 2 4 8 16"
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="TEXT", help="ways whose name holds one of these, e.g. seq_1f1b GPipe"
    )
    parser.add_argument("--max-time", type=float, default=90.0, metavar="S", help="seconds to measure; default 90")
    add_output(parser, ending=".json")
    arguments = parser.parse_args()
    chosen = {name: getattr(arguments, name) for name in ("cell", *sizes)}
    fixed = {"workload": "synthetic", "input": "direct", "mode": "gradient", "backend": "numpy,torch", "threads": 1}
    return build_spec({}, fixed | chosen), arguments


def _check_launch(world: World, spec: RunSpec, output: Output | None) -> None:
    """Refuse what cannot work, before anything is built."""
    if world.size < 2:
        raise LaunchError("1 rank; allowed are 2 or more: mpirun -n 2 python -m hpcrnn.benchmarks.peer_pipeline")
    if world.ranks_on_node() != world.size:
        raise LaunchError("the ranks are on several nodes; allowed is one: gloo is told to use the loopback")
    check_cut(spec, Grid(pipeline=world.size))
    check_backends(spec)
    if output is not None:
        world.on_root(output.check)


def _write(output: Output, found: Mapping[str, Any], world: World) -> None:
    world.farewell.finish(output, f"{json.dumps(found, indent=1, default=str)}\n".encode())


def main(world: World) -> int:
    """Check, screen, measure, print."""
    spec, arguments = _parse(world)
    output = output_of(arguments)
    _check_launch(world, spec, output)
    from hpcrnn.backends.torch.pipeline import VERSION, join_group, leave_group

    folder = Path(world.on_root(lambda: tempfile.mkdtemp(prefix="hpcrnn-")))
    try:
        join_group(world.rank, world.size, folder)
        contest = Contest(spec, open_workload(spec), world)
        with threadpool_limits(limits=spec.machine.threads):
            ours = _chosen(contest.orders(arguments.parts), arguments.only)
            peers = _chosen(contest.peers(), arguments.only)
            if not ours or not peers:
                side, known = ("torch", contest.peers()) if ours else ("ours", contest.orders(arguments.parts))
                names = ", ".join(maker.name for maker in known) or "none: --parts cuts neither seq nor batch"
                raise HpcrnnError(f"no way of {side} is left by --parts and --only; there are {names}")
            makers = [*screen(contest, ours), *screen(contest, peers)]
            contenders = [contest.serial("ours"), contest.serial("torch"), *(maker.make() for maker in makers)]
            check(contest, contenders)
            measure(contest, contenders, arguments.max_time)
        leave_group()
    finally:
        if world.is_root:
            shutil.rmtree(folder, ignore_errors=True)
    facts = {"mpi": world.facts(), "host": host_facts(), "torch": VERSION}
    if world.is_root:
        model, problem = spec.model, spec.problem
        sizes = f"L{model.layers} H{model.hidden} B{problem.batch} T{problem.seq}"
        say(world, f"{model.cell} {sizes}, {world.size} ranks of one thread, torch {VERSION}")
        for line in table(contenders):
            say(world, line)
    if output is not None:
        world.on_root(lambda: _write(output, to_plain(contest, contenders, facts), world))
        say(world, f"written: {output.path}")
    return EXIT_VALID


if __name__ == "__main__":
    raise SystemExit(on_ranks(main))
