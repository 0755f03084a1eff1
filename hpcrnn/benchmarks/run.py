"""One run: check, verify, measure, record."""

from __future__ import annotations

import resource
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

import hpcrnn
from hpcrnn.backends.registry import check_backends, check_gpu, check_grid
from hpcrnn.benchmarks.certification import certify
from hpcrnn.benchmarks.choice import choose_method
from hpcrnn.benchmarks.planning import Plan, check_memory
from hpcrnn.benchmarks.progress import Progress
from hpcrnn.benchmarks.verification import verify
from hpcrnn.benchmarks.ways import Way, ways_of
from hpcrnn.errors import HpcrnnError, LaunchError
from hpcrnn.execution.cuda_aware import cuda_awareness, settled
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.measurement import Samples, Variant, measure
from hpcrnn.execution.world import World, check_threads
from hpcrnn.grid import resolve_grid
from hpcrnn.records.environment import environment, host_facts
from hpcrnn.records.hdf5 import check_writable, write_record
from hpcrnn.records.record import PHASES, Case, Record, Verdict, strategy_of
from hpcrnn.spec import RunSpec, to_dict
from hpcrnn.workloads import Workload, open_workload

SYNC = "MPI_Barrier before each step, after every rank has loaded its batch"
WORTH_A_WARNING = 0.005
"""Fraction of a step that an uneven split may lose in silence."""

RANK_REDUCE = "all ranks are kept; a step is as long as its slowest rank's"


def run(spec: RunSpec, world: World, argv: Sequence[str]) -> Record | None:
    """Run a specification on all ranks and write its record.

    Parameters
    ----------
    spec : RunSpec
    world : World
    argv : sequence of str
        The command line, for the record.

    Returns
    -------
    Record or None
        On rank 0 the record, as it was written to ``record.source``; None on the other ranks.

    Raises
    ------
    HpcrnnError
        Anything that keeps the run from being right, before anything is timed where that can be known.
    """
    grid = resolve_grid(spec, world.size)
    path = Path(spec.measure.out) if spec.measure.out else default_path(spec, grid.n_ranks)
    check_backends(spec)
    check_grid(spec, grid)
    world.on_root(lambda: check_writable(path, spec.measure.overwrite))
    check_threads(world, spec.machine.threads)
    spec = msgspec.structs.replace(spec, parallel=msgspec.structs.replace(spec.parallel, grid=grid))
    spec = settle_transport(spec, world)
    check_gpus(spec, world)

    workload = open_workload(spec)
    check_same_data(workload, world)
    with threadpool_limits(limits=spec.machine.threads):
        spec, choice = choose_method(spec, world)
    ways = ways_of(spec)
    plans = {way: way.plan(workload) for way in ways}
    whole = plans[ways[-1]]
    check_memory(whole, sum(way.backend != "cupy" for way in ways), world.ranks_on_node())

    with threadpool_limits(limits=spec.machine.threads), Progress(enabled=world.is_root) as progress:
        for warning in warnings_of(whole):
            progress.say(f"warning: {warning}")
        if choice:
            progress.say(f"method auto: {choice['reason']}")
        progress.say(f"verifying {', '.join(way.name for way in ways)}")
        verdicts = verify(ways, workload, world)
        variants = _variants(workload, plans, world)
        engines = [variant.executor.engine for variant in variants if variant.executor is not None]
        for remark in dict.fromkeys(remark for engine in engines for remark in engine.remarks):
            progress.say(f"warning: {remark}")
        samples = [Samples(stop_reason="invalid") for _ in ways]
        if all(v.status != "INVALID" for v in verdicts.values()):
            samples = measure(variants, world, spec.measure, progress.watcher([v.name for v in variants], spec.measure))
    peaks = world.comm.gather(_peak_memory_bytes())
    hosts = world.comm.gather(host_facts())
    mpi = world.facts()
    if world.size > 1 and "cupy" in spec.machine.backend:
        mpi["transport"] = spec.machine.transport
    known = [world.comm.gather(_rank_facts(variant.executor)) for variant in variants]
    if peaks is None or hosts is None:  # all ranks but the first
        world.on_root(lambda: None)
        return None
    cases = tuple(
        _case(way, plans[way], found, verdicts[way], peaks, [r for r in ranks or () if r is not None], choice)
        for way, found, ranks in zip(ways, samples, known, strict=True)
    )
    facts = environment(hosts, mpi) | {"workload": workload.describe()}
    if choice:
        facts["choice"] = choice
    facts["clock"] |= {"sync": SYNC, "rank_reduce": RANK_REDUCE}
    record = Record(
        uuid=str(uuid.uuid4()),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        hpcrnn_version=hpcrnn.__version__,
        argv=tuple(argv),
        environment=facts,
        cases=cases,
        source=str(path),
    )
    world.on_root(lambda: write_record(record, path, overwrite=spec.measure.overwrite))
    return record


def check_gpus(spec: RunSpec, world: World) -> None:
    """Refuse a run in which a rank has no GPU; all ranks together, with one line.

    Raises
    ------
    LaunchError
    """
    if "cupy" not in spec.machine.backend:
        return
    problem = ""
    try:
        check_gpu(spec, world.local_rank)
    except HpcrnnError as error:
        problem = str(error)
    problems = world.comm.allgather(problem)
    if any(problems):
        raise LaunchError(next(filter(None, problems)))


