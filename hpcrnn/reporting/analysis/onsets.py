"""Ranks that become slow in the midst of a run: from which step on, and by how much.

In each step a rank's busy time stands over the median of all others', whatever these do: more of the same work, or
other work, changes that ratio in no step, and what slows all ranks down changes it in none either.  A rank has become
slow where the ratio changes as the order of its steps does not explain by chance (a rank-based test,
:func:`~hpcrnn.records.statistics.change_point`, its level shared out over the ranks), where the ratio rises by more
than :data:`~hpcrnn.reporting.analysis.stragglers.EFFECT`, and where the rank's own busy time does so too: of two ranks,
one that becomes faster makes the other no slower.  Where sequences are of unequal length the work changes from step to
step, and it is busy time a slot that counts.  Ranks that share cores are not judged: who is given them changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcrnn.records.bubble import busy_s
from hpcrnn.records.record import Case, FloatArray
from hpcrnn.records.statistics import Interval, change_point, median_interval, ratio_interval
from hpcrnn.reporting.analysis.cores import oversubscribed
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.stragglers import EFFECT, LEVEL, hosts_of_ranks, median_of_others, waits_inside
from hpcrnn.reporting.describe import sample_steps


@dataclass(frozen=True)
class Onset:
    """A rank that became slow.

    Attributes
    ----------
    rank : int
    host : str
        Empty where it was not recorded.
    step : int
        The first slow one of the counted steps, which are counted from 0.
    n_steps : int
    leg_steps : int
        Steps of training that each of these is: more than one where ranks meet, or are evaluated, after several.
    before, after : Interval
        Its busy time over the others', of the steps before and from then on.
    rise : Interval
        ``after`` over ``before``.
    """

    rank: int
    host: str
    step: int
    n_steps: int
    leg_steps: int
    before: Interval
    after: Interval
    rise: Interval


def find_onsets(entry: Entry) -> tuple[Onset, ...]:
    """Find the ranks of a case that became slow while it was measured; mostly none.

    Parameters
    ----------
    entry : Entry
        One that is plotted.
    """
    case, own = entry.case, _own_pace(entry.case)
    if own is None or oversubscribed(entry):
        return ()
    over_others = own / median_of_others(own)
    hosts = hosts_of_ranks(entry.record, case.n_ranks)
    found = []
    for rank, ratio in enumerate(over_others.T):
        step = change_point(ratio, LEVEL / case.n_ranks)
        if step is None or not _rises(ratio, step) or not _rises(own[:, rank], step):
            continue
        before, after = median_interval(ratio[:step]), median_interval(ratio[step:])
        rise = ratio_interval(after, before)
        found.append(Onset(rank, hosts[rank], step, len(ratio), sample_steps(case), before, after, rise))
    return tuple(found)


def pace_of_ranks(entry: Entry) -> FloatArray | None:
    """Busy time of each rank over the median of all others', step by step.

    Returns
    -------
    float64 array (n_steps, n_ranks) or None
        None where it was not recorded, or where busy time does not tell who is slow.
    """
    own = _own_pace(entry.case)
    return None if own is None else np.asarray(own / median_of_others(own))


def _own_pace(case: Case) -> FloatArray | None:
    """Busy time of each rank; where sequences are of unequal length, of each slot that it ran."""
    busy = busy_s(case)
    if case.n_ranks == 1 or busy is None or not (np.isfinite(busy).all() and (busy > 0).all()) or waits_inside(case):
        return None
    return busy if case.work is None else np.asarray(busy / np.maximum(case.work.slots, 1))


def _rises(values: FloatArray, step: int) -> bool:
    return bool(np.median(values[step:]) > (1 + EFFECT) * np.median(values[:step]))
