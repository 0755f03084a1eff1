"""One recurrent layer on one GPU beside cuDNN through ``torch.nn``: verified, then timed in one interleaved run.

``python -m hpcrnn.benchmarks.layers --out results/gpu/layers.h5``

Inside a timing, of either side: the input's product for the whole sequence, the recurrence, and in the training pass
the backward recurrence, dx, and the gradients of W, R and b. Outside: copies to the device, rounding of the weights,
autograd's clearing of gradients. Time is from an event before the first kernel to one after the last, so the host's
work in between counts where the GPU waits for it. A folded layer, whose segments of time run at once, is timed on the
host's clock from a drained device to a drained device: its host decides between rounds.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from hpcrnn.backends.layer_case import PASSES, LayerArrays, LayerCase, TimedLayer, solve_layer
from hpcrnn.benchmarks.arguments import OneLineParser, add_output, positive, positive_seconds
from hpcrnn.benchmarks.progress import Items
from hpcrnn.benchmarks.progress.estimates import State
from hpcrnn.errors import (
    EXIT_INVALID,
    EXIT_VALID,
    HpcrnnError,
    LaunchError,
    MissingPackageError,
    shorten,
)
from hpcrnn.execution.farewell import Farewell
from hpcrnn.kernels.variants import PRECISIONS, Precision
from hpcrnn.records.environment import package_facts
from hpcrnn.records.host import host_facts
from hpcrnn.records.layers import LayerRecord, LayerTiming, encode_layer_record
from hpcrnn.records.output import Output
from hpcrnn.records.statistics import median_interval

ALLOWED_ERROR = {"float32": 1e-5, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 1e-2}
"""Largest relative error against float64 of anything that is timed, folded or not."""

FOLD_TOLERANCE = {"float32": 1e-5, "tf32": 2.0**-10, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Difference at which trajectories of a folded case have met.

In float32 the error that is allowed. In the others, two units in the last place of a state between a half and one:
rounding alone keeps some states of two trajectories one such unit apart for ever; at less than that they never meet.
"""

CHECK_STEPS = 16
"""Length of the sequences that are checked before longer ones are timed."""

CHECK_SEGMENT = 32
"""Steps of a folded case's segments where it is checked: some more than it takes them to meet (26 in float32)."""

WARMUP = 2

REPETITIONS, LIMIT_S = 20, 2.0
"""Of each pass at the most; seconds after which no further one begins, but for the first :data:`LEAST`."""

LEAST = 6
"""Repetitions that are made however long they take: the fewest that give a 95 % interval of the median."""

CEILINGS = 8192
"""Size n of what ceilings are measured with: products of n x n matrices, a copy of 64 n^2 bytes."""


class WrongLayerError(HpcrnnError):
    """What ours computed is not right."""

    exit_code = EXIT_INVALID


class Outcome(NamedTuple):
    """What was measured; the names of the cases that were not right, and of those there was no time for."""

    record: LayerRecord
    wrong: tuple[str, ...]
    left_out: tuple[str, ...]


def preset_cases() -> list[LayerCase]:
    """Return what is measured by default, the least needed last: there may not be the time for all."""
    step_by_step = "bfloat16: cuDNN step by step"
    sizes = [(16, 512), (64, 1024), (16, 768)]
    cases = [_square(cell, "bfloat16", *size, 1024, step_by_step) for cell in ("lstm", "gru") for size in sizes]
    cases.append(_square("elman", "bfloat16", 64, 1024, 1024, step_by_step))
    persistent = [(16, 512), (64, 1024), (32, 1024), (16, 768), (128, 512)]
    cases += [_square("lstm", "float16", *size, 1024, "float16: cuDNN persistent") for size in persistent]
    cases += [
        _square(cell, precision, *size, 256, "float32 and TF32")
        for precision in ("float32", "tf32")
        for cell in ("lstm", "gru")
        for size in ((16, 512), (64, 1024))
    ]
    cases += [_square("lstm", precision, 1, 512, 8192, "one long row") for precision in ("bfloat16", "float32")]
    cases += _folded_cases()
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
    return [*cases, *(_square("gru", "float16", *size, "float16: DeepBench-like") for size in gru)]


