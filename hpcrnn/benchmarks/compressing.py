"""From a plan and what was looked at to what a record says of compressed gradients."""

from __future__ import annotations

import numpy as np

from hpcrnn.benchmarks.planning import Plan
from hpcrnn.benchmarks.ways import Way
from hpcrnn.compression.codecs import payload_bytes, wire_bytes
from hpcrnn.execution.measurement import Samples
from hpcrnn.records.compression import NO_CODEC, Compression


def warnings_of_codec(way: Way, plan: Plan) -> list[str]:
    """Say before a run where a codec sends no fewer bytes than the plain sum."""
    if not way.compresses:
        return []
    codec, sums = way.spec.parallel.grad_codec, (plan.summed_layouts(), plan.cut.itemsize, way.n_ranks)
    times = wire_bytes(codec, *sums) / wire_bytes(NO_CODEC, *sums)
    sent = f"grad_codec {codec} sends {times:.3g} times the bytes of a plain sum on {way.n_ranks} ranks"
    return [sent] if times >= 1 else []


def compression_of(way: Way, plan: Plan, samples: Samples) -> Compression | None:
    """Say what a codec saved and left out; None where there is none, or no step was run.

    Parameters
    ----------
    way : Way
    plan : Plan
        Of the way.
    samples : Samples
    """
    if not way.compresses or not samples.loss:
        return None
    sums, watched = (plan.summed_layouts(), plan.cut.itemsize, way.n_ranks), samples.watched
    codec = way.spec.parallel.grad_codec
    return Compression(
        plain_bytes=payload_bytes(NO_CODEC, *sums),
        coded_bytes=payload_bytes(codec, *sums),
        plain_wire_bytes=float(wire_bytes(NO_CODEC, *sums)),
        coded_wire_bytes=float(wire_bytes(codec, *sums)),
        training_step=np.array([found.step for found in watched], dtype=np.int64),
        error=np.array([found.error for found in watched], dtype=np.float64),
        backlog=np.array([found.backlog for found in watched], dtype=np.float64),
        held_back=np.array([found.held_back for found in watched], dtype=np.float64).reshape(-1, way.n_ranks),
    )
