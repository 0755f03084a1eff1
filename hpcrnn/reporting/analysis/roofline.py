"""The roofline of runs: rates that were attained, below what the same ranks could do at the most.

The intensity of a case is the model's: operations of its matrix products over the bytes that
:mod:`hpcrnn.model.traffic` says a step must move, of all ranks together.  Recurrent weights that stay in a cache are
read once a pass, others at every time step: an intensity has two ends, and a case lies somewhere between them.

The ceilings are measured (:mod:`hpcrnn.benchmarks.ceilings`), of the ranks of the case, in its own run: nobody else's
are put over it.  Rates of ranks that work at the same time add up, so the ceiling of a case is the sum of its ranks'
rates at the ratio of its sums: ``min(F, intensity * M)``, and no ratio is averaged.  It bounds the case rigorously as
far as the model's bytes do leave the caches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import msgspec
import numpy as np

from hpcrnn.errors import HpcrnnError
from hpcrnn.model.network import Network, build_network
from hpcrnn.model.sharding import Shard
from hpcrnn.model.traffic import Traffic, Work, step_traffic
from hpcrnn.records.record import Case, Record
from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import threads_of
from hpcrnn.reporting.units import printable
from hpcrnn.schedules.placement import split
from hpcrnn.spec import HALVED, Grid, RunSpec
from hpcrnn.workloads import Interface
from hpcrnn.workloads.adding import INTERFACE as ADDING
from hpcrnn.workloads.text import INTERFACE as TEXT


@dataclass(frozen=True)
class Ceilings:
    """What the ranks of one backend, all at once, could do at the most.

    Attributes
    ----------
    backend, precision, library : str
    n_ranks, threads : int
    flop_per_s, bytes_per_s : tuple of float
        Of each rank.
    in_cache : bool
        Whether the arrays of some rank were no larger than the last-level cache: the rate may be the cache's.
    """

    backend: str
    precision: str
    library: str
    n_ranks: int
    threads: int
    flop_per_s: tuple[float, ...]
    bytes_per_s: tuple[float, ...]
    in_cache: bool

    @property
    def ridge(self) -> float:
        """Operations a byte at which the two ceilings meet."""
        return sum(self.flop_per_s) / sum(self.bytes_per_s)

    def at(self, intensity: float) -> float:
        """The ceiling at an intensity: operations a second of all ranks."""
        return min(sum(self.flop_per_s), intensity * sum(self.bytes_per_s))


@dataclass(frozen=True)
class Reached:
    """A case below its ceilings.

    Attributes
    ----------
    entry : Entry
    traffic : Traffic
        Bytes of a step, all ranks.
    ceilings : Ceilings
    """

    entry: Entry
    traffic: Traffic
    ceilings: Ceilings

    @property
    def flops(self) -> float:
        """Operations of a step, all ranks."""
        return self.entry.case.flops

    @property
    def cached(self) -> float:
        """Operations a byte, recurrent weights in a cache: the most it can be."""
        return self.flops / self.traffic.cached

    @property
    def streamed(self) -> float:
        """Operations a byte, recurrent weights read at every time step."""
        return self.flops / self.traffic.streamed

    @cached_property
    def rate(self) -> Interval:
        """Operations a second of all ranks: median, and the interval of the step turned over."""
        step = self.entry.step
        return Interval(step.n, self.flops / step.median, self.flops / step.high, self.flops / step.low)

    @property
    def share(self) -> Interval:
        """Of the ceiling at the cached intensity."""
        return self._over(self.ceilings.at(self.cached))

    @property
    def streamed_share(self) -> Interval:
        """Of the ceiling at the streamed intensity; beyond one, the weights cannot all have come from memory."""
        return self._over(self.ceilings.at(self.streamed))

    @property
    def bound(self) -> str:
        """``products``, ``memory``, or ``open`` where it depends on whether the recurrent weights stay in a cache."""
        ridge = self.ceilings.ridge
        if self.streamed >= ridge:
            return "products"
        return "memory" if self.cached < ridge else "open"

    def _over(self, ceiling: float) -> Interval:
        rate = self.rate
        return Interval(rate.n, rate.median / ceiling, rate.low / ceiling, rate.high / ceiling)


@dataclass(frozen=True)
class Rooflines:
    """Cases below ceilings of their own, and why the others are not.

    Attributes
    ----------
    reached : tuple of Reached
    left_out : dict of str to tuple of int
        Reason, and the numbers of the cases.
    """

    reached: tuple[Reached, ...]
    left_out: dict[str, tuple[int, ...]]

    def by_record(self) -> list[tuple[Reached, ...]]:
        """Cases of each file: ceilings of different runs are not put on one sheet."""
        files: dict[int, list[Reached]] = {}
        for one in self.reached:
            files.setdefault(one.entry.file, []).append(one)
        return [tuple(members) for members in files.values()]


NO_CEILINGS = "no ceilings recorded"
NOT_UNDERSTOOD = "the bytes of a step cannot be told from the file"
OTHER_FLOPS = "operations are not those of the specification"


def rooflines(entries: Sequence[Entry]) -> Rooflines:
    """Put every included case below the ceilings of its own run."""
    reached: list[Reached] = []
    left_out: dict[str, list[int]] = {}
    for entry in entries:
        found = _place(entry)
        if isinstance(found, str):
            left_out.setdefault(found, []).append(entry.number)
        else:
            reached.append(found)
    return Rooflines(tuple(reached), {reason: tuple(numbers) for reason, numbers in left_out.items()})


def _place(entry: Entry) -> Reached | str:
    """Return a case below its ceilings, or why there is no such thing."""
    ceilings = ceilings_of(entry.record, entry.case)
    if ceilings is None:
        return NO_CEILINGS
    try:
        spec = msgspec.convert(entry.case.spec, RunSpec)
        network = build_network(spec, interface_of(spec, entry.record))
    except (HpcrnnError, msgspec.ValidationError, LookupError, TypeError, ValueError):
        return NOT_UNDERSTOOD
    problem = spec.problem
    flops = network.flops(problem.seq, problem.batch, backward=spec.training.mode != "forward")
    if not (flops > 0 and math.isclose(flops, entry.case.flops, rel_tol=1e-9)):
        return OTHER_FLOPS
    return Reached(entry, traffic_of(network, spec), ceilings)


def ceilings_of(record: Record, case: Case) -> Ceilings | None:
    """Return what was measured for the backend, ranks, threads and precision of a case; None where nothing was."""
    section = record.environment.get("ceilings")
    key = (case.backend, case.n_ranks, threads_of(case), case.precision)
    for facts in section if isinstance(section, list) else ():
        if not isinstance(facts, dict):
            continue
        if tuple(facts.get(name) for name in ("backend", "n_ranks", "threads", "precision")) == key:
            return _ceilings(facts, case)
    return None


def _ceilings(facts: Mapping[str, Any], case: Case) -> Ceilings | None:
    """Read an entry of the section; None where a rank has not measured both."""
    ranks = facts.get("ranks")
    if not isinstance(ranks, list) or len(ranks) != case.n_ranks:
        return None
    rates = [_rates(rank) for rank in ranks]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return None
    products, memory = zip(*known, strict=True)
    in_cache = any(not _outgrows(rank) for rank in ranks)
    library = printable(" / ".join({str(rank.get("library", "")): None for rank in ranks}))
    return Ceilings(case.backend, case.precision, library, case.n_ranks, threads_of(case), products, memory, in_cache)


def _rates(rank: object) -> tuple[float, float] | None:
    names = ("gemm_flop_per_s", "bandwidth_bytes_per_s")
    rates = [rank.get(name) for name in names] if isinstance(rank, dict) else []
    numbers = [float(rate) for rate in rates if isinstance(rate, int | float) and math.isfinite(rate) and rate > 0]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def _outgrows(rank: Mapping[str, Any]) -> bool:
    """Whether a rank's arrays were larger than its last-level cache, where that is known."""
    cache, footprint = rank.get("cache_bytes"), rank.get("bandwidth_footprint_bytes")
    return not (isinstance(cache, int) and isinstance(footprint, int) and footprint <= cache)


