"""A record in which everything holds that must hold, with every optional part in it, and how to break its file."""

import hashlib
from dataclasses import replace

import h5py
import numpy as np
from record_samples import make_compression, make_record

from hpcrnn.records.certificate import QUANTILES, SETTLED, UNMET, Certificate
from hpcrnn.records.learning import Curve, Learning
from hpcrnn.records.record import BUSY_PHASES, PHASES, Case, Check, Verdict, strategy_of
from hpcrnn.records.timeline import Timeline
from hpcrnn.records.work import Work
from hpcrnn.spec import build_spec, to_dict

SEQ, BATCH, LAYERS, FOLD = 64, 6, 2, 4
N, N_WARMUP = 9, 2

INSTRUCTIONS = {
    "forward": "F(1,0,0)",
    "backward": "B(1,0,0)",
    "weight_gradient": "W(1,0,0)",
    "post": "PostSend y(1,0,0) to 1, 64 B",
    "wait_recv": "Wait recv dy(1,0,0)",
    "wait_send": "Wait send y(1,0,0)",
    "allreduce": "Wait AllReduce(loss)",
    "update": "Update",
}


def make_times(random, n, n_ranks, median_s):
    """Times (n, ranks, phases) whose phases add up to the step."""
    times = np.zeros((n, n_ranks, len(PHASES)))
    times[:, :, 1:] = random.random((n, n_ranks, len(PHASES) - 1))
    times[:, :, 1:] *= median_s / times[:, :, 1:].sum(axis=2, keepdims=True) * (1 + 0.02 * random.random((n, 1, 1)))
    times[:, :, 0] = times[:, :, 1:].sum(axis=2)
    return times


def from_the_median(case):
    """How far each repetition is from the median step, seconds."""
    return np.abs(case.step_s() - np.median(case.step_s()))


def make_timeline(case, repetition=None):
    """The timeline of a repetition, by default the one nearest to the median; one instruction a phase."""
    repetition = int(from_the_median(case).argmin()) if repetition is None else repetition
    lasted = [[case.time_s[repetition, r, PHASES.index(p)] for p in INSTRUCTIONS] for r in range(case.n_ranks)]
    ends = np.cumsum(lasted, axis=1)
    return Timeline(
        rank=np.repeat(np.arange(case.n_ranks), len(INSTRUCTIONS)),
        instruction=tuple(INSTRUCTIONS.values()) * case.n_ranks,
        start_s=(ends - lasted).ravel(),
        end_s=ends.ravel(),
        repetition=repetition,
    )


def quantiles_of(met):
    return np.quantile(met, QUANTILES) if met.size else np.full(len(QUANTILES), np.nan)


