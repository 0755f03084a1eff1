"""What the machine can do at the most, measured before the steps are: a rate of products and a rate of memory.

For each backend and number of ranks that a run times, all of those ranks measure at once, each as it will run: with its
threads, its backend's library, its precision; ranks of a host share its memory, and so they do here.  The others sleep,
as they will.  No data sheet is asked.

Time is what bounds it, about half a second for each backend and number of ranks: a product grows until its rate does
not, arrays are as large as there is time to touch.  Nothing here makes a run fail: what could not be measured is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hpcrnn.backends.probe import Probe, Stream, make_probe
from hpcrnn.benchmarks.ways import Way
from hpcrnn.execution.world import World
from hpcrnn.records.host import host_facts
from hpcrnn.spec import BackendName

GEMM_S, TOUCH_S, BANDWIDTH_S = 0.2, 0.2, 0.1
"""Seconds for products, for touching the arrays, for passes over them."""

MOST_SAMPLES = 16
"""Of each kind: what is kept is few, and the best of few is stable where a machine is."""

SMALLEST_N, LARGEST_N = 256, 16384
GROWTH = 1.03
"""A product of twice the size whose rate is not this much higher is no better."""
PATIENCE = 2
"""Sizes that are no better before the search ends: one may have met a busy machine."""
MAKING = 30
"""Times that a product must have room for before one of twice the size is begun: eight times as long, thrice run."""

CACHES = 2
"""Footprint of the arrays in last-level caches: a pass over twice as much finds next to nothing of the pass before."""

LEAST_FOOTPRINT, UNKNOWN_CACHE = 48 << 20, 256 << 20
"""Bytes: of the arrays of a rank at the least; of a last-level cache that is not known."""

SHARE_OF_MEMORY = 16
"""All arrays of the ranks of a host take at most this part of its free memory."""


def measure_ceilings(ways: Sequence[Way], world: World) -> dict[str, Any]:
    """Measure for every backend and number of ranks among the ways, where that is asked for; every rank calls this.

    Parameters
    ----------
    ways : sequence of Way
    world : World

    Returns
    -------
    dict
        On rank 0 the section ``ceilings`` of the environment, as ``docs/file_format.md`` describes it; elsewhere empty.
    """
    if not ways[-1].spec.measure.ceilings:
        return {}
    companies = {(way.backend_name, way.n_ranks, way.spec.machine.threads): way for way in ways}
    cache = _last_cache(host_facts().get("caches"))
    measured = [_measure(way, world, cache) for way in companies.values()]
    return {"ceilings": measured} if world.is_root else {}


def _measure(way: Way, world: World, cache_bytes: int | None) -> dict[str, Any] | None:
    """Measure with the ranks of a way; the result is rank 0's."""
    takes_part = world.rank < way.n_ranks
    sharers = max(1, sum(rank < way.n_ranks for rank in world.node.allgather(world.rank)))
    backend = way.backend_of(world.rank) if takes_part else way.backend
    mine = _Measurement(way, backend, world.local_rank, sharers, cache_bytes)
    for part in (mine.products, mine.touch, mine.passes, mine.release):
        world.quiet_barrier()  # together
        if takes_part:
            mine.attempt(part)
    everyone = world.comm.gather(mine.facts if takes_part else None)
    if everyone is None:
        return None
    machine, model = way.spec.machine, way.spec.model
    return {
        "backend": way.backend_name,
        "n_ranks": way.n_ranks,
        "threads": machine.threads,
        "precision": machine.precision if machine.precision != "float32" else model.dtype,
        "ranks": [facts for facts in everyone if facts is not None],
    }


