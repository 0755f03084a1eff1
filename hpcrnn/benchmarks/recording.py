"""How samples become the record of a run: what is known of each way, of each rank and of the machine, put together."""

from __future__ import annotations

import resource
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

import hpcrnn
from hpcrnn.benchmarks.certification import certify
from hpcrnn.benchmarks.compressing import compression_of
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.benchmarks.ways import Way
from hpcrnn.benchmarks.work import work_of
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.measurement import Samples, Variant
from hpcrnn.records.record import PHASES, Case, Record, Verdict, strategy_of
from hpcrnn.spec import to_dict
from hpcrnn.workloads import Workload

UNFINISHED = "unfinished"
"""Why measuring ended, in the record of a run that had not come to its end."""


@dataclass(frozen=True)
class WayFacts:
    """What one rank knows of its part of a way once it has run; named as in a case."""

    kernel: str
    kernel_details: str
    memory_bytes: int
    device_peak_bytes: int


@dataclass(frozen=True)
class RankPart:
    """What one rank has to add to the record.

    Attributes
    ----------
    peak_memory_bytes : int
        High-water mark of its process.
    ways : tuple of WayFacts or None
        In the order of the ways; None where the rank does not take part.
    """

    peak_memory_bytes: int
    ways: tuple[WayFacts | None, ...]


def rank_part(variants: Sequence[Variant]) -> RankPart:
    """Ask this rank's engines."""
    return RankPart(_peak_memory_bytes(), tuple(_way_facts(variant.executor) for variant in variants))


def _way_facts(executor: Executor | None) -> WayFacts | None:
    if executor is None:
        return None
    engine = executor.engine
    return WayFacts(engine.kernel, engine.kernel_details, executor.memory_bytes, engine.device_peak_bytes)


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class Recording:
    """What of a run is settled before it measures; on rank 0.

    Attributes
    ----------
    workload : Workload
    plans : mapping of Way to Plan
        In the order of the cases.
    verdicts : mapping of Way to Verdict
    choice : dict
        How ``--method auto`` chose; empty where the method was given.
    environment : dict
    argv : tuple of str
    uuid : str
        Of every state of the record.
    """

    workload: Workload
    plans: Mapping[Way, Plan]
    verdicts: Mapping[Way, Verdict]
    choice: dict[str, Any]
    environment: dict[str, Any]
    argv: tuple[str, ...]
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def record(self, samples: Sequence[Samples], ranks: Sequence[RankPart], *, complete: bool) -> Record:
        """Make the record of what has been measured.

        Parameters
        ----------
        samples : sequence of Samples
            One a way.
        ranks : sequence of RankPart
            One a rank.
        complete : bool
            Whether that is all.
        """
        return Record(
            uuid=self.uuid,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            hpcrnn_version=hpcrnn.__version__,
            argv=self.argv,
            environment=self.environment,
            cases=tuple(self._case(way, found, ranks) for way, found in zip(self.plans, samples, strict=True)),
            complete=complete,
        )

    def _case(self, way: Way, samples: Samples, ranks: Sequence[RankPart]) -> Case:
        plan, index = self.plans[way], list(self.plans).index(way)
        known = [facts for rank in ranks if (facts := rank.ways[index]) is not None]
        shape = (0, way.n_ranks, len(PHASES))
        details = tuple(facts.kernel_details for facts in known)
        device_time_s = np.array(samples.device_time_s)
        device_peaks = np.array([facts.device_peak_bytes for facts in known], dtype=np.int64)
        machine = msgspec.structs.replace(way.spec.machine, backend=way.backends)
        n_warmup = len(samples.warmup_s)
        work = work_of(plan, self.workload, range(n_warmup, n_warmup + len(samples.time_s)))
        return Case(
            spec=to_dict(msgspec.structs.replace(way.spec, machine=machine)),
            strategy=strategy_of(msgspec.structs.asdict(way.grid)),
            backend=way.backend_name,
            kernel=" + ".join(dict.fromkeys(facts.kernel for facts in known)),
            n_ranks=way.n_ranks,
            phases=PHASES,
            time_s=np.array(samples.time_s) if samples.time_s else np.empty(shape),
            warmup_s=np.array(samples.warmup_s) if samples.warmup_s else np.empty(shape),
            loss=np.array(samples.loss),
            gradient_norm=np.array(samples.gradient_norm),
            flops=plan.flops() * (1.0 if work is None else work.filled(way.spec.problem.batch)),
            bytes_sent=samples.bytes_a_step(way.n_ranks),
            peak_memory_bytes=np.array([rank.peak_memory_bytes for rank in ranks[: way.n_ranks]], dtype=np.int64),
            memory_bytes=np.array([facts.memory_bytes for facts in known], dtype=np.int64),
            stop_reason=samples.stop_reason or UNFINISHED,
            verdict=self.verdicts[way],
            timeline=samples.timeline,
            bubble_bound=plan.bubble_bound(),
            certificate=certify(plan, samples, self.choice),
            compression=compression_of(way, plan, samples),
            kernel_details=details if any(details) else (),
            device_time_s=device_time_s if np.isfinite(device_time_s).any() else None,
            device_peak_bytes=device_peaks if device_peaks.any() else None,
            cpu_time_s=np.array(samples.cpu_time_s) if samples.cpu_time_s else None,
            work=work,
            staleness=samples.staleness,
            learning=samples.learning,
        )
