"""Where the time of a parallel run goes, held against the serial run on the same hardware.

The *rank-time* of a step is what its P ranks have together, from the common start to the end of the slowest: P x T(P).
Of every step it is divided into :data:`PARTS`, in seconds summed over ranks:

=================  ====================================================================================
``work``           forward, backward, weight gradient and update: seconds in which the process had a CPU
``not_given``      the rest of these phases: the process had no core, or slept
``communication``  ``post``; and of ``allreduce``, for every rank, what the rank that was in it the shortest took: who
                   comes last to a sum waits for the sum alone
``waiting``        ``wait_recv``, ``wait_send``; the rest of ``allreduce``; from a rank's own end to the slowest's
``other``          what no such phase accounts for: the executor
=================  ====================================================================================

A serial run is divided in the same way, and what is *lost* is the difference, part by part::

    P T(P) - T(1)  =  sum over parts of (part of the parallel run - part of the serial run)

of which ``work`` is extra work: smaller products, caches, work done more than once; negative where the ranks together
need less than the serial run.  The division is by phase: the time a message travels while its receiver waits is
waiting, and what ranks exchange inside a task (tensor splits, corrected segments of time, messages that MPI moves while
a task runs) is work.  ``work`` and ``not_given`` are told apart where CPU times were measured and a rank has one thread
and no GPU; of several threads, CPU time does not say what cores were not given, and ``work`` holds both.

The identity holds of every step, and so of means over steps, but not of medians: it is stated of the mean over the
*typical* steps, those between the quartiles (the midmean), which is near the median and which no outlier moves.  Load
balance, communication and computation scaling of the POP model (Rosas, Giménez & Labarta, *Supercomputing Frontiers and
Innovations* 1(2), 2014) are quotients of the same quantities; a sum says how much time there is to be had from each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from hpcrnn.records.record import BUSY_PHASES, STEP, Case, FloatArray, IntArray
from hpcrnn.records.statistics import Interval, ratio_interval
from hpcrnn.reporting.analysis.cores import oversubscribed
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.machines import machines_of
from hpcrnn.reporting.analysis.scaling import Base, SerialRuns, scaled
from hpcrnn.reporting.describe import threads_of
from hpcrnn.reporting.units import format_percent, printable

Part = Literal["work", "not_given", "communication", "waiting", "other"]
PARTS: tuple[Part, ...] = get_args(Part)

DISTURBED = 0.05
"""Share of a serial run's time without a CPU from which on it is said: what is useful is then too large."""


@dataclass(frozen=True, eq=False)
class Account:
    """A parallel case beside its serial run: what was lost of the ranks' time, and to what.

    Attributes
    ----------
    entry : Entry
    base : Base
    speedup : Interval
        Over that base.
    held, serial : dict of Part to float
        Rank-seconds of a typical step of the case, and seconds of one of the base; without ``not_given`` where that
        is not known of both.
    rank_time_s, serial_s : float
        P T(P) and T(1) of these steps.
    remarks : tuple of str
        What must be known to read it: that ranks shared cores, were slowed, or never ran.
    """

    entry: Entry
    base: Base
    speedup: Interval
    held: dict[Part, float]
    serial: dict[Part, float]
    rank_time_s: float
    serial_s: float
    remarks: tuple[str, ...]

    @property
    def efficiency(self) -> Interval:
        """Speedup over the ranks."""
        return scaled(self.speedup, 1.0 / self.entry.case.n_ranks)

    @property
    def useful(self) -> float:
        """The serial run's share of the ranks' time: the efficiency of typical steps."""
        return self.serial_s / self.rank_time_s

    @property
    def lost(self) -> dict[Part, float]:
        """What was lost to each part, as a share of the ranks' time: with :attr:`useful` they add up to 1."""
        return {part: (held - self.serial[part]) / self.rank_time_s for part, held in self.held.items()}


def account_all(entries: Sequence[Entry]) -> list[Account]:
    """Account every case on several ranks that has a serial run to stand beside.

    Parameters
    ----------
    entries : sequence of Entry
        Of one report.

    Returns
    -------
    list of Account
        In the order of the cases; those without a base on the same hardware are left out.
    """
    included = [entry for entry in entries if entry.included]
    bases = _Bases(included)
    found = ((entry, bases.of(entry)) for entry in included if entry.case.n_ranks > 1)
    return [account(entry, base) for entry, base in found if base is not None]


def account(entry: Entry, base: Base) -> Account:
    """Account one case against a serial run."""
    case, serial = entry.case, base.entry.case
    by_cpu = knows_cpu_given(case) and knows_cpu_given(serial)
    steps, serial_steps = typical_steps(case.step_s()), typical_steps(serial.step_s())
    held_serially = _means(rank_seconds(serial, by_cpu=by_cpu), serial_steps)
    serial_s = float(serial.step_s()[serial_steps].mean())
    return Account(
        entry=entry,
        base=base,
        speedup=ratio_interval(base.entry.step, entry.step),
        held=_means(rank_seconds(case, by_cpu=by_cpu), steps),
        serial=held_serially,
        rank_time_s=case.n_ranks * float(case.step_s()[steps].mean()),
        serial_s=serial_s,
        remarks=(*_remarks(entry, base), *_remarks_of_serial(held_serially.get("not_given", 0.0) / serial_s)),
    )