def _folded_cases() -> list[LayerCase]:
    """Return one long row in segments that run at once.

    A pass takes S steps of a segment, and m more until trajectories meet: of these layers, counted on the host, 26 at
    the most in float32, 11 in bfloat16. More rows make S shorter, until the time of a step grows with them. By the
    planner's model of a step little is gained beyond 128 rows in float32, whose products are three each, and beyond
    256 in 16 bits; and at 512 some loops, or their corrections, would no longer be persistent kernels.
    """
    folds: list[tuple[Precision, int]] = [("bfloat16", 256), ("float32", 128)]
    return [
        _folded(_square(cell, precision, 1, 512, 65536, "one long row, folded"), fold)
        for precision, fold in folds
        for cell in ("lstm", "gru")
    ]


def _folded(case: LayerCase, fold: int) -> LayerCase:
    return replace(case, fold=fold, tolerance=FOLD_TOLERANCE[case.precision])


def _square(cell: str, precision: Precision, B: int, H: int, T: int, group: str) -> LayerCase:
    return LayerCase(cell, precision, B, T, H, H, group)


_NAME = re.compile(
    rf"(?P<cell>lstm|gru|elman) (?P<precision>{'|'.join(PRECISIONS)}) B(?P<B>\d+) H(?P<H>\d+) T(?P<T>\d+)"
    r"(?: fold (?P<fold>\d+))?"
)


def named_case(name: str) -> LayerCase:
    """Return the case that tables would call so; commas may stand for blanks.

    Raises
    ------
    HpcrnnError
        It is not a name, or there is no such layer.
    """
    found = _NAME.fullmatch(name.replace(",", " "))
    if found is None:
        raise HpcrnnError(f"--case {shorten(name)}: allowed is a name such as lstm,float32,B1,H512,T65536,fold,128")
    precision = cast("Precision", found["precision"])
    B, H, T, fold = (int(found[key] or 1) for key in ("B", "H", "T", "fold"))
    if not (min(B, H, T) >= 1 and 1 <= fold <= T):
        raise HpcrnnError(f"--case {shorten(name)}: allowed are sizes of at least one, and at most T segments")
    case = _square(found["cell"], precision, B, H, T, "asked for")
    return _folded(case, fold) if fold > 1 else case


def measure_case(case: LayerCase, device: Any, repetitions: int, limit_s: float, *, peer: bool) -> LayerTiming:
    """Verify one case at a short length, then time it: ours and the peer's pass in turn.

    Parameters
    ----------
    case : LayerCase
    device : Device
    repetitions : int
        Of each pass, at the most.
    limit_s : float
        Seconds after which no further repetition begins, but for the first :data:`LEAST`.
    peer : bool
        Whether torch.nn is timed too.

    Raises
    ------
    WrongLayerError
        What ours computed is not right: nothing is timed then.
    """
    short = replace(case, T=min(case.T, CHECK_SEGMENT * case.fold if case.is_folded else CHECK_STEPS))
    errors, peer_errors = _errors(short, device, peer=peer)
    wrong = {name: error for name, error in errors.items() if not error <= ALLOWED_ERROR[case.precision]}
    if wrong:
        raise WrongLayerError(f"{case.name}: not right, not timed: {wrong}")
    arrays = LayerArrays.draw(case, seed=1)
    layers = {"ours": make_layer(case, arrays, device)}
    if peer:
        layers["peer"] = _make_peer(case, arrays)
    samples = _alternate(layers, repetitions, limit_s)
    facts = {field: getattr(case, field) for field in ("name", "cell", "precision", "B", "T", "H", "D", "group")}
    facts |= {
        "kernel": layers["ours"].kernel,
        "peer_kernel": layers["peer"].kernel if peer else "",
        "error_steps": short.T,
    }
    if case.is_folded:
        facts |= {"fold": case.fold, "tolerance": case.tolerance} | layers["ours"].solve_facts()
    for which in PASSES:
        facts |= {f"flops_{which}": case.flops(which), f"least_bytes_{which}": case.least_bytes(which)}
    return LayerTiming(facts, samples["ours"], samples["peer"], errors, peer_errors)


def make_layer(case: LayerCase, arrays: LayerArrays, device: Any) -> TimedLayer:
    """Load our layer."""
    if case.is_folded:
        from hpcrnn.backends.cupy.folded_layer import CupyFoldedLayer

        return CupyFoldedLayer(case, arrays)
    from hpcrnn.backends.cupy.layer import CupyLayer

    return CupyLayer(case, arrays, device=device)


