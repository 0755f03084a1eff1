"""One run: check, verify, measure, record."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from threadpoolctl import threadpool_limits

from hpcrnn.backends.registry import check_backends, check_grid, gpu_of_rank
from hpcrnn.benchmarks.calibration import settle_balance
from hpcrnn.benchmarks.ceilings import measure_ceilings
from hpcrnn.benchmarks.choice import choose_method
from hpcrnn.benchmarks.compressing import warnings_of_codec
from hpcrnn.benchmarks.growing_record import GrowingRecord
from hpcrnn.benchmarks.planning import Plan, check_memory
from hpcrnn.benchmarks.progress import Progress
from hpcrnn.benchmarks.recording import Recording, rank_part
from hpcrnn.benchmarks.to_target import target_training
from hpcrnn.benchmarks.variants import make_variant
from hpcrnn.benchmarks.verification import verify
from hpcrnn.benchmarks.ways import ways_of
from hpcrnn.errors import HpcrnnError, LaunchError
from hpcrnn.execution.cuda_aware import cuda_awareness, settled
from hpcrnn.execution.launch_checks import check_launch, gpu_problem
from hpcrnn.execution.measurement import Samples, measure
from hpcrnn.execution.world import World
from hpcrnn.grid import resolve_grid, with_backends_of_ranks
from hpcrnn.records.environment import environment, host_facts
from hpcrnn.records.hdf5 import encode_record
from hpcrnn.records.output import Output
from hpcrnn.records.record import Record
from hpcrnn.schedules.placement import Layout
from hpcrnn.spec import RunSpec
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
    spec = with_backends_of_ranks(spec)
    launch = check_launch(world, spec.machine.threads, spec.machine.expect_ranks)
    grid = resolve_grid(spec, world.size)
    path = Path(spec.measure.out) if spec.measure.out else world.on_root(lambda: default_path(spec, grid.n_ranks))
    output = Output(path, overwrite=spec.measure.overwrite, key="measure.out")
    check_backends(spec)
    check_grid(spec, grid)
    world.on_root(output.check)
    spec = msgspec.structs.replace(spec, parallel=msgspec.structs.replace(spec.parallel, grid=grid))
    spec = settle_transport(spec, world)
    gpus = check_gpus(spec, world)

    workload = open_workload(spec)
    check_same_data(workload, world)
    with threadpool_limits(limits=spec.machine.threads):
        spec, choice = choose_method(spec, world)
        balance = settle_balance(spec, world)
    ways = ways_of(spec, Layout(balance.weights, world.nodes().of))
    plans = {way: way.plan(workload) for way in ways}
    whole = plans[ways[-1]]
    check_memory(whole, sum(way.backends != ("cupy",) for way in ways), world.ranks_on_node())

    with threadpool_limits(limits=spec.machine.threads), Progress(enabled=world.is_root) as progress:
        for warning in (*launch.warnings, *warnings_of(whole), *warnings_of_codec(ways[-1], whole)):
            progress.say(f"warning: {warning}")
        if choice:
            progress.say(f"method auto: {choice['reason']}")
        if balance.reason:
            progress.say(f"balance measured: {balance.reason}")
        verdicts = verify(ways, workload, world, progress.verifying([way.name for way in ways]))
        valid = all(v.status != "INVALID" for v in verdicts.values())
        # While there are no engines: memory for both at once would be in the peak that is recorded.
        if valid and spec.measure.ceilings:
            progress.doing("measuring ceilings")
        ceilings = measure_ceilings(ways, world) if valid else {}
        variants = [make_variant(way, plan, workload, world) for way, plan in plans.items()]
        engines = [variant.executor.engine for variant in variants if variant.executor is not None]
        for remark in dict.fromkeys(remark for engine in engines for remark in engine.remarks):
            progress.say(f"warning: {remark}")
        sections = {name: found for name, found in (("choice", choice), ("balance", balance.facts)) if found}
        facts = facts_of(spec, workload, world, gpus, launch.facts) | ceilings | sections
        recording = Recording(workload, plans, verdicts, choice, facts, tuple(argv)) if world.is_root else None
        samples = [Samples(stop_reason="invalid") for _ in ways]
        growing = GrowingRecord(output, recording, variants, world)
        if valid and spec.training.mode == "target":
            training = target_training(ways[0], world, variants, progress.training(ways[0].name, spec.training), gpus)
            samples = [training.run(growing)]
        elif valid:
            watch = progress.watcher([variant.name for variant in variants], spec.measure)
            samples = measure(variants, world, spec.measure, watch, growing)
    ranks = world.comm.gather(rank_part(variants)) or []
    record = recording.record(samples, ranks, complete=True) if recording else None
    world.on_root(lambda: world.farewell.finish(output, encode_record(record)) if record else None)
    world.farewell.heard_done(path)
    return replace(record, source=str(path)) if record else None


def facts_of(
    spec: RunSpec, workload: Workload, world: World, gpus: Sequence[str], launch: dict[str, Any]
) -> dict[str, Any]:
    """Describe what the run runs on and with; on rank 0, and every rank calls this.

    Parameters
    ----------
    spec : RunSpec
    workload : Workload
    world : World
    gpus : sequence of str
        The UUID of each rank's GPU; empty where none takes part.
    launch : dict
        What is known of how the ranks were started.
    """
    hosts = world.comm.gather(host_facts())
    mpi = world.facts()
    if world.size > 1 and "cupy" in spec.machine.backend:
        mpi["transport"] = spec.machine.transport
    if hosts is None:
        return {}
    for host, gpu in zip(hosts, gpus, strict=False):
        if gpu:
            host["gpu_of_rank"] = gpu
    facts = environment(hosts, mpi) | {"workload": workload.describe()}
    facts["launcher"] |= launch
    facts["clock"] |= {"sync": SYNC, "rank_reduce": RANK_REDUCE}
    return facts


def check_gpus(spec: RunSpec, world: World) -> list[str]:
    """Refuse a run in which a rank has no GPU, or another's; all ranks together, with one line.

    Returns
    -------
    list of str
        The UUID of each rank's GPU, empty of a rank that computes on a CPU; nothing where GPUs do not take part.

    Raises
    ------
    LaunchError
    """
    if "cupy" not in spec.machine.backend:
        return []
    problem, gpu = "", ""
    each = spec.machine.rank_backends
    # Rank 0 runs what speedups are measured against, on every backend.
    needs_one = each is None or each[world.rank] == "cupy" or (world.is_root and spec.measure.baseline)
    try:
        gpu = gpu_of_rank(spec, world.local_rank) if needs_one else ""
    except HpcrnnError as error:
        problem = str(error)
    problems, gpus, hosts = zip(*world.comm.allgather((problem, gpu, socket.gethostname())), strict=True)
    problem = next(filter(None, problems), "") or gpu_problem(gpus, hosts, shared=spec.machine.allow_shared_gpu)
    if problem:
        raise LaunchError(problem)
    return list(gpus)


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
    """Say what shares cost that do not fit the ranks: uneven ones, or those that speeds cannot have exactly."""
    units = {"data": "rows", "pipeline": "operations", "time": "steps", "tensor": "hidden units"}
    found = []
    for axis, lost in plan.imbalance().items():
        if lost < WORTH_A_WARNING:
            continue
        shares, by_speed = plan.shares()[axis], getattr(plan.schedule.placement.speeds, axis, ())
        if by_speed:
            how = f"by speed, {', '.join(f'{share:.4g}' for share in shares)}, as nearly as whole numbers can"
        else:
            how = f"unevenly, {max(shares):.4g} on the busiest rank and {sum(shares) / len(shares):.4g} on average"
        found.append(f"{axis}={len(shares)} splits {units[axis]} {how}: {lost:.1%} of the step is lost")
    return found


def default_path(spec: RunSpec, n_ranks: int) -> Path:
    """A new name under ``results/``, from the model, the ranks and the time."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("results") / f"{spec.model.cell}-H{spec.model.hidden}-n{n_ranks}-{now}-{uuid.uuid4().hex[:6]}.h5"
