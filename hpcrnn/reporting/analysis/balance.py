"""What sharing work out by speed gains: even shares beside balanced ones, and beside the ideal.

Both are measured in the same rounds, so round by round, with E and B the steps of even and of balanced shares and b the
busy times of the ranks under even shares::

    ideal      I = E (harmonic mean of b) / max b
    recovered  (E - B) / (E - I)

In the ideal all ranks are busy for equally long, each at the pace it has under even shares, and wait in proportion.  It
is no bound in either direction: rows, steps and layers are whole, and a product of more rows takes less time a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hpcrnn.records.balance import weights_of
from hpcrnn.records.bubble import busy_s
from hpcrnn.records.statistics import Interval, median_interval, ratio_interval
from hpcrnn.reporting.analysis.entries import Entry

NOTHING = 0.02
"""Where even shares lose less than this part of their step, there is nothing to recover."""


@dataclass(frozen=True)
class Recovery:
    """A case whose shares follow the speeds of its ranks, and the one beside it whose shares are even.

    Attributes
    ----------
    even, balanced : Entry
    weights : tuple of float
        Of each rank.
    ideal : Interval
        Seconds of a step.
    over_even : Interval
        Balanced step over even step.
    recovered : Interval or None
        Share of what even shares lose; None where they lose next to nothing.
    """

    even: Entry
    balanced: Entry
    weights: tuple[float, ...]
    ideal: Interval
    over_even: Interval
    recovered: Interval | None


def recoveries(entries: Iterable[Entry]) -> tuple[Recovery, ...]:
    """Pair cases of one file that differ in their shares alone."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.included and entry.case.n_ranks > 1:
            groups.setdefault(_but_for_shares(entry), []).append(entry)
    found = []
    for members in groups.values():
        even = next((e for e in members if e.case.how["parallel"].get("balance", "even") == "even"), None)
        balanced = [e for e in members if weights_of(e.case, e.record.environment)]
        found += [pair for e in balanced if even is not None and (pair := _recovery(even, e)) is not None]
    return tuple(found)


def _but_for_shares(entry: Entry) -> str:
    case = entry.case
    how = {**case.how, "parallel": {k: v for k, v in case.how["parallel"].items() if k != "balance"}}
    return json.dumps([entry.file, case.problem_id, how, case.backend, case.kernel, case.simulated], sort_keys=True)


def _recovery(even: Entry, balanced: Entry) -> Recovery | None:
    busy = busy_s(even.case)
    n_rounds = min(len(even.case.time_s), len(balanced.case.time_s))
    if busy is None or not (busy > 0).all():
        return None
    E, B = (entry.case.step_s()[:n_rounds] for entry in (even, balanced))
    b = busy[:n_rounds]
    I = E / (1 / b).mean(axis=1) / b.max(axis=1)  # noqa: E741 - as above
    lost = E - I
    recovered = None
    if np.median(lost) > NOTHING * np.median(E) and (lost > 0).all():
        recovered = median_interval((E - B) / lost)
    over_even = ratio_interval(balanced.step, even.step)
    weights = weights_of(balanced.case, balanced.record.environment)
    return Recovery(even, balanced, weights, median_interval(I), over_even, recovered)
