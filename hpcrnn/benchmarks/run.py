"""One run: check, verify, measure, record."""

from __future__ import annotations

import resource
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

import hpcrnn
from hpcrnn.backends.registry import check_backends
from hpcrnn.benchmarks.planning import Plan, check_memory, make_plan
from hpcrnn.benchmarks.progress import Progress
from hpcrnn.benchmarks.verification import verify
from hpcrnn.errors import LaunchError
from hpcrnn.execution.executor import PHASES
from hpcrnn.execution.measurement import Samples, Variant, measure
from hpcrnn.execution.world import World, check_threads
from hpcrnn.records.environment import environment, host_facts
from hpcrnn.records.hdf5 import check_writable, write_record
from hpcrnn.records.record import Case, Record, Verdict, strategy_of
from hpcrnn.spec import BackendName, RunSpec, resolve_grid, to_dict
from hpcrnn.workloads import Workload, open_workload

SYNC = "MPI_Barrier before each step, after every rank has loaded its batch"
RANK_REDUCE = "all ranks are kept; a step is as long as its slowest rank's"

CaseKey = tuple[BackendName, int]
"""Backend and number of ranks of one case of a run."""


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
    path = Path(spec.measure.out) if spec.measure.out else default_path(spec, grid.data)
    world.on_root(lambda: check_writable(path, spec.measure.overwrite))
    check_backends(spec)
    check_threads(world, spec.machine.threads)
    spec = msgspec.structs.replace(spec, parallel=msgspec.structs.replace(spec.parallel, grid=grid))

    workload = open_workload(spec)
    check_same_data(workload, world)
    keys = case_keys(spec, grid.data)
    plans = {n: make_plan(spec, workload, n) for _, n in keys}
    check_memory(plans[grid.data], len(keys), world.ranks_on_node())

    with threadpool_limits(limits=spec.machine.threads), Progress(enabled=world.is_root) as progress:
        progress.say(f"verifying {', '.join(_name(*key) for key in keys)}")
        verdicts = verify(spec, workload, keys, world)
        variants, kernels = _variants(workload, plans, keys, world)
        valid = all(v.status == "VALID" for v in verdicts.values())
        samples = [Samples(stop_reason="invalid") for _ in keys]
        if valid:
            samples = measure(variants, world, spec.measure, progress.watcher([v.name for v in variants], spec.measure))
    peaks = world.comm.gather(_peak_memory_bytes())
    hosts = world.comm.gather(host_facts())
    mpi = world.facts()
    if peaks is None or hosts is None:  # all ranks but the first
        world.on_root(lambda: None)
        return None
    cases = tuple(
        _case(spec, key, kernels[key], plans[key[1]], found, verdicts[key], peaks)
        for key, found in zip(keys, samples, strict=True)
    )
    facts = environment(hosts, mpi) | {"workload": workload.describe()}
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


def case_keys(spec: RunSpec, n_replicas: int) -> list[CaseKey]:
    """Backends and rank counts of a run: every backend on the whole grid, and serial where a base is wanted."""
    counts = [1, n_replicas] if n_replicas > 1 and spec.measure.baseline else [n_replicas]
    return [(backend, n) for n in counts for backend in spec.machine.backend]


def default_path(spec: RunSpec, n_ranks: int) -> Path:
    """A new name under ``results/``, from the model, the ranks and the time."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("results") / f"{spec.model.cell}-H{spec.model.hidden}-n{n_ranks}-{now}-{uuid.uuid4().hex[:6]}.h5"


def _name(backend: str, n_ranks: int) -> str:
    return f"{backend} ×{n_ranks}" if n_ranks > 1 else f"{backend} serial"


def _variants(
    workload: Workload, plans: dict[int, Plan], keys: Sequence[CaseKey], world: World
) -> tuple[list[Variant], dict[CaseKey, str]]:
    """Build this rank's part of every case; an executor where the rank takes part."""
    variants, kernels = [], {}
    for backend, n in keys:
        plan = plans[n]
        rank = world.rank if n > 1 else 0
        executor = None
        if n > 1 or world.is_root:
            executor = plan.executor(rank, backend, world.comm if n > 1 else world.alone)
            kernels[backend, n] = executor.engine.kernel
        rows = plan.rows(rank)
        variants.append(
            Variant(_name(backend, n), n, executor, lambda step, rows=rows: workload.batch(step, rows))  # type: ignore[misc]
        )
    return variants, kernels


def _case(
    spec: RunSpec,
    key: CaseKey,
    kernel: str,
    plan: Plan,
    samples: Samples,
    verdict: Verdict,
    peaks: Sequence[int],
) -> Case:
    backend, n = key
    shape = (0, n, len(PHASES))
    grid = msgspec.structs.replace(spec.parallel.grid, data=n)  # type: ignore[type-var]  # resolved by run
    used = msgspec.structs.replace(
        spec,
        parallel=msgspec.structs.replace(spec.parallel, grid=grid),
        machine=msgspec.structs.replace(spec.machine, backend=(backend,)),
    )
    return Case(
        spec=to_dict(used),
        strategy=strategy_of({"data": n}),
        backend=backend,
        kernel=kernel,
        n_ranks=n,
        phases=PHASES,
        time_s=np.array(samples.time_s) if samples.time_s else np.empty(shape),
        warmup_s=np.array(samples.warmup_s) if samples.warmup_s else np.empty(shape),
        loss=np.array(samples.loss),
        gradient_norm=np.array(samples.gradient_norm),
        flops=plan.flops(),
        bytes_sent=np.array([program.bytes_sent for program in plan.programs], dtype=np.int64),
        peak_memory_bytes=np.array(peaks[:n], dtype=np.int64),
        stop_reason=samples.stop_reason,
        verdict=verdict,
    )


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
