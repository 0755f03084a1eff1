"""Stragglers: the ranks and hosts that make the others wait, told apart from those that have more work by design.

Ranks wait for one another, so all of them take nearly as long; who is slow shows in the time they are busy.  In each
step a rank's busy time stands against the median of its peers': the ranks that do the same kind of work, those of the
same pipeline stage.  A rank is slow where that ratio is beyond :data:`EFFECT` in more steps than a fair coin would
explain (a sign test, exact, whatever the distribution), shared out over the ranks judged, and where its larger share
of rows or time steps does not explain it either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hpcrnn.data_methods import SERVED
from hpcrnn.records.balance import weights_of
from hpcrnn.records.bubble import busy_s
from hpcrnn.records.record import STEP, Case, FloatArray, IntArray, Record
from hpcrnn.records.split import CHAIN
from hpcrnn.records.statistics import Interval, median_interval, sign_test_count
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import first_of, host_dicts
from hpcrnn.reporting.units import printable
from hpcrnn.schedules.shares import share_out, speeds_of
from hpcrnn.spec import AXES, Grid

BoolArray = npt.NDArray[np.bool_]

EFFECT = 0.05
"""Busy time beyond the others' that counts, as a share of theirs: less is of no consequence."""
LEVEL = 0.05
"""How often a case without a straggler is said to have one, at the most."""

Kind = Literal["slower", "more work", "other work"]
"""``more work``: as much per row and step as its peers, and more of them; ``other work``: it has no peers."""


@dataclass(frozen=True)
class Straggler:
    """A rank, or all ranks of a host, busy for clearly longer than the others.

    Attributes
    ----------
    ranks : tuple of int
        One, or those of a host.
    host : str
        Empty where it was not recorded.
    kind : {"slower", "more work", "other work"}
    busy : Interval
        Seconds a step; of a host, of the rank in the middle.
    excess : Interval
        Busy time over the others', step by step.
    n_slow, n_last, n_steps : int
        Steps in which it was busy for :data:`EFFECT` longer than the others, in which it was the last to end, and all.
    """

    ranks: tuple[int, ...]
    host: str
    kind: Kind
    busy: Interval
    excess: Interval
    n_slow: int
    n_last: int
    n_steps: int

    @property
    def is_host(self) -> bool:
        """Whether a host as a whole is meant."""
        return len(self.ranks) > 1


@dataclass(frozen=True)
class Judgement:
    """What is found of the ranks of a case.

    Attributes
    ----------
    entry : Entry
    stragglers : tuple of Straggler
        Slow hosts, then ranks, slow ones first; mostly none.
    silent : str
        Why slow ranks could not have been found; empty where they could.
    """

    entry: Entry
    stragglers: tuple[Straggler, ...] = ()
    silent: str = ""

    @property
    def slow(self) -> tuple[Straggler, ...]:
        """Those that are slower at the same work."""
        return tuple(s for s in self.stragglers if s.kind == "slower")


def judge_all(entries: Iterable[Entry]) -> list[Judgement]:
    """Judge the ranks of all cases that ran on several."""
    return [judge(entry) for entry in entries if entry.included and entry.case.n_ranks > 1]


