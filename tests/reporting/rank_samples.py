"""Cases whose ranks are busy for times that are known: who is slow is planted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from factory import make_case, make_record

from hpcrnn.records.record import Case
from hpcrnn.reporting.analysis.entries import Entry, make_entries


def ranked_case(
    n_ranks: int = 4,
    n: int = 30,
    slow: Mapping[int, float] | None = None,
    *,
    noise: float = 0.04,
    seed: int = 0,
    per_row: bool = False,
    **overrides: object,
) -> Case:
    """Make a case whose ranks are busy for 0.1 s and some noise, times their factor in ``slow``.

    Noise of the step falls on all ranks alike, as on a real machine, and noise of its own on each rank. ``per_row``
    lets a rank's time follow its rows of the batch.
    """
    overrides = {"batch": 4 * n_ranks, **overrides}
    case = make_case(n_ranks, n=n, **overrides)
    random = np.random.default_rng([seed, case.n_ranks, n])
    busy = 0.1 * (1 + 0.1 * random.gamma(1.5, 1.0, (n, 1))) * (1 + noise * random.gamma(1.5, 1.0, (n, case.n_ranks)))
    for rank, factor in (slow or {}).items():
        busy[:, rank] *= factor
    if per_row:
        rows = [len(part) for part in np.array_split(np.arange(int(overrides["batch"])), case.n_ranks)]
        busy *= np.array(rows) / min(rows)
    time_s = np.zeros_like(case.time_s)
    place = case.phases.index
    time_s[:, :, place("forward")] = 0.4 * busy
    time_s[:, :, place("backward")] = 0.6 * busy
    time_s[:, :, 0] = 1.04 * busy.max(axis=1, keepdims=True) * (1 - 0.001 * random.random(busy.shape))
    time_s[:, :, place("allreduce")] = time_s[:, :, 0] - busy
    return replace(case, time_s=time_s)


def ranked_entry(*args: object, hosts: Mapping[int, str] | None = None, **kwargs: object) -> Entry:
    """Make the entry of one such case; ``hosts`` names the hosts of ranks that are not on ``node01``."""
    record = make_record([ranked_case(*args, **kwargs)])
    for rank, host in (hosts or {}).items():
        record.environment["hosts"][rank]["hostname"] = host
    (entry,) = make_entries([record])
    return entry
