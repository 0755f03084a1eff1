"""What sequences of unequal length cost: slots that hold nothing, and ranks that wait for the one with the most work.

Three shares say how well work is spread, each of the same form over the same steps (``lost_share`` of
:mod:`hpcrnn.records.work`), so that they can be held against one another: of tokens, what would be lost if a rank's
time went with what it has; of slots, what must be lost as it goes with what it runs; and of the seconds that ranks were
at work, what was lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan

import numpy as np

from hpcrnn.records.bubble import busy_s
from hpcrnn.records.record import BUSY_PHASES, Case, FloatArray
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.records.work import Work, lost_share
from hpcrnn.reporting.analysis.accounting import knows_cpu_given
from hpcrnn.reporting.analysis.entries import Entry

_REPLICATES = 1999
_FEWEST = 6
"""Samples without which there is no interval."""


@dataclass(frozen=True, eq=False)
class WorkCost:
    """A case whose sequences are of unequal length.

    Attributes
    ----------
    entry : Entry
    work : Work
    waited : Interval or None
        Share of the ranks' time that passed while the rank at work for the longest still was; None on one rank.
    by_cpu : bool
        Whether that is told from CPU time, which ranks that share cores do not spoil; else from the clock.
    rate : Interval
        Tokens a second, of a step.
    """

    entry: Entry
    work: Work
    waited: Interval | None
    by_cpu: bool
    rate: Interval

    @property
    def told_from(self) -> str:
        """What the share of waiting is told from."""
        return "CPU time" if self.by_cpu else "clock"


def work_costs(entries: Iterable[Entry]) -> list[WorkCost]:
    """Say of every case with sequences of unequal length what these cost, in the order of the cases."""
    return [work_cost(entry, work) for entry in entries if entry.included and (work := entry.case.work) is not None]


def work_cost(entry: Entry, work: Work) -> WorkCost:
    """Say what unequal work cost one case."""
    case, by_cpu = entry.case, knows_cpu_given(entry.case)
    seconds = at_work_s(case, by_cpu=by_cpu) if case.n_ranks > 1 else None
    return WorkCost(
        entry=entry,
        work=work,
        waited=None if seconds is None else lost_interval(seconds),
        by_cpu=by_cpu,
        rate=median_interval(work.step_tokens / case.step_s()),
    )


def at_work_s(case: Case, *, by_cpu: bool) -> FloatArray | None:
    """Seconds (n_repetitions, n_ranks) that each rank was at work, of CPU time or by the clock; None: unknown."""
    if not by_cpu or case.cpu_time_s is None:
        return busy_s(case)
    return np.asarray(case.cpu_time_s[:, :, np.isin(case.phases, BUSY_PHASES)].sum(axis=2), dtype=np.float64)


def lost_interval(seconds: FloatArray) -> Interval:
    """Share of all ranks' time that is lost to the longest in each step, with a 95 % interval.

    A quotient of sums, so that steps count as they last; its interval is the percentiles of bootstrap replicates, in
    which the steps are drawn again (Efron, *Annals of Statistics* 7, 1979).

    Parameters
    ----------
    seconds : float64 array (n_steps, n_ranks)
    """
    n, n_ranks = seconds.shape
    if n < _FEWEST:
        return Interval(n, lost_share(seconds), nan, nan)
    drawn = np.random.default_rng(0).integers(0, n, (_REPLICATES, n))
    all_s, longest_s = seconds.sum(axis=1)[drawn].sum(axis=1), seconds.max(axis=1)[drawn].sum(axis=1)
    low, high = np.quantile(1 - all_s / (n_ranks * longest_s), (0.025, 0.975))
    return Interval(n, lost_share(seconds), float(low), float(high))