def judge(entry: Entry) -> Judgement:
    """Find the stragglers of a case on two ranks or more.

    Parameters
    ----------
    entry : Entry
        One that is plotted.

    Returns
    -------
    Judgement
    """
    case, busy = entry.case, busy_s(entry.case)
    if busy is None or not (np.isfinite(busy).all() and (busy > 0).all()):
        return Judgement(entry, silent="the phases of its steps were not recorded")
    if why := waits_inside(case):
        return Judgement(entry, silent=why)
    if sign_test_count(len(busy), LEVEL / case.n_ranks) > len(busy):
        return Judgement(entry, silent=f"n too small to tell {case.n_ranks} ranks apart")
    evidence = _weigh(entry, busy)
    hosts = _host_columns(evidence)
    # Where hosts are judged too, both kinds of judgement share the level.
    level = LEVEL / (2 if hosts else 1)
    found = [_slow_host(evidence, host, ratio) for host, ratio in _slow_hosts(evidence, hosts, level)]
    told = {rank for straggler in found for rank in straggler.ranks}
    found += [straggler for straggler in _stand_out(evidence, level / case.n_ranks) if straggler.ranks[0] not in told]
    alone = not np.isfinite(evidence.over_peers).any()
    return Judgement(entry, tuple(found), "no two of its ranks do the same kind of work" if alone else "")


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Busy times of the ranks of a case, and what explains them.

    Attributes
    ----------
    busy : float64 array (n_steps, n_ranks)
        Seconds.
    stages : int64 array (n_ranks,)
        Stage of the pipeline of each rank: ranks of one stage do the same kind of work.
    shares : float64 array (n_ranks,)
        Rows times time steps that each rank works on: how much it has of its kind of work.
    over_peers : float64 array (n_steps, n_ranks)
        Over that of the ranks with the same kind of work; NaN of ranks without peers.
    over_all : float64 array (n_steps, n_ranks)
        Over that of all others, whatever they do.
    n_last : int64 array (n_ranks,)
        Steps in which it was the last to end.
    hosts : tuple of str
        One a rank.
    """

    busy: FloatArray
    stages: IntArray
    shares: FloatArray
    over_peers: FloatArray
    over_all: FloatArray
    n_last: IntArray
    hosts: tuple[str, ...]

    @property
    def has_more(self) -> BoolArray:
        """Whether a rank has a larger share than is usual in its stage."""
        usual = {stage: np.median(self.shares[self.stages == stage]) for stage in np.unique(self.stages)}
        return np.asarray(self.shares > np.array([usual[stage] for stage in self.stages]))


def _weigh(entry: Entry, busy: FloatArray) -> _Evidence:
    case = entry.case
    stages, shares = _work(entry)
    over_peers = _over_peers(busy, stages, shares, median_of_others)
    all_alike = not stages.any() and (shares == shares[0]).all()
    return _Evidence(
        busy=busy,
        stages=stages,
        shares=shares,
        over_peers=over_peers,
        over_all=over_peers if all_alike else busy / median_of_others(busy),
        n_last=np.bincount(case.phase_s(STEP).argmax(axis=1), minlength=case.n_ranks),
        hosts=hosts_of_ranks(entry.record, case.n_ranks),
    )


def hosts_of_ranks(record: Record, n_ranks: int) -> tuple[str, ...]:
    """Name the host of each of the first ranks; empty where it was not recorded."""
    names = [printable(first_of(host, "hostname", "host", "name", "node") or "") for host in host_dicts(record)]
    return tuple(names[:n_ranks] if len(names) >= n_ranks else [""] * n_ranks)


def waits_inside(case: Case) -> str:
    """Say where ranks wait for one another inside a task, so that busy time does not tell who is slow."""
    counts = dict(case.split.axes)
    if counts.get("tensor", 1) > 1:
        return "ranks of a tensor split wait for one another inside their tasks"
    if counts.get("time", 1) > 1 and case.method != CHAIN:
        return f"ranks of {case.method} wait for one another inside their tasks"
    return ""


def _work(entry: Entry) -> tuple[IntArray, FloatArray]:
    """Say what each rank has to do: its stage of the pipeline, and its rows times its time steps.

    A parameter server has a stage of its own: it does nobody else's work.
    """
    case = entry.case
    counts, problem = dict(case.split.axes), _numbers(case.spec.get("problem"))
    grid = Grid(**{axis: counts.get(axis, 1) for axis in AXES})
    places = np.unravel_index(range(case.n_ranks), [getattr(grid, axis) for axis in AXES])
    place: dict[str, IntArray] = dict(zip(AXES, places, strict=True))
    speeds = speeds_of(grid, weights_of(case, entry.record.environment))
    n_servers = int(case.spec["parallel"].get("data_method") in SERVED)
    rows = _shares(problem.get("batch", 0), speeds.along("data", grid), case.split.microbatches, n_servers)
    steps = _shares(problem.get("seq", 0), speeds.along("time", grid), case.split.chunks)
    shares = rows[place["data"]] * steps[place["time"]]
    # Where sequences are of unequal length, what was run of them.
    shares = shares if case.work is None else np.maximum(case.work.slots.mean(axis=0), 1.0)
    stages = place["pipeline"].copy()
    stages[:n_servers] = _SERVING
    return stages, shares


_SERVING = -1
"""Stage of a parameter server."""


def _shares(length: int, speeds: Sequence[float], least: int, n_servers: int = 0) -> FloatArray:
    """Length of each part; one where a file does not say how large the problem is, or it cannot have been run."""
    shares, sharing = np.ones(len(speeds)), speeds[n_servers:]
    if length >= least * len(sharing) > 0:
        shares[n_servers:] = [part.stop - part.start for part in share_out(length, sharing, least)]
    return shares


def _numbers(section: Any) -> dict[str, int]:
    items = section.items() if isinstance(section, dict) else ()
    return {key: value for key, value in items if isinstance(value, int) and value > 0}


def _over_peers(
    busy: FloatArray, stages: IntArray, shares: FloatArray, usual: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Busy time over what is usual among peers, in absolute terms or per share, whichever says less; NaN without peers.

    Both, because neither alone is fair: a rank with more rows takes longer, and one with fewer rows takes longer *per
    row*, since part of a product's cost does not depend on its rows.
    """
    ratio = np.full_like(busy, np.nan)
    for stage in np.unique(stages):
        members = np.flatnonzero(stages == stage)
        if members.size == 1:
            continue
        own, share = busy[:, members], shares[members]
        ratio[:, members] = own / usual(own)
        if (share != share[0]).any():
            per_share = own / share
            ratio[:, members] = np.minimum(ratio[:, members], per_share / usual(per_share))
    return ratio