def _make_peer(case: LayerCase, arrays: LayerArrays) -> TimedLayer:
    from hpcrnn.backends.torch.layer import TorchLayer

    return TorchLayer(case, arrays)


def _alternate(
    layers: Mapping[str, TimedLayer], repetitions: int, limit_s: float
) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Time each pass of ours and then of the peer, again and again; return seconds by layer and pass."""
    samples: dict[str, dict[str, list[float]]] = {name: {which: [] for which in PASSES} for name in ("ours", "peer")}
    for keep in _repetitions(repetitions, limit_s):
        for which in PASSES:
            for name, layer in layers.items():
                seconds = layer.run(which)
                if keep:
                    samples[name][which].append(seconds)
    return {name: {which: np.array(s) for which, s in passes.items()} for name, passes in samples.items()}


def _repetitions(most: int, limit_s: float) -> Iterator[bool]:
    """Yield whether to keep what the next repetition takes: warm-ups first; where time is up, one of them is enough."""
    start = time.perf_counter()

    def late() -> bool:
        return time.perf_counter() - start > limit_s

    for number in range(WARMUP):
        if number == 0 or not late():
            yield False
    for number in range(most):
        if number >= LEAST and late():
            return
        yield True


def _errors(case: LayerCase, device: Any, *, peer: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Relative errors of a training pass, ours and the peer's, on arrays that survive being stored."""
    from hpcrnn.backends.cupy.layer import store_and_widen

    arrays = LayerArrays.draw(case, seed=0).rounded(lambda a: store_and_widen(device, case.precision, a))
    expected = solve_layer(case, arrays)

    def against(layer: TimedLayer) -> dict[str, float]:
        layer.run("training")
        found = layer.results()
        return {
            name: float(np.linalg.norm(found[name] - exact) / np.linalg.norm(exact)) for name, exact in expected.items()
        }

    ours = against(make_layer(case, arrays, device))
    return ours, against(_make_peer(case, arrays)) if peer else {}


def measure(
    cases: Sequence[LayerCase],
    output: Output,
    farewell: Farewell,
    repetitions: int = REPETITIONS,
    limit_s: float = LIMIT_S,
    *,
    peer: bool,
    total_s: float = math.inf,
    ceilings_n: int = CEILINGS,
) -> Outcome:
    """Measure cases one after another; each is kept when it is measured. One that is not right is said, and left out.

    Parameters
    ----------
    cases : sequence of LayerCase
    output : Output
        Written where any case was measured.
    farewell : Farewell
    repetitions, limit_s, peer
        See :func:`measure_case`.
    total_s : float
        Seconds after which no further case begins.
    ceilings_n : int
        See :data:`CEILINGS`.

    Raises
    ------
    FileError
        The file cannot be written; the message says where the results are.
    """
    from hpcrnn.backends.cupy.device import open_device

    begin = time.perf_counter()
    device = open_device(shared=False)
    # Loads libraries that may not be there where there is no GPU: that is said first.
    from hpcrnn.backends.cupy.layer import copy_rate, device_facts, free_memory, matrix_rate

    ceilings = {"copy_bytes_per_s": copy_rate(device, 64 * ceilings_n**2)}
    ceilings |= {f"{name}_flops_per_s": matrix_rate(device, name, ceilings_n) for name in PRECISIONS}
    facts = {"device": device_facts(device), "host": host_facts(), "packages": package_facts()}
    record = LayerRecord(datetime.now(UTC).isoformat(timespec="seconds"), device.name, facts, ceilings, ())
    wrong: list[str] = []
    left_out: tuple[str, ...] = ()
    kinds = [f"of {case.group}" for case in cases]
    with Items("layers", kinds, "case", most_s=total_s - (time.perf_counter() - begin)) as items:
        for index, case in enumerate(cases):
            if time.perf_counter() - begin > total_s:
                left_out = tuple(case.name for case in cases[index:])
                break
            items.begin(index, case.name)
            free_memory()
            try:
                timing = measure_case(case, device, repetitions, limit_s, peer=peer)
            except WrongLayerError as error:
                wrong.append(case.name)
                items.end(State.FAILED)
                items.line(f"error: {error}")
                continue
            record = replace(record, cases=(*record.cases, timing))
            farewell.keep(output, encode_layer_record(record))
            items.result(_result_line(timing, items.end(State.DONE)))
    if record.cases:
        farewell.finish(output, encode_layer_record(record))
    return Outcome(record, tuple(wrong), left_out)


