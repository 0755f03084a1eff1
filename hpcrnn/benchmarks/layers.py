"""One recurrent layer on one GPU beside cuDNN through ``torch.nn``: verified, then timed in one interleaved run.

``python -m hpcrnn.benchmarks.layers --out results/gpu/layers.h5``

Inside a timing, of either side: the input's product for the whole sequence, the recurrence, and in the training pass
the backward recurrence, dx, and the gradients of W, R and b. Outside: copies to the device, rounding of the weights,
autograd's clearing of gradients. Time is from an event before the first kernel to one after the last, so the host's
work in between counts where the GPU waits for it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hpcrnn.backends.layer_case import PASSES, LayerArrays, LayerCase, TimedLayer, solve_layer
from hpcrnn.kernels.variants import PRECISIONS, Precision
from hpcrnn.records.environment import package_facts
from hpcrnn.records.host import host_facts
from hpcrnn.records.layers import LayerRecord, LayerTiming, write_layer_record

ALLOWED_ERROR = {"float32": 1e-5, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 1e-2}
"""Largest relative error against float64 of anything that is timed."""

CHECK_STEPS = 16
"""Length of the sequences that are checked before longer ones are timed."""

WARMUP = 2


def preset_cases() -> list[LayerCase]:
    """Return what is measured by default."""
    sizes = [(16, 512), (64, 1024), (16, 768)]
    cases = [
        _square(cell, "bfloat16", *size, 1024, "bfloat16: cuDNN step by step")
        for cell in ("lstm", "gru")
        for size in sizes
    ]
    persistent = [(16, 512), (64, 1024), (32, 1024), (16, 768), (128, 512)]
    cases += [_square("lstm", "float16", *size, 1024, "float16: cuDNN persistent") for size in persistent]
    lstm = [
        (16, 512, 25),
        (64, 512, 25),
        (32, 1024, 25),
        (128, 1024, 25),
        (32, 2048, 25),
        (8, 1536, 50),
        (64, 256, 150),
    ]
    gru = [(32, 512, 375), (32, 1024, 375), (32, 1536, 187), (32, 2048, 187), (32, 2816, 187)]
    cases += [_square("lstm", "float16", *size, "float16: DeepBench-like") for size in lstm]
    cases += [_square("gru", "float16", *size, "float16: DeepBench-like") for size in gru]
    cases += [
        _square(cell, precision, *size, 256, "float32 and TF32")
        for precision in ("float32", "tf32")
        for cell in ("lstm", "gru")
        for size in ((16, 512), (64, 1024))
    ]
    cases.append(_square("elman", "bfloat16", 64, 1024, 1024, "bfloat16: cuDNN step by step"))
    return [
        *cases,
        *(_square("lstm", precision, 1, 512, 8192, "one long row") for precision in ("bfloat16", "float32")),
    ]


def _square(cell: str, precision: Precision, B: int, H: int, T: int, group: str) -> LayerCase:
    return LayerCase(cell, precision, B, T, H, H, group)


def measure_case(case: LayerCase, device: Any, repetitions: int, limit_s: float, *, peer: bool) -> LayerTiming:
    """Verify one case at a short length, then time it: ours and the peer's pass in turn.

    Parameters
    ----------
    case : LayerCase
    device : Device
    repetitions : int
        Of each pass, at the most.
    limit_s : float
        Seconds after which no further repetition begins, but for the first seven.
    peer : bool

    Raises
    ------
    ValueError
        What ours computed is not right: nothing is timed then.
    """
    from hpcrnn.backends.cupy_layer import CupyLayer

    short = replace(case, T=min(case.T, CHECK_STEPS))
    errors, peer_errors = _errors(short, device, peer=peer)
    wrong = {name: error for name, error in errors.items() if not error <= ALLOWED_ERROR[case.precision]}
    if wrong:
        msg = f"{case.name}: not right, not timed: {wrong}"
        raise ValueError(msg)
    arrays = LayerArrays.draw(case, seed=1)
    layers: dict[str, TimedLayer] = {"ours": CupyLayer(case, arrays, device=device)}
    if peer:
        from hpcrnn.backends.torch_layer import TorchLayer

        layers["peer"] = TorchLayer(case, arrays)
    samples: dict[str, dict[str, list[float]]] = {name: {which: [] for which in PASSES} for name in ("ours", "peer")}
    start = time.perf_counter()
    for repetition in range(-WARMUP, repetitions):
        for which in PASSES:
            for name, layer in layers.items():
                seconds = layer.run(which)
                if repetition >= 0:
                    samples[name][which].append(seconds)
        if repetition >= 6 and time.perf_counter() - start > limit_s:
            break
    facts = {field: getattr(case, field) for field in ("name", "cell", "precision", "B", "T", "H", "D", "group")}
    facts |= {
        "kernel": layers["ours"].kernel,
        "peer_kernel": layers["peer"].kernel if peer else "",
        "error_steps": short.T,
    }
    for which in PASSES:
        facts |= {f"flops_{which}": case.flops(which), f"least_bytes_{which}": case.least_bytes(which)}
    ours, theirs = ({which: np.array(s) for which, s in samples[name].items()} for name in ("ours", "peer"))
    return LayerTiming(facts, ours, theirs, errors, peer_errors)


def _errors(case: LayerCase, device: Any, *, peer: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Relative errors of a training pass, ours and the peer's, on arrays that survive being stored."""
    from hpcrnn.backends.cupy_layer import CupyLayer, store_and_widen

    arrays = LayerArrays.draw(case, seed=0).rounded(lambda a: store_and_widen(device, case.precision, a))
    expected = solve_layer(case, arrays)

    def against(layer: TimedLayer) -> dict[str, float]:
        layer.run("training")
        found = layer.results()
        return {
            name: float(np.linalg.norm(found[name] - exact) / np.linalg.norm(exact)) for name, exact in expected.items()
        }

    ours = against(CupyLayer(case, arrays, device=device))
    if not peer:
        return ours, {}
    from hpcrnn.backends.torch_layer import TorchLayer

    return ours, against(TorchLayer(case, arrays))