def make_certificate(n_steps, layers=LAYERS, segments=FOLD, rows=BATCH):
    """A certificate whose last step is that of its meeting lengths; one segment did not meet, the first never ran."""
    random = np.random.default_rng(5)
    meeting = random.integers(1, SEQ // segments, (layers, 2, segments, rows))
    meeting[:, :, 0], meeting[:, :, -1, -1] = SETTLED, UNMET
    quantiles = [[quantiles_of(lengths[lengths > SETTLED]) for lengths in layer] for layer in meeting]
    shape = (n_steps, layers, 2)
    return Certificate(
        layers=tuple(f"layer{k}" for k in range(layers)),
        directions=("forward", "backward"),
        n_segments=segments,
        rounds=np.full(shape, 2),
        critical_steps=np.full(shape, 30),
        row_steps=np.full(shape, 2 * SEQ * rows),
        residual=np.full(shape, 4e-7),
        converged=np.ones(shape, dtype=np.bool_),
        truncated=np.zeros(shape, dtype=np.bool_),
        n_unmet=np.ones(shape, dtype=np.int64),
        meeting_quantiles=np.broadcast_to(quantiles, (*shape, len(QUANTILES))).copy(),
        meeting=meeting,
        lyapunov=np.array([[-0.3] * layers, [np.nan] * layers]),
        choice={"chosen": "picard"},
    )


def make_case(grid=None, median_s=0.4, *, backend="numpy", seed=0, n=N, status="VALID", **overrides):
    """A case in which everything holds; without a repetition where ``n`` is 0."""
    size = {"seq": SEQ, "batch": BATCH, "layers": LAYERS, "hidden": 12}
    spec = to_dict(build_spec({}, {**size, "backend": backend, **overrides}))
    grid = {"data": 1, "pipeline": 1, "time": 1, "tensor": 1, **(grid or {})}
    spec["parallel"]["grid"] = grid
    n_ranks, random = int(np.prod(list(grid.values()))), np.random.default_rng([seed, n])
    n_warmup = N_WARMUP if n else 0
    steps = n + n_warmup
    error = {"VALID": 1e-8, "INVALID": 1.0, "APPROXIMATE": 3e-2}[status]
    return Case(
        spec=spec,
        strategy=strategy_of(grid),
        backend=backend,
        kernel="numpy sgemm",
        n_ranks=n_ranks,
        phases=PHASES,
        time_s=make_times(random, n, n_ranks, median_s),
        warmup_s=make_times(random, n_warmup, n_ranks, 2 * median_s),
        loss=5.5 - 0.1 * random.random(steps),
        gradient_norm=1 + random.random(steps),
        flops=1.5e9,
        bytes_sent=np.full(n_ranks, 4096 if n_ranks > 1 else 0),
        peak_memory_bytes=random.integers(2**28, 2**29, n_ranks),
        memory_bytes=random.integers(2**20, 2**21, n_ranks),
        stop_reason="max_time" if n else "invalid",
        verdict=Verdict(
            status,
            "full size",
            4.0,
            (Check("loss", 1e-9, 1e-9, 1e-7), Check("gradient layer0.R", error, 3e-8, 1e-6)),
        ),
        bubble_bound=0.2 if n_ranks > 1 else 0.0,
    )


def make_learning(target_loss=2.5, legs=(4, N - 4)):
    """Curves of two seeds, of which the first reached the target."""
    endings = ("target", "max_steps")
    curves = []
    for k, (n, ending) in enumerate(zip(legs, endings, strict=True)):
        steps = 20 * np.arange(n + 1)
        loss = np.linspace(5.5, target_loss + (0 if ending == "target" else 0.4), n + 1)
        curves.append(
            Curve(
                seed=k,
                ending=ending,
                step=steps,
                time_s=0.4 * steps,
                sent_bytes=8192 * steps,
                energy_j=np.where(k, np.nan, 12.5 * steps),
                train_loss=np.append(np.nan, loss[1:] - 0.1),
                held_out_loss=loss,
            )
        )
    return Learning(target_loss, "nats per byte", "8 sequences of the last tenth", tuple(curves), (3,))


def sound_cases():
    """A serial run, a traced pipeline, segments at once, two GPUs, one wrong, one to a target, one with a codec."""
    serial, pipeline = make_case(seed=1), make_case({"pipeline": 2}, 0.24, seed=2)
    at_once = make_case(None, 0.2, seed=3, method="picard", fold=FOLD)
    gpu = make_case({"data": 2}, 0.1, seed=4, backend="cupy")
    at_work = np.isin(PHASES, BUSY_PHASES)
    serial = replace(serial, cpu_time_s=0.97 * serial.time_s)
    return (
        serial,
        replace(pipeline, timeline=make_timeline(pipeline)),
        replace(at_once, certificate=make_certificate(N + N_WARMUP)),
        replace(
            gpu,
            kernel_details=("H200; persistent, 64 blocks", ""),
            device_time_s=np.where(at_work, 0.8 * gpu.time_s, np.nan),
            device_peak_bytes=np.array([2**30, 2**30 + 1]),
        ),
        make_case(seed=5, n=0, status="INVALID", cell="gru"),
        replace(
            make_case({"data": 2}, seed=6, mode="target", target_loss=2.5, seeds=2),
            learning=make_learning(),
            staleness=np.array([30, 8, 1]),
        ),
        compressed_case(),
        ragged_case(),
    )


def compressed_case():
    """Two ranks that send their gradients in fewer bits."""
    case = make_case({"data": 2}, 0.11, seed=7, status="APPROXIMATE")
    parallel = case.spec["parallel"] | {"grad_codec": "int8"}
    return replace(case, spec=case.spec | {"parallel": parallel}, compression=make_compression())


def ragged_case():
    """Two ranks whose rows are lines, padded."""
    case = make_case({"data": 2}, 0.12, seed=8)
    problem = case.spec["problem"] | {"sequences": "lines"}
    counts = np.zeros(SEQ, dtype=np.int64)
    counts[::9] = 30
    tokens = np.random.default_rng(8).integers(SEQ, 2 * SEQ, (N, 2))
    return replace(case, spec=case.spec | {"problem": problem}, work=Work(tokens, tokens + SEQ, counts))


def sound_record(*cases):
    return make_record(*(cases or sound_cases()))


def edit_file(path, change):
    """Change a file as another program could, and give it the checksum that belongs to it."""
    with h5py.File(path, "r+") as file:
        change(file)
    body = path.read_bytes()[512:]
    head = f"hpcrnn-record\nsha256 {hashlib.sha256(body).hexdigest()}\nbytes {len(body)}\n".encode()
    path.write_bytes(head.ljust(512, b"\0") + body)
