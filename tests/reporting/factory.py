"""Synthetic records: what a run would have written, with times that are known."""

from __future__ import annotations

import copy
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hpcrnn.records.certificate import Certificate
from hpcrnn.records.record import BUSY_PHASES, Case, Check, Record, Verdict, strategy_of
from hpcrnn.records.timeline import Timeline
from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.placement import make_placement
from hpcrnn.schedules.program import Update
from hpcrnn.schedules.replay import replay
from hpcrnn.schedules.schedule import Schedule
from hpcrnn.spec import Grid, build_spec, to_dict

PHASES = ("step", "forward", "backward", "weight_gradient", "allreduce", "update", "other")
WAITING_PHASES = (*PHASES[:4], "post", "wait_recv", "wait_send", *PHASES[4:])
SHARES = {"forward": 0.31, "backward": 0.33, "weight_gradient": 0.24, "update": 0.08}

KERNELS = {"numpy": "MKL packed sgemm", "torch": "torch.nn.LSTM", "cupy": "cupy bfloat16 persistent"}

ENVIRONMENT = {
    "hosts": [],
    "mpi": {"library": "MPICH Version: 5.0.2", "standard": "4.1", "thread_level": "funneled", "n_nodes": 1},
    "blas": {
        "numpy_built_with": {"name": "scipy-openblas", "version": "0.3.31"},
        "libraries": [{"user_api": "blas", "internal_api": "mkl", "version": "2026.2", "num_threads": 1}],
    },
    "packages": {"python": "3.11.7", "numpy": "2.4.6", "mpi4py": "4.1.2", "h5py": "3.16.0"},
    "variables": {"OMP_NUM_THREADS": "1"},
    "git": {"commit": "c63209c0f1e2d3c4b5a697887766554433221100", "dirty": False},
    "slurm": {},
    "clock": {"name": "time.perf_counter_ns", "source": "tsc", "resolution_s": 4e-8, "overhead_s": 5.1e-8},
}


def make_case(
    n_ranks: int = 1,
    batch: int = 64,
    median_s: float = 0.4,
    *,
    backend: str = "numpy",
    n: int = 32,
    n_warmup: int = 2,
    valid: bool = True,
    spread: float = 0.02,
    samples: Sequence[float] | None = None,
    seed: int = 0,
    grid: Mapping[str, int] | None = None,
    memory_mib: float = 256.0,
    timeline: Timeline | None = None,
    bubble_bound: float = math.nan,
    certificate: Certificate | None = None,
    gradient_error: float | None = None,
    **overrides: object,
) -> Case:
    """Make a case whose steps scatter to the right of ``median_s``, or are exactly ``samples``."""
    spec = to_dict(build_spec({}, {"batch": batch, "backend": backend, **overrides}))
    grid = dict(grid or {"data": n_ranks})
    n_ranks = math.prod(grid.values())
    spec["parallel"]["grid"] = grid
    random = np.random.default_rng([seed, n_ranks, batch, n])
    count = n_warmup + n
    if samples is None:
        steps = median_s * (1 + spread * (random.gamma(1.5, 1.0, count) - 1.2))
        steps[:n_warmup] *= 1.4
    else:
        steps = np.asarray([*[2 * s for s in samples[:1] * n_warmup], *samples], dtype=np.float64)
        count, n_warmup = steps.size, steps.size - len(samples)
    phases = PHASES if strategy_of(grid) in ("serial", "data") else WAITING_PHASES
    time_s = _phases(steps, n_ranks, random, phases, bubble_bound)
    loss = 5.545 * np.exp(-np.arange(count) / 40) + 0.02 * random.standard_normal(count).cumsum() * 0.1
    status = "APPROXIMATE" if gradient_error else "VALID" if valid else "INVALID"
    bad = gradient_error or (4e-7 if valid else 3e-2)
    checks = (
        Check("loss", 1.1e-7, 9e-8, 1e-6),
        Check("gradient layer0.R", bad, 2.2e-7, 2e-6),
        Check("state layer1.h", 2e-7, 2e-7, 1.6e-6),
    )
    return Case(
        spec=spec,
        strategy=strategy_of(grid),
        backend=backend,
        kernel=KERNELS[backend],
        n_ranks=n_ranks,
        phases=phases,
        time_s=time_s[n_warmup:],
        warmup_s=time_s[:n_warmup],
        loss=loss,
        gradient_norm=np.ones(count),
        flops=batch * 64 * 2 * 3 * 2 * (512 * 2048 * 2) * 1.0,
        bytes_sent=np.full(n_ranks, 0 if n_ranks == 1 else 16_800_000, dtype=np.int64),
        peak_memory_bytes=np.full(n_ranks, 512 * 2**20, dtype=np.int64),
        memory_bytes=np.array([(1 - 0.08 * r / n_ranks) * memory_mib * 2**20 for r in range(n_ranks)], dtype=np.int64),
        stop_reason="interval within 5 % of the median",
        verdict=Verdict(status, "H32 L2 B6 T9, float32", 8.0, checks),
        timeline=timeline,
        bubble_bound=bubble_bound,
        certificate=certificate,
    )


