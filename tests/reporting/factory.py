"""Synthetic records: what a run would have written, with times that are known."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence

import numpy as np

from hpcrnn.records.record import Case, Check, Record, Verdict, strategy_of
from hpcrnn.spec import build_spec, to_dict

PHASES = ("step", "forward", "backward", "weight_gradient", "allreduce", "update", "other")
SHARES = {"forward": 0.31, "backward": 0.33, "weight_gradient": 0.24, "update": 0.08}

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
    **overrides: object,
) -> Case:
    """Make a case whose steps scatter to the right of ``median_s``, or are exactly ``samples``."""
    spec = to_dict(build_spec({}, {"batch": batch, "backend": backend, **overrides}))
    spec["parallel"]["grid"] = {"data": n_ranks}
    random = np.random.default_rng([seed, n_ranks, batch, n])
    count = n_warmup + n
    if samples is None:
        steps = median_s * (1 + spread * (random.gamma(1.5, 1.0, count) - 1.2))
        steps[:n_warmup] *= 1.4
    else:
        steps = np.asarray([*[2 * s for s in samples[:1] * n_warmup], *samples], dtype=np.float64)
        count, n_warmup = steps.size, steps.size - len(samples)
    time_s = _phases(steps, n_ranks, random)
    loss = 5.545 * np.exp(-np.arange(count) / 40) + 0.02 * random.standard_normal(count).cumsum() * 0.1
    bad = 3e-2 if not valid else 4e-7
    checks = (
        Check("loss", 1.1e-7, 9e-8, 1e-6),
        Check("gradient layer0.R", bad, 2.2e-7, 2e-6),
        Check("state layer1.h", 2e-7, 2e-7, 1.6e-6),
    )
    return Case(
        spec=spec,
        strategy=strategy_of({"data": n_ranks}),
        backend=backend,
        kernel="MKL packed sgemm" if backend == "numpy" else "torch.nn.LSTM",
        n_ranks=n_ranks,
        phases=PHASES,
        time_s=time_s[n_warmup:],
        warmup_s=time_s[:n_warmup],
        loss=loss,
        gradient_norm=np.ones(count),
        flops=batch * 64 * 2 * 3 * 2 * (512 * 2048 * 2) * 1.0,
        bytes_sent=np.full(n_ranks, 0 if n_ranks == 1 else 16_800_000, dtype=np.int64),
        peak_memory_bytes=np.full(n_ranks, 512 * 2**20, dtype=np.int64),
        stop_reason="interval within 5 % of the median",
        verdict=Verdict("VALID" if valid else "INVALID", "H32 L2 B6 T9, float32", 8.0, checks),
    )


def _phases(steps: np.ndarray, n_ranks: int, random: np.random.Generator) -> np.ndarray:
    """Cut steps into phases; rank 0 is the slowest, the others end up to 4 % earlier."""
    time_s = np.zeros((steps.size, n_ranks, len(PHASES)))
    early = 1 - 0.04 * random.random((steps.size, n_ranks))
    early[:, 0] = 1.0
    time_s[:, :, 0] = steps[:, None] * early
    shares = {**SHARES, "allreduce": 0.12 if n_ranks > 1 else 0.0}
    scale = 0.98 / sum(shares.values())
    for name, share in shares.items():
        time_s[:, :, PHASES.index(name)] = time_s[:, :, 0] * share * scale
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
    """Make the quick set: serial, data ×2 at the same batch, data ×2 at the same batch a rank."""
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