def settle_transport(spec: RunSpec, world: World) -> RunSpec:
    """Replace the transport ``auto``, where GPUs take part on several ranks, by what MPI is able to do.

    Raises
    ------
    LaunchError
        ``direct`` is asked for, and MPI takes no pointers to a GPU's memory.
    """
    if world.size == 1 or "cupy" not in spec.machine.backend:
        return spec
    transport = settled(spec.machine.transport, cuda_awareness(world.comm))
    return msgspec.structs.replace(spec, machine=msgspec.structs.replace(spec.machine, transport=transport))


def check_same_data(workload: Workload, world: World) -> None:
    """Refuse ranks that would read different bytes, as those of different Pythons or file systems do.

    Raises
    ------
    LaunchError
        Naming a rank that differs from rank 0.
    """
    described = world.comm.allgather(workload.describe())
    for rank, description in enumerate(described):
        if description != described[0]:
            key = next(k for k in described[0] if description.get(k) != described[0][k])
            raise LaunchError(
                f"problem.workload = {workload.name}: rank {rank} has {key} = {description.get(key)}, rank 0 has "
                f"{described[0][key]}; all ranks need the same data"
            )


def warnings_of(plan: Plan) -> list[str]:
    """Say what an uneven split costs."""
    units = {"data": "rows", "pipeline": "operations", "time": "steps", "tensor": "hidden units"}
    found = []
    for axis, lost in plan.imbalance().items():
        shares = plan.shares()[axis]
        if lost >= WORTH_A_WARNING:
            found.append(
                f"{axis}={len(shares)} splits {units[axis]} unevenly, {max(shares):.4g} on the busiest rank and "
                f"{sum(shares) / len(shares):.4g} on average: {lost:.1%} of the step is lost"
            )
    return found


def default_path(spec: RunSpec, n_ranks: int) -> Path:
    """A new name under ``results/``, from the model, the ranks and the time."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("results") / f"{spec.model.cell}-H{spec.model.hidden}-n{n_ranks}-{now}-{uuid.uuid4().hex[:6]}.h5"


def _variants(workload: Workload, plans: dict[Way, Plan], world: World) -> list[Variant]:
    """Build this rank's part of every way; an executor where the rank takes part."""
    variants: list[Variant] = []
    for way, plan in plans.items():
        rank = world.rank if way.n_ranks > 1 else 0
        executor = None
        if way.n_ranks > 1 or world.is_root:
            executor = plan.executor(rank, way.backend, world.communicators(way.grid))
        rows = plan.rows(rank)
        variants.append(
            Variant(
                way.name,
                way.n_ranks,
                executor,
                lambda step, rows=rows: workload.batch(step, rows),  # type: ignore[misc]
                solves=way.method != "chain",
            )
        )
    return variants


@dataclass(frozen=True)
class RankFacts:
    """What one rank knows of its part of a way, once it has been measured; named as in a case."""

    kernel: str
    kernel_details: str
    bytes_sent: int
    memory_bytes: int
    device_peak_bytes: int


def _rank_facts(executor: Executor | None) -> RankFacts | None:
    """Ask a rank's engine; None where the rank does not take part."""
    if executor is None:
        return None
    engine = executor.engine
    return RankFacts(
        engine.kernel, engine.kernel_details, executor.sent_bytes, engine.memory_bytes, engine.device_peak_bytes
    )


def _case(
    way: Way,
    plan: Plan,
    samples: Samples,
    verdict: Verdict,
    peaks: Sequence[int],
    ranks: Sequence[RankFacts],
    choice: dict[str, Any],
) -> Case:
    shape = (0, way.n_ranks, len(PHASES))
    details = tuple(rank.kernel_details for rank in ranks)
    device_time_s = np.array(samples.device_time_s)
    device_peaks = np.array([rank.device_peak_bytes for rank in ranks], dtype=np.int64)
    used = msgspec.structs.replace(way.spec, machine=msgspec.structs.replace(way.spec.machine, backend=(way.backend,)))
    return Case(
        spec=to_dict(used),
        strategy=strategy_of(msgspec.structs.asdict(way.grid)),
        backend=way.backend,
        kernel=ranks[0].kernel,
        n_ranks=way.n_ranks,
        phases=PHASES,
        time_s=np.array(samples.time_s) if samples.time_s else np.empty(shape),
        warmup_s=np.array(samples.warmup_s) if samples.warmup_s else np.empty(shape),
        loss=np.array(samples.loss),
        gradient_norm=np.array(samples.gradient_norm),
        flops=plan.flops(),
        bytes_sent=np.array([rank.bytes_sent for rank in ranks], dtype=np.int64),
        peak_memory_bytes=np.array(peaks[: way.n_ranks], dtype=np.int64),
        memory_bytes=np.array([rank.memory_bytes for rank in ranks], dtype=np.int64),
        stop_reason=samples.stop_reason,
        verdict=verdict,
        timeline=samples.timeline,
        bubble_bound=plan.bubble_bound(),
        certificate=certify(plan, samples, choice),
        kernel_details=details if any(details) else (),
        device_time_s=device_time_s if np.isfinite(device_time_s).any() else None,
        device_peak_bytes=device_peaks if device_peaks.any() else None,
    )


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
