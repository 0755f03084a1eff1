"""Records to write and read, and what it means that two are the same."""

import dataclasses
import uuid

import numpy as np

from hpcrnn.records.certificate import QUANTILES, SETTLED, UNMET, Certificate
from hpcrnn.records.compression import Compression
from hpcrnn.records.record import Case, Check, Record, Verdict
from hpcrnn.records.timeline import Timeline
from hpcrnn.records.work import Work
from hpcrnn.spec import build_spec, to_dict

PHASES = ("step", "forward", "backward", "allreduce", "other")


def make_case(n_ranks=2, n=7, n_warmup=3, *, phases=PHASES, seed=0, valid=True, strategy=None, **changes):
    """A case of pairwise distinct sizes, with NaN and infinity among its numbers."""
    random = np.random.default_rng(seed)
    overrides = changes.pop("overrides", {})
    values = {
        "spec": to_dict(build_spec({}, overrides)),
        "strategy": strategy or ("data" if n_ranks > 1 else "serial"),
        "backend": "numpy",
        "kernel": "MKL packed sgemm",
        "n_ranks": n_ranks,
        "phases": phases,
        "time_s": random.random((n, n_ranks, len(phases))),
        "warmup_s": random.random((n_warmup, n_ranks, len(phases))),
        "loss": np.append(random.random(n + n_warmup - 1), np.nan) if n + n_warmup else np.empty(0),
        "gradient_norm": np.full(n + n_warmup, np.inf),
        "flops": 1.25e9,
        "bytes_sent": random.integers(0, 2**62, n_ranks),
        "peak_memory_bytes": random.integers(0, 2**40, n_ranks),
        "memory_bytes": random.integers(1, 2**40, n_ranks),
        "stop_reason": "interval of the median 4.1 % wide ≤ 5 %",
        "verdict": Verdict(
            "VALID" if valid else "INVALID",
            "B 4, T 6, H 256",
            8.0,
            (Check("loss", 1e-8, 2e-8, 1.6e-7), Check("gradient layer0.R", 3e-7, np.nan, 0.1 + 0.2)),
        ),
    }
    return Case(**{**values, **changes})


def device_facts(n_ranks=2, n=7, phases=PHASES, seed=0):
    """What only a case on GPUs knows, for :func:`make_case`; of its phases two were measured."""
    random = np.random.default_rng(seed)
    measured = [name in ("forward", "backward") for name in phases]
    return {
        "kernel_details": ("H200; persistent, 64 blocks ☃", *[""] * (n_ranks - 1)),
        "device_time_s": np.where(measured, random.random((n, n_ranks, len(phases))), np.nan),
        "device_peak_bytes": random.integers(1, 2**40, n_ranks),
    }


def cpu_facts(n_ranks=2, n=7, phases=PHASES, seed=0):
    """The CPU times of a case, for :func:`make_case`; one rank's were not measured."""
    times = np.random.default_rng(seed).random((n, n_ranks, len(phases)))
    times[:, n_ranks - 1] = np.nan
    return {"cpu_time_s": times}


def make_compression(n_ranks=2, n=3, seed=0, **changes):
    """What a codec did; of pairwise distinct sizes."""
    random = np.random.default_rng(seed)
    values = {
        "plain_bytes": 2**40 + 1,
        "coded_bytes": 2**38 + 3,
        "plain_wire_bytes": 2.0**40 / 3,
        "coded_wire_bytes": 2.0**38 / 3,
        "training_step": np.array([0, 1, 3, 8, 16, 32])[:n],
        "error": random.random(n),
        "backlog": 10 * random.random(n),
        "held_back": random.random((n, n_ranks)),
    }
    return Compression(**{**values, **changes})


def make_work(n_ranks=2, n=3, seed=0, **changes):
    """What ranks worked on; of pairwise distinct sizes."""
    tokens = np.random.default_rng(seed).integers(1, 2**8, (n, n_ranks))
    values = {"tokens": tokens, "slots": tokens + 5, "n_sequences": np.arange(7)}
    return Work(**{**values, **changes})


