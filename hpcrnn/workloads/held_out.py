"""What a model is trained on, and what it is held against and never trained on.

The last tenth of a text or a series is held out; of a problem that makes its own sequences, those of a seed that no run
can be given.  Which sequences of it an evaluation takes depends on nothing but their number, so that all seeds, methods
and grids are held against the same ones.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from hpcrnn.spec import RunSpec
from hpcrnn.workloads.adding import AddingWorkload
from hpcrnn.workloads.base import Workload, refused
from hpcrnn.workloads.division import HELD_OUT_SEED, held_out_part
from hpcrnn.workloads.registry import open_workload
from hpcrnn.workloads.series import SeriesWorkload
from hpcrnn.workloads.text import TextWorkload


def open_held_out(spec: RunSpec, n_rows: int) -> Workload:
    """Open the held-out part of a workload, in windows of T steps.

    Parameters
    ----------
    spec : RunSpec
    n_rows : int
        Sequences of its one batch, that of step 0.

    Raises
    ------
    SpecError
        The workload has nothing to hold out, or less than a sequence of it.
    """
    problem = msgspec.structs.replace(spec.problem, sequences="windows", batching="naive", spread="even")
    training = msgspec.structs.replace(spec.training, mode="train", target_loss=None)
    whole = open_workload(msgspec.structs.replace(spec, problem=problem, training=training))
    if isinstance(whole, AddingWorkload):
        return replace(whole, n_rows=n_rows, seed=HELD_OUT_SEED)
    if isinstance(whole, TextWorkload):
        part = held_out_part(whole.corpus)
        if len(part) <= problem.seq:
            raise _too_short(spec, len(part))
        return replace(whole, corpus=part, n_rows=n_rows, seed=HELD_OUT_SEED)
    if isinstance(whole, SeriesWorkload):
        part = held_out_part(whole.series)
        if len(part) <= problem.seq:
            raise _too_short(spec, len(part))
        return replace(whole, series=part, n_rows=n_rows, seed=HELD_OUT_SEED)
    raise refused(spec, "a workload that can be learned: stdlib, file:PATH, series:PATH or adding")


def describe_held_out(workload: Workload, n_rows: int, seq: int) -> str:
    """Say in words what a model is held against."""
    kind = "sequences of a seed of their own" if isinstance(workload, AddingWorkload) else "windows of the last tenth"
    return f"{n_rows} {kind}, {seq} steps each"


def _too_short(spec: RunSpec, length: int) -> Exception:
    least = 10 * (spec.problem.seq + 1)
    return refused(spec, f"data of at least {least} elements: the last tenth is held out, and is {length} long")