class _Measurement:
    """One rank's part: what it has found so far, and what went wrong.

    Parameters
    ----------
    way : Way
    backend : {"numpy", "torch", "cupy"}
        Of this rank.
    local_rank : int
    sharers : int
        Ranks that measure on this host.
    cache_bytes : int or None
        Last-level cache of the host.
    """

    def __init__(self, way: Way, backend: BackendName, local_rank: int, sharers: int, cache_bytes: int | None) -> None:
        self.facts: dict[str, Any] = {}
        self._sharers = sharers
        self._make_probe = partial(make_probe, backend, way.spec, local_rank, cache_bytes)
        self._probe: Probe | None = None
        self._stream: Stream | None = None

    def attempt(self, part: Callable[[], None]) -> None:
        """Do a part; where it fails, say so and go on."""
        try:
            part()
        except Exception as error:  # noqa: BLE001 - a ceiling that cannot be measured must not end a run
            reason = next(iter(str(error).splitlines()), "")
            self.facts.setdefault("problem", f"{type(error).__name__}: {reason}"[:200])

    def products(self) -> None:
        """Find the rate of products."""
        probe = self._probe = self._make_probe()
        largest = int((self._memory(probe) / (3 * probe.itemsize)) ** 0.5)
        n, samples = climb(probe.product, GEMM_S, min(largest, LARGEST_N))
        self.facts |= {
            "library": probe.library,
            "gemm_flop_per_s": 2.0 * n**3 / min(samples),
            "gemm_n": n,
            "gemm_sample_s": samples,
        }

    def touch(self) -> None:
        """Make the arrays."""
        if self._probe is not None:
            wanted = CACHES * (self._probe.cache_bytes or UNKNOWN_CACHE) // self._sharers
            footprint = min(max(wanted, LEAST_FOOTPRINT), self._memory(self._probe))
            self._stream = self._probe.stream(footprint, TOUCH_S)

    def passes(self) -> None:
        """Find the rate of memory."""
        if self._probe is None or self._stream is None:
            return
        self._stream.run()
        samples = repeat(self._stream.run, BANDWIDTH_S)
        self.facts |= {
            "bandwidth_bytes_per_s": self._stream.footprint_bytes / min(samples),
            "bandwidth_kind": self._stream.kind,
            "bandwidth_footprint_bytes": self._stream.footprint_bytes,
            "bandwidth_sample_s": samples,
            "cache_bytes": self._probe.cache_bytes,
        }

    def release(self) -> None:
        """Have no memory any more."""
        self._stream = None
        if self._probe is not None:
            self._probe.release()

    def _memory(self, probe: Probe) -> int:
        """Bytes that this rank may take."""
        return probe.free_bytes() // (SHARE_OF_MEMORY * self._sharers)


def climb(product: Callable[[int], Callable[[], float]], limit_s: float, largest: int) -> tuple[int, list[float]]:
    """Double the size of a product until it is no faster or there is no time, then repeat the best.

    Parameters
    ----------
    product : callable
        From a size n to what runs a product of that size and returns its seconds.
    limit_s : float
        Seconds after which nothing new is begun; what would not be done by then is not begun.
    largest : int
        The largest n.

    Returns
    -------
    (int, list of float)
        The size, and its samples, seconds.
    """
    end = time.perf_counter() + limit_s
    n = best_n = min(SMALLEST_N, max(1, largest))
    run = best_run = product(n)
    samples = best = _few(run, limit_s)
    stale = 0
    while stale < PATIENCE and 2 * n <= largest and time.perf_counter() + MAKING * min(samples) < end:
        n *= 2
        run = product(n)
        samples = _few(run, limit_s)
        if n**3 / min(samples) < GROWTH * best_n**3 / min(best):
            stale += 1
        else:
            best_n, best_run, best, stale = n, run, samples, 0
    best += repeat(best_run, end - time.perf_counter(), least=0, most=MOST_SAMPLES - len(best))
    return best_n, best


def _few(run: Callable[[], float], limit_s: float) -> list[float]:
    """Run a product of a new size, first without counting: it finds its memory and its caches cold."""
    run()
    return repeat(run, limit_s / 16, least=2)


def repeat(run: Callable[[], float], limit_s: float, least: int = 1, most: int = MOST_SAMPLES) -> list[float]:
    """Run something again and again until time is up; at least and at most so often."""
    end = time.perf_counter() + limit_s
    samples: list[float] = []
    while len(samples) < least or (len(samples) < most and time.perf_counter() < end):
        samples.append(run())
    return samples


def _last_cache(caches: object) -> int | None:
    """Return the size of the last-level cache among the facts of a host; None where it is not known."""
    if not isinstance(caches, dict):
        return None
    return max((size for size in caches.values() if isinstance(size, int)), default=None)