def on_device(case: Case, share: float = 0.8, pool_mib: float = 1536.0, layouts: Sequence[str] = ()) -> Case:
    """Let a case have run on GPUs that were at work for a share of each phase that is work."""
    busy = [phase in BUSY_PHASES for phase in case.phases]
    rows = 64 // case.n_ranks
    layout = f"NVIDIA H200; persistent forward 4x{rows // 8} blocks of 8 warps, 168 registers, 181248 B shared"
    return replace(
        case,
        kernel_details=tuple(layouts or [layout] * case.n_ranks),
        device_time_s=np.where(busy, share * case.time_s, np.nan),
        device_peak_bytes=np.full(case.n_ranks, int(pool_mib * 2**20), dtype=np.int64),
    )


def gpu_cases() -> list[Case]:
    """Make a problem on 1, 2 and 4 GPUs, the serial run of NumPy beside them, and a pipeline whose ranks differ."""
    size = {"hidden": 512, "backend": "cupy"}
    ways = [on_device(make_case(n, 64, 0.031 / n * (1 + 0.1 * n), seed=n, **size)) for n in (1, 2, 4)]
    pipeline = make_case(2, 64, 0.02, grid={"pipeline": 2}, chunks=4, bubble_bound=0.2, **size)
    layouts = ("NVIDIA H200; persistent forward 4x8 blocks", "NVIDIA H200; stepwise forward (too wide)")
    return [make_case(1, 64, 0.412, hidden=512), *ways, on_device(pipeline, 0.6, 900, layouts)]


def make_certificate(
    n_steps: int = 34,
    n_segments: int = 128,
    seq: int = 65_536,
    *,
    layers: int = 1,
    directions: Sequence[str] = ("forward", "backward"),
    meeting: float = 29.0,
    growth: float = 0.4,
    converges: bool = True,
    truncates: bool = False,
    lyapunov: float = -0.31,
) -> Certificate:
    """Make a certificate whose meeting lengths grow as training proceeds."""
    random = np.random.default_rng(3)
    shape = (n_steps, layers, len(directions))
    grown = meeting * (1 + growth * np.linspace(0, 1, n_steps)[:, None, None]) * (1 + 0.06 * np.arange(shape[2]))
    spread = np.array([0.8, 0.93, 1.0, 1.04, 1.08, 1.16])
    quantiles = np.round(grown[..., None] * spread * (1 + 0.01 * random.standard_normal((*shape, 1))))
    rounds = np.where(quantiles[..., -1] > 1.5 * meeting, 3, 2)
    done = np.ones(shape, dtype=np.bool_)
    if not converges:
        rounds[-3:], done[-3:] = 4, False
    return Certificate(
        layers=tuple(f"layer{k}" for k in range(layers)),
        directions=tuple(directions),
        n_segments=n_segments,
        rounds=rounds,
        critical_steps=seq // n_segments + (rounds - 1) * quantiles[..., -1].astype(np.int64),
        row_steps=np.full(shape, 2 * seq),
        residual=np.where(done, 4e-7, 2e-3),
        converged=done,
        truncated=np.full(shape, truncates),
        n_unmet=np.where(done, 0, 7),
        meeting_quantiles=quantiles,
        meeting=np.full((layers, len(directions), n_segments, 1), 29),
        lyapunov=np.array([[lyapunov] * layers, [lyapunov + 0.05] * layers]),
        choice={},
    )


def uncorrected(certificate: Certificate) -> Certificate:
    """Make the certificate of a method that corrects nothing."""
    return replace(
        certificate,
        rounds=np.ones_like(certificate.rounds),
        converged=np.zeros_like(certificate.converged),
        residual=np.full_like(certificate.residual, 0.4),
        meeting_quantiles=np.full_like(certificate.meeting_quantiles, np.nan),
        lyapunov=np.full_like(certificate.lyapunov, np.nan),
    )