def _result_line(timing: LayerTiming, took_s: float) -> str:
    both = (timing.ours_s, timing.peer_s)
    ours, peer = ([median_interval(samples[which]).median for which in PASSES] for samples in both)
    steps = [seconds / timing.facts["T"] * 1e6 for seconds in ours]
    ratios = [theirs / own for own, theirs in zip(ours, peer, strict=True)]
    return (
        f"{timing.facts['name']:41s} {steps[0]:9.3f} {steps[1]:9.3f} us/step  ratio {ratios[0]:7.2f} {ratios[1]:7.2f}  "
        f"({took_s:.1f} s)\n"
    )


def _complain(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"hpcrnn: error: {text}\n")


def _chosen(names: Sequence[str], text: str) -> list[LayerCase]:
    """Return the named cases, or the presets, whose name or group holds a text."""
    cases = [named_case(name) for name in names] or preset_cases()
    chosen = [case for case in cases if text in f"{case.group} {case.name}"]
    if not chosen:
        groups = "; ".join(dict.fromkeys(case.group for case in cases))
        raise HpcrnnError(f"--only {shorten(text)}: allowed is a part of a case's name or group: {groups}")
    return chosen


def _check_packages(*, peer: bool) -> None:
    """Refuse what cannot run here, before anything is measured."""
    if find_spec("cupy") is None:
        raise MissingPackageError("CuPy is not installed: pip install cupy-cuda13x (or cupy-cuda12x)")
    if not peer:
        return
    if find_spec("torch") is None:
        raise MissingPackageError("PyTorch is not installed: pip install torch, or --no-peer")
    from hpcrnn.backends.torch.layer import sees_gpu

    if not sees_gpu():
        raise LaunchError("PyTorch sees no GPU: install it with CUDA, or --no-peer")


def main(argv: Sequence[str] | None = None, farewell: Farewell | None = None) -> int:
    """Run the presets, or what is asked for."""
    prog = "python -m hpcrnn.benchmarks.layers"
    parser = OneLineParser(prog=prog, description="recurrent layers on one GPU beside cuDNN", allow_abbrev=False)
    add_output(parser, Path("results/layers.h5"))
    parser.add_argument("--repetitions", type=positive, default=REPETITIONS, help="of each pass, at the most")
    parser.add_argument("--limit", type=positive_seconds, default=LIMIT_S, help="seconds of timing a case")
    parser.add_argument("--total", type=positive_seconds, default=math.inf, help="seconds: no case begins later")
    parser.add_argument("--only", default="", help="cases whose name or group holds this text")
    parser.add_argument(
        "--case", action="append", default=[], metavar="NAME", help="in place of the presets: lstm,float32,B2,H32,T64"
    )
    parser.add_argument("--ceilings", type=positive, default=CEILINGS, help="size of the matrices for ceilings")
    parser.add_argument("--no-peer", action="store_true", help="do not time torch.nn beside ours")
    try:
        given = parser.parse_args(argv)
        cases = _chosen(given.case, given.only)
        output = Output(given.out, overwrite=given.overwrite, key="--out")
        output.check()
        _check_packages(peer=not given.no_peer)
        outcome = measure(
            cases,
            output,
            farewell or Farewell(os._exit),
            given.repetitions,
            given.limit,
            peer=not given.no_peer,
            total_s=given.total,
            ceilings_n=given.ceilings,
        )
    except HpcrnnError as error:
        _complain(str(error))
        return error.exit_code
    if outcome.left_out:
        sys.stdout.write(f"no time left for: {', '.join(outcome.left_out)}\n")
    if outcome.record.cases:
        sys.stdout.write(f"written: {given.out}\n")
    return EXIT_INVALID if outcome.wrong else EXIT_VALID


if __name__ == "__main__":
    at_the_end = Farewell(os._exit)
    at_the_end.listen()
    raise SystemExit(main(farewell=at_the_end))