def _median_of_all(values: FloatArray) -> FloatArray:
    """Of each row the median: one base for all ranks of a stage, so that hosts can be compared."""
    return np.asarray(np.median(values, axis=1, keepdims=True))


def median_of_others(values: FloatArray) -> FloatArray:
    """Of each column the median of the other columns, row by row; the upper one where two lie in the middle.

    Under exchangeable columns a value is then beyond it with probability 1/2 at the most, whatever the distribution.
    """
    n = values.shape[1]
    if n == 1:
        return np.full_like(values, np.nan)
    middle = (n - 1) // 2
    ordered = np.partition(values, (middle, middle + 1), axis=1)
    lower, upper = ordered[:, middle, None], ordered[:, middle + 1, None]
    # Without a value at or below the middle one, the next takes its place.
    return np.asarray(np.where(values <= lower, upper, lower))


def _beyond(ratios: FloatArray, level: float) -> BoolArray:
    """Say which columns are beyond the effect in more rows than a fair coin explains; NaN never is."""
    return np.asarray((ratios > 1 + EFFECT).sum(axis=0) >= sign_test_count(len(ratios), level))


def _host_columns(evidence: _Evidence) -> dict[str, list[int]]:
    """Return the judged ranks of the hosts that can be judged: two hosts at least, of two ranks at least."""
    columns: dict[str, list[int]] = {}
    for rank, host in enumerate(evidence.hosts):
        if host and np.isfinite(evidence.over_peers[0, rank]):
            columns.setdefault(host, []).append(rank)
    columns = {host: ranks for host, ranks in columns.items() if len(ranks) > 1}
    return columns if len(columns) > 1 else {}


def _slow_hosts(evidence: _Evidence, columns: dict[str, list[int]], level: float) -> Iterator[tuple[str, FloatArray]]:
    """Find the hosts that are slow as a whole, each with its ratio to the other hosts, step by step.

    A host is as slow as the rank a quarter from its fastest, so that one slow rank does not make a slow host.
    """
    if not columns:
        return
    over_stage = _over_peers(evidence.busy, evidence.stages, evidence.shares, _median_of_all)
    pace = np.stack([_quarter(over_stage[:, ranks]) for ranks in columns.values()], axis=1)
    ratio = pace / median_of_others(pace)
    for host, slow, own in zip(columns, _beyond(ratio, level / len(columns)), ratio.T, strict=True):
        if slow:
            yield host, own


def _quarter(values: FloatArray) -> FloatArray:
    """Of each row the value a quarter from its smallest."""
    place = (values.shape[1] - 1) // 4
    return np.asarray(np.partition(values, place, axis=1)[:, place])


def _stand_out(evidence: _Evidence, level: float) -> list[Straggler]:
    """Find the ranks that are slow among their peers, then those that are the busiest by design."""
    slow = _beyond(evidence.over_peers, level)
    alone = np.isnan(evidence.over_peers[0])
    busiest = _beyond(evidence.over_all, level) & ~slow & (alone | evidence.has_more)
    found = [_rank(evidence, int(rank), "slower", evidence.over_peers) for rank in np.flatnonzero(slow)]
    for rank in np.flatnonzero(busiest):
        kind: Kind = "other work" if alone[rank] else "more work"
        found.append(_rank(evidence, int(rank), kind, evidence.over_all))
    return found


def _rank(evidence: _Evidence, rank: int, kind: Kind, ratios: FloatArray) -> Straggler:
    return _straggler(evidence, (rank,), kind, evidence.busy[:, rank], ratios[:, rank])


def _slow_host(evidence: _Evidence, host: str, ratio: FloatArray) -> Straggler:
    ranks = tuple(rank for rank, name in enumerate(evidence.hosts) if name == host)
    return _straggler(evidence, ranks, "slower", np.median(evidence.busy[:, ranks], axis=1), ratio)


def _straggler(
    evidence: _Evidence, ranks: tuple[int, ...], kind: Kind, busy: FloatArray, ratio: FloatArray
) -> Straggler:
    return Straggler(
        ranks=ranks,
        host=evidence.hosts[ranks[0]],
        kind=kind,
        busy=median_interval(busy),
        excess=median_interval(ratio),
        n_slow=int((ratio > 1 + EFFECT).sum()),
        n_last=int(evidence.n_last[list(ranks)].sum()),
        n_steps=len(busy),
    )