def rank_seconds(case: Case, *, by_cpu: bool) -> dict[Part, FloatArray]:
    """Divide the ranks' time of every counted step; the parts add up to ranks times the step.

    Parameters
    ----------
    case : Case
    by_cpu : bool
        Whether work is told from cores that were not given: needs :func:`knows_cpu_given`.

    Returns
    -------
    dict of Part to float64 array (n_repetitions,)
        Seconds summed over ranks.
    """

    def spent(*phases: str) -> FloatArray:
        known = [case.phase_s(phase) for phase in phases if phase in case.phases]
        return np.asarray(np.sum(known, axis=0)) if known else np.zeros(case.time_s.shape[:2])

    own, busy, posts = case.phase_s(STEP), spent(*BUSY_PHASES), spent("post")
    waits, sums = spent("wait_recv", "wait_send"), spent("allreduce")
    shortest = sums.min(axis=1, keepdims=True)
    until_the_slowest = case.step_s()[:, None] - own
    parts: dict[Part, FloatArray] = {"work": busy}
    if by_cpu and case.cpu_time_s is not None:
        parts["work"] = _at_work(case.phases, case.cpu_time_s)
        parts["not_given"] = busy - parts["work"]
    parts["communication"] = posts + shortest
    parts["waiting"] = waits + (sums - shortest) + until_the_slowest
    parts["other"] = own - busy - posts - waits - sums
    return {part: seconds.sum(axis=1) for part, seconds in parts.items()}


def typical_steps(step_s: FloatArray) -> IntArray:
    """Return the indices of the steps between the quartiles, in order; of fewer than four all."""
    out = len(step_s) // 4
    return np.sort(np.argsort(step_s, kind="stable")[out : len(step_s) - out]).astype(np.int64)


def knows_cpu_given(case: Case) -> bool:
    """Whether CPU times tell work from cores that were not given: they were measured, of one thread a rank, no GPU."""
    measured = case.cpu_time_s is not None and bool(np.isfinite(case.cpu_time_s).all())
    on_gpu = case.on_gpu or "cupy" in (case.spec["machine"].get("rank_backends") or ())
    return measured and not on_gpu and threads_of(case) == 1


@dataclass(frozen=True, eq=False)
class CpuTime:
    """CPU seconds of each rank in a step, medians over the counted steps.

    Attributes
    ----------
    step, work : float64 array (n_ranks,)
        Of the whole step, and of the phases that are work. An MPI that waits busily uses CPU time in its waits too, so
        that the first may be near the step however little a rank had to do.
    """

    step: FloatArray
    work: FloatArray


def cpu_time(case: Case) -> CpuTime | None:
    """CPU seconds of the ranks that measured them; None where none did."""
    if case.cpu_time_s is None:
        return None
    measured = np.isfinite(case.cpu_time_s).all(axis=(0, 2))
    if not measured.any() or not len(case.cpu_time_s):
        return None
    step = case.cpu_time_s[:, measured, case.phases.index(STEP)]
    work = _at_work(case.phases, case.cpu_time_s)[:, measured]
    return CpuTime(np.median(step, axis=0), np.median(work, axis=0))


def _at_work(phases: Sequence[str], times: FloatArray) -> FloatArray:
    """Sum times (n_repetitions, n_ranks, n_phases) over the phases that are work."""
    return np.asarray(times[:, :, [phase in BUSY_PHASES for phase in phases]].sum(axis=2))


def _means(parts: dict[Part, FloatArray], steps: npt.NDArray[np.int64]) -> dict[Part, float]:
    return {part: float(seconds[steps].mean()) for part, seconds in parts.items()}


class _Bases:
    """The serial runs that cases may be accounted against: those that differ from them in the split alone.

    Parameters
    ----------
    entries : sequence of Entry
        Those that are included.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._any = SerialRuns(entries)
        ways: dict[tuple[str, int], list[Entry]] = {}
        for entry in entries:
            ways.setdefault(_way(entry.case), []).append(entry)
        self._of_way = {way: SerialRuns(members) for way, members in ways.items()}
        self._machine = machines_of({entry.record.uuid: entry.record for entry in entries}.values())

    def of(self, entry: Entry) -> Base | None:
        """Return the best serial run of the same backend and threads, else the best of all; None on other hardware."""
        for runs in (self._of_way[_way(entry.case)], self._any):
            base = runs.base_of(entry)
            if base is not None and (base.same_file or self._same_machine(base.entry, entry)):
                return base
        return None

    def _same_machine(self, one: Entry, other: Entry) -> bool:
        return self._machine[one.record.uuid] == self._machine[other.record.uuid]


def _way(case: Case) -> tuple[str, int]:
    return case.backend, threads_of(case)


def _remarks(entry: Entry, base: Base) -> Iterable[str]:
    case, serial = entry.case, base.entry.case
    if case.simulated:
        yield "simulated, no machine ran it"
    if oversubscribed(entry):
        yield "more threads than cores, so that ranks take them from one another"
    if handicap := case.spec["machine"].get("handicap"):
        yield f"slowed on purpose ({printable(handicap)})"
    if _way(case) != _way(serial):
        yield "its serial run is of another backend or number of threads, and extra work holds what that makes"
    if not base.same_file:
        yield "its serial run is from another file of the same machine, not interleaved with it"


def _remarks_of_serial(not_given: float) -> Iterable[str]:
    """Say that a serial run had no CPU for a share of its time."""
    if not_given > DISTURBED:
        yield f"its serial run, too, was at work without a CPU for {format_percent(not_given)} of its time"