def interface_of(spec: RunSpec, record: Record) -> Interface:
    """Return what the workload asked of the model, without its data.

    Raises
    ------
    LookupError
        A series whose width is not recorded, or a workload this version does not know.
    """
    kind = spec.problem.workload.partition(":")[0]
    if kind in ("stdlib", "file"):
        return TEXT
    if kind == "adding":
        return ADDING
    if kind == "synthetic":
        return Interface("features", spec.problem.features or spec.embed, "linear", spec.model.hidden)
    if kind == "series":
        width = int(record.environment["workload"]["shape"][1])
        return Interface("features", width, "squared_error", width)
    raise LookupError(kind)


def traffic_of(network: Network, spec: RunSpec) -> Traffic:
    """Count the bytes of a step of all ranks, each with the rows, time steps and units that are its own.

    Ranks along ``data``, ``time`` and ``tensor`` have every block, with parameters of their own, or their part of them;
    along ``pipeline`` a block is on one rank, whichever that is.
    """
    grid, problem = spec.parallel.grid or Grid(), spec.problem
    work = Work(
        spec.training.step_mode,
        spec.training.optimizer,
        2 if spec.machine.precision in HALVED else int(np.dtype(network.dtype).itemsize),
        spec.parallel.microbatches,
        1 if spec.recurrence.method == "chain" else spec.recurrence.fold,
    )
    rows = Counter(part.stop - part.start for part in split(problem.batch, grid.data))
    steps = Counter(part.stop - part.start for part in split(problem.seq, grid.time))
    shards: dict[int, list[Shard]] = {}
    for index in range(grid.tensor):
        shard = Shard(index, grid.tensor)
        shards.setdefault(shard.count(network.hidden), []).append(shard)
    total = Traffic()
    for (n_rows, a), (n_steps, b), alike in product(rows.items(), steps.items(), shards.values()):
        of_a_rank = step_traffic(network, range(len(network.blocks)), n_steps, n_rows, work, alike[0])
        total += of_a_rank * (a * b * len(alike))
    return total