def measure(cases: Iterable[LayerCase], path: Path, repetitions: int, limit_s: float, *, peer: bool) -> LayerRecord:
    """Measure cases one after another; the file is whole after each."""
    from hpcrnn.backends.cupy_device import open_device
    from hpcrnn.backends.cupy_layer import copy_rate, device_facts, free_memory, matrix_rate

    device = open_device(shared=False)
    ceilings = {"copy_bytes_per_s": copy_rate(device)}
    ceilings |= {f"{precision}_flops_per_s": matrix_rate(device, precision) for precision in PRECISIONS}
    free_memory()
    facts = {"device": device_facts(device), "host": host_facts(), "packages": package_facts()}
    record = LayerRecord(datetime.now(UTC).isoformat(timespec="seconds"), device.name, facts, ceilings, ())
    for case in cases:
        start = time.perf_counter()
        timing = measure_case(case, device, repetitions, limit_s, peer=peer)
        record = replace(record, cases=(*record.cases, timing))
        write_layer_record(record, path)
        free_memory()
        ratios = [np.median(timing.peer_s[w]) / np.median(timing.ours_s[w]) if peer else np.nan for w in PASSES]
        steps = [np.median(timing.ours_s[w]) / case.T * 1e6 for w in PASSES]
        sys.stdout.write(
            f"{case.name:34s} {steps[0]:8.2f} {steps[1]:8.2f} us/step  ratio {ratios[0]:6.2f} {ratios[1]:6.2f}  "
            f"({time.perf_counter() - start:.1f} s)\n"
        )
        sys.stdout.flush()
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Run the presets."""
    parser = argparse.ArgumentParser(description="recurrent layers on one GPU beside cuDNN")
    parser.add_argument("--out", type=Path, default=Path("results/layers.h5"))
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--limit", type=float, default=3.0, help="seconds of timing a case")
    parser.add_argument("--only", default="", help="cases whose name or group holds this text")
    parser.add_argument("--no-peer", action="store_true", help="do not time torch.nn beside ours")
    arguments = parser.parse_args(argv)
    cases = [case for case in preset_cases() if arguments.only in f"{case.group} {case.name}"]
    measure(cases, arguments.out, arguments.repetitions, arguments.limit, peer=not arguments.no_peer)
    sys.stdout.write(f"written: {arguments.out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