def make_certificate(n_steps=10, n_layers=2, n_segments=5, n_rows=3, directions=("forward", "backward"), **changes):
    """A certificate of pairwise distinct sizes, with NaN, unmet and settled segments in it."""
    random = np.random.default_rng(0)
    steps = (n_steps, n_layers, len(directions))
    meeting = random.integers(1, 60, (n_layers, len(directions), n_segments, n_rows))
    meeting[:, :, 0], meeting[:, :, -1, -1:] = SETTLED, UNMET
    quantiles = np.sort(random.random((*steps, len(QUANTILES))) * 40, axis=-1)
    quantiles[:1] = np.nan
    values = {
        "layers": tuple(f"layer{k}" for k in range(n_layers)),
        "directions": directions,
        "n_segments": n_segments,
        "rounds": random.integers(1, 6, steps),
        "critical_steps": random.integers(20, 70, steps),
        "row_steps": random.integers(2**40, 2**41, steps),
        "residual": random.random(steps) * 1e-6,
        "converged": random.random(steps) < 0.8,
        "truncated": random.random(steps) < 0.2,
        "n_unmet": random.integers(0, 3, steps),
        "meeting_quantiles": quantiles,
        "meeting": meeting,
        "lyapunov": np.array([[-0.25] * n_layers, [np.nan] * n_layers]),
        "choice": {"chosen": "picard", "reason": "it met after 30 ☃", "probe": {"meeting": [29.0, 33.0]}},
    }
    return Certificate(**{**values, **changes})


def make_timeline(rows, repetition=0):
    """A timeline of rows ``(rank, instruction, start_s, end_s)``."""
    ranks, texts, starts, ends = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Timeline(
        rank=np.array(ranks, dtype=np.int64),
        instruction=tuple(texts),
        start_s=np.array(starts, dtype=np.float64),
        end_s=np.array(ends, dtype=np.float64),
        repetition=repetition,
    )


EXCHANGE = (
    # Rank 0 works until 3, sends y and is done with it at 6; rank 1 posts at 1, waits from 2 to 5.
    (0, "PostRecv dy(0,0,0) from 1, 64 B", 0.0, 0.5),
    (0, "F(0,0,0)", 0.5, 3.0),
    (0, "PostSend y(0,0,0) to 1, 128 B", 3.0, 3.5),
    (0, "Wait send y(0,0,0)", 3.5, 6.0),
    (0, "AllReduce(loss) over pipeline, 8 B", 6.0, 6.0),
    (0, "Wait AllReduce(loss)", 6.0, 9.0),
    (0, "Update", 9.0, 9.5),
    (1, "F(1,0,1)", 0.0, 1.0),
    (1, "PostRecv y(0,0,0) from 0, 128 B", 1.0, 2.0),
    (1, "Wait recv y(0,0,0)", 2.0, 5.0),
    (1, "B(1,0,0)", 5.0, 8.0),
    (1, "AllReduce(loss) over pipeline, 8 B", 8.0, 8.5),
    (1, "Wait AllReduce(loss)", 8.5, 9.25),
)
"""A message whose sender is late and a sum whose second rank is, by hand."""


def make_record(*cases, **changes):
    values = {
        "uuid": str(uuid.uuid4()),
        "created_utc": "2025-01-02T03:04:05+00:00",
        "hpcrnn_version": "0.1.0",
        "argv": ("hpcrnn", "run", "--workload", "file:Grün \udcff", ""),
        "environment": {
            "hosts": [{"hostname": "a", "memory_bytes": 2**40}, {"hostname": "b", "cpu_quota": None}],
            "mpi": {"library": "MPICH ☃"},
            "slurm": {},
            "clock": {"resolution_s": 0.1 + 0.2, "overhead_s": float("nan")},
        },
        "cases": cases or (make_case(1, seed=1), make_case(2, seed=2)),
    }
    return Record(**{**values, **changes})


def plain(value):
    """A form that is equal where, and only where, every bit is; NaN equals itself."""
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.compare]
        return {name: plain(getattr(value, name)) for name in fields}
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]  # JSON has lists only
    return (type(value).__name__, repr(value))


def assert_same(first, second):
    assert plain(first) == plain(second)