LONG = {"hidden": 512, "layers": 1, "seq": 65_536, "mode": "gradient"}
"""A long sequence, which is what time-parallel methods are for."""


def time_parallel_cases() -> list[Case]:
    """Make a serial run of a long sequence and segments of time at once: exact, not converged, approximate."""
    two = {"grid": {"time": 2}}
    picard, alike = make_certificate(), make_certificate(n_segments=256)
    adrift = make_certificate(meeting=180.0, converges=False, truncates=True, lyapunov=0.02)
    none = uncorrected(make_certificate(n_segments=64))
    return [
        make_case(1, 1, 24.4, **LONG),
        make_case(1, 1, 4.6, method="picard", fold=128, certificate=picard, seed=1, **LONG),
        make_case(1, 1, 2.6, method="picard", fold=128, certificate=alike, seed=2, **two, **LONG),
        make_case(1, 1, 3.1, method="gateprod", fold=64, max_rounds=4, certificate=adrift, seed=3, **two, **LONG),
        make_case(1, 1, 1.9, method="tbptt_zero", fold=64, certificate=none, gradient_error=3e-2, seed=4, **LONG),
    ]


class _Sizes:
    """Bytes of what crosses ranks, made up."""

    def value_bytes(self, value, place):
        return 131_072 if value.kind in ("y", "dy") else 16_384

    def gradient_bytes(self, block, place):
        return 8_400_000


COSTS = {"F": 1.0, "B": 1.1, "W": 0.8}


def make_timeline(
    grid: Mapping[str, int],
    order: str = "fill_drain",
    microbatches: int = 1,
    chunks: int = 1,
    layers: int = 4,
    step_s: float = 0.1,
) -> Timeline:
    """Run the programs of a schedule on a clock; a step of ``step_s``."""
    shape = Grid(**grid)
    recurrent = (False, *[True] * layers, False)
    graph = TaskGraph(recurrent, microbatches, chunks * shape.time)
    costs = [1.0 if heavy else 0.1 for heavy in recurrent]
    placement = make_placement(graph, shape, costs)
    names = ("input", *(f"layer{k}" for k in range(layers)), "head")
    programs = Schedule(graph, placement, order, "train", "allreduce_bucketed", False, names, _Sizes()).programs()
    random = np.random.default_rng(1)

    def cost(rank, instruction):
        if isinstance(instruction, Task):
            return COSTS[instruction.kind] * costs[instruction.block] * (1 + 0.1 * random.random())
        return 0.4 if isinstance(instruction, Update) else 0.02

    walk = replay(
        dict(enumerate(programs)), lambda rank, axes: placement.group(placement.place(rank), axes), cost,
        synchronous=True,
    )  # fmt: skip
    assert not walk.stuck
    scale = step_s / walk.makespan
    return Timeline(
        rank=np.repeat(np.arange(shape.n_ranks), [len(p.instructions) for p in programs]),
        instruction=tuple(str(i) for p in programs for i in p.instructions),
        start_s=np.concatenate([walk.start[p.rank] for p in programs]) * scale,
        end_s=np.concatenate([walk.end[p.rank] for p in programs]) * scale,
        repetition=3,
    )


