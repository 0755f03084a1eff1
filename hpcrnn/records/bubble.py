"""Where the time goes that is no work: the measured bubble, and whose fault a wait is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from hpcrnn.records.messages import reductions, transfers
from hpcrnn.records.record import BUSY_PHASES, Case, FloatArray
from hpcrnn.records.timeline import Timeline


def busy_s(case: Case) -> FloatArray | None:
    """Seconds that each rank spends at work: in forward, backward, weight gradient and update.

    Parameters
    ----------
    case : Case

    Returns
    -------
    float64 array (n_repetitions, n_ranks) or None
        None where the case has none of these phases.
    """
    busy = [case.phase_s(phase) for phase in BUSY_PHASES if phase in case.phases]
    return np.asarray(np.sum(busy, axis=0)) if busy else None


def measured_bubble(case: Case) -> FloatArray:
    """Share of the ranks' time that is no work, in each counted step.

    ``1 - mean over ranks of busy / step``, where ``busy`` is as :func:`busy_s` has it, and ``step`` is the slowest
    rank's: a rank that has finished idles until then.
    What ranks exchange inside a task, as a tensor split does, counts as work.

    Parameters
    ----------
    case : Case

    Returns
    -------
    float64 array (n_repetitions,)
        In [0, 1]; NaN where the case has none of these phases.
    """
    busy = busy_s(case)
    if busy is None:
        return np.full(len(case.time_s), np.nan)
    step = case.step_s()
    mean_busy = busy.mean(axis=1)
    return np.asarray(1.0 - np.divide(mean_busy, step, out=np.full_like(step, np.nan), where=step > 0))


@dataclass(frozen=True, eq=False)
class WaitAccount:
    """Seconds of waiting in a timeline, by cause.

    What somebody else was late for is charged to who was late, the rest to who waited.

    Attributes
    ----------
    late_sender : float64 array (n_ranks,)
        Others waited so long for this rank to post a send.
    late_receiver : float64 array (n_ranks,)
        Others waited so long for this rank to post a receive.
    late_rank : float64 array (n_ranks,)
        Others waited so long for this rank, the last of its group, to begin a sum.
    transfer : float64 array (n_ranks,)
        This rank waited so long for a message both ends had posted.
    reduction : float64 array (n_ranks,)
        This rank waited so long for a sum that every rank had begun.
    """

    late_sender: FloatArray
    late_receiver: FloatArray
    late_rank: FloatArray
    transfer: FloatArray
    reduction: FloatArray

    @property
    def total_s(self) -> float:
        """All that was waited, seconds over all ranks."""
        return float(sum(getattr(self, field.name).sum() for field in fields(self)))


def account_waits(case: Case, timeline: Timeline) -> WaitAccount:
    """Split every wait at the moment the other end was ready.

    A wait for a message ends at the earliest when its other end was posted: what lies before the start of
    that post is lateness, what lies after is transfer. A wait for a sum is split in the same way where the
    last of its ranks begins it. The start of a post counts, so that what the post itself takes is transfer.
    Where the other end is not in the timeline nobody is charged with being late.

    Parameters
    ----------
    case : Case
        Says how many ranks there are, and which of them a sum runs over.
    timeline : Timeline
        The case's own, or a simulated one of the same program.

    Returns
    -------
    WaitAccount
    """
    account = WaitAccount(*(np.zeros(case.n_ranks) for _ in fields(WaitAccount)))
    for t in transfers(timeline):
        if t.receive_wait is not None:
            late, rest = _divided(timeline, t.receive_wait, t.send)
            account.late_sender[t.sender] += late
            account.transfer[t.receiver] += rest
        if t.send_wait is not None:
            late, rest = _divided(timeline, t.send_wait, t.receive)
            account.late_receiver[t.receiver] += late
            account.transfer[t.sender] += rest
    for r in reductions(timeline, case.split):
        last = _last(timeline, r.posts)
        for rank, wait in r.waits.items():
            late, rest = _divided(timeline, wait, r.posts[last] if rank != last else None)
            account.late_rank[last] += late
            account.reduction[rank] += rest
    return account


def _last(timeline: Timeline, posts: Mapping[int, int]) -> int:
    """Return the rank whose post began last."""
    return max(posts, key=lambda rank: timeline.start_s[posts[rank]])


def _divided(timeline: Timeline, wait: int, post: int | None) -> tuple[float, float]:
    """Seconds of a wait before and after a post of another rank began."""
    start, end = float(timeline.start_s[wait]), float(timeline.end_s[wait])
    ready = start if post is None else float(timeline.start_s[post])
    ready = min(max(ready, start), end)
    return ready - start, end - ready