def strategy_cases(ranks: Sequence[int] = (2, 4)) -> list[Case]:
    """Make a serial run and every way of splitting a problem, with memory, bounds and some timelines."""
    size = {"hidden": 512, "layers": 4}
    one = 0.412
    cases = [make_case(1, 64, one, memory_mib=380, bubble_bound=0.0, **size)]
    for n in ranks:
        ways = [
            ({"data": n}, {}, 0.0, 0.93, 0.62),
            ({"pipeline": n}, {"order": "fill_drain", "microbatches": 4}, (n - 1) / (4 + n - 1), 0.95, 0.61),
            ({"pipeline": n}, {"order": "1f1b", "microbatches": 4, "chunks": 2}, (n - 1) / (8 + n - 1), 0.96, 0.44),
            ({"pipeline": n}, {"order": "zb_h1", "microbatches": 4}, 0.4 * (n - 1) / (4 + n - 1), 0.9, 0.7),
            ({"time": n}, {"microbatches": 4}, (n - 1) / (16 + n - 1), 0.91, 0.55),
            ({"tensor": n}, {}, 0.0, 0.81, 0.3 + 0.7 / n),
        ]
        if n > 2:
            ways += [
                ({"data": 2, "pipeline": n // 2}, {"order": "1f1b", "microbatches": 4}, 0.2, 0.9, 0.5),
                ({"data": n // 2, "pipeline": 2}, {"order": "1f1b", "microbatches": 4}, 0.2, 0.88, 0.52),
            ][: 2 if n > 4 else 1]
        for k, (grid, cut, bound, share, memory) in enumerate(ways):
            median = one / (n * (1 - bound) * share)
            traced = make_timeline(grid, **cut, step_s=median) if set(grid) == {"pipeline"} else None
            kept = {"bubble_bound": bound, "memory_mib": 380 * memory, "timeline": traced, "seed": n + k}
            cases.append(make_case(n, 64, median, grid=grid, **kept, **size, **cut))
    return cases


def _phases(
    steps: np.ndarray, n_ranks: int, random: np.random.Generator, phases: Sequence[str], bubble: float
) -> np.ndarray:
    """Cut steps into phases; rank 0 is the slowest, the others end up to 4 % earlier."""
    time_s = np.zeros((steps.size, n_ranks, len(phases)))
    early = 1 - 0.04 * random.random((steps.size, n_ranks))
    early[:, 0] = 1.0
    time_s[:, :, 0] = steps[:, None] * early
    shares = {**SHARES, "allreduce": 0.12 if n_ranks > 1 else 0.0}
    if "wait_recv" in phases:
        waiting = 0.0 if math.isnan(bubble) else 0.96 * bubble / (1 - bubble)
        shares |= {"allreduce": 0.02, "post": 0.01, "wait_recv": 0.02 + 0.9 * waiting, "wait_send": 0.1 * waiting}
    scale = 0.98 / sum(shares.values())
    for name, share in shares.items():
        time_s[:, :, phases.index(name)] = time_s[:, :, 0] * share * scale
    time_s[:, :, -1] = time_s[:, :, 0] - time_s[:, :, 1:-1].sum(axis=2)
    return time_s


def make_record(cases: Sequence[Case], *, source: str = "results/quick.h5", seed: int = 0, **changes: object) -> Record:
    """Make a record of these cases, as if one run on ``node01`` had written it."""
    n_ranks = max((case.n_ranks for case in cases), default=1)
    environment = copy.deepcopy(ENVIRONMENT)
    environment["hosts"] = [_host(rank) for rank in range(n_ranks)]
    values = {
        "uuid": str(uuid.UUID(int=seed + 1)),
        "created_utc": "2025-11-20T15:42:11+00:00",
        "hpcrnn_version": "0.1.0",
        "argv": ("mpirun", "-n", str(n_ranks), "hpcrnn", "run", "--hidden", "512", "--workload", "stdlib"),
        "environment": environment,
        "cases": tuple(cases),
        "source": source,
        **changes,
    }
    return Record(**values)


def _host(rank: int) -> dict[str, object]:
    return {
        "hostname": f"node{1 + rank // 64:02d}",
        "pid": 4000 + rank,
        "system": "Rocky Linux 9.5",
        "cpu_model": "Intel Xeon Platinum 8480+",
        "simd": ["avx2", "fma", "avx512f", "amx_tile"],
        "affinity": str(rank % 64),
        "n_physical_cores": 1,
        "caches": {"L1d_bytes": 49152, "L2_bytes": 2097152, "L3_bytes": 110100480},
        "memory_bytes": 540_000_000_000,
        "governor": "unknown",
        "load_average": 1.0 + rank,
        "cpu_quota": None,
        "gpus": [],
    }


def quick_cases() -> list[Case]:
    """Make the quick set: serial, data 2 at the same batch, data 2 at the same batch a rank."""
    size = {"hidden": 512}
    return [
        make_case(1, 64, 0.412, **size),
        make_case(2, 64, 0.219, seed=1, **size),
        make_case(2, 128, 0.431, seed=2, **size),
    ]


def many_cases() -> list[Case]:
    """Make forty: five hidden sizes, eight rank counts."""
    cases = []
    for k, hidden in enumerate((128, 256, 512, 1024, 2048)):
        for j, n_ranks in enumerate((1, 2, 4, 8, 16, 32, 64, 128)):
            one = 0.002 * 4.0**k
            median = one * (1 / n_ranks + 0.004 * j)
            cases.append(make_case(n_ranks, 256, median, hidden=hidden, seed=40 + k, n=5 if (k, j) == (2, 3) else 24))
    return cases
