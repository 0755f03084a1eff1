"""How long work will still take, and on what that is based; nothing is guessed where nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite

from hpcrnn.benchmarks.progress.words import duration
from hpcrnn.spec import MeasureSpec


@dataclass(frozen=True)
class TimeLeft:
    """Seconds to go.

    Attributes
    ----------
    seconds : float
    is_bound : bool
        It cannot be more, and may be less.
    basis : str
        On what it is based, where that is not plain.
    """

    seconds: float
    is_bound: bool = False
    basis: str = ""

    def __str__(self) -> str:
        words = f"{'at most' if self.is_bound else 'about'} {duration(self.seconds)} left"
        return f"{words}, {self.basis}" if self.basis else words


def repetitions_needed(n: int, width: float, limits: MeasureSpec) -> float:
    """Return after how many repetitions an interval is as narrow as wanted: it shrinks with the root of their number.

    Parameters
    ----------
    n : int
        Repetitions so far.
    width : float
        Relative width of the interval now; NaN where there is none.
    limits : MeasureSpec

    Returns
    -------
    float
        At least ``limits.min_repeats``; NaN where the width is.
    """
    return max(float(limits.min_repeats), n * (width / limits.ci_width) ** 2) if isfinite(width) else float("nan")


def time_left(n: int, widths: Sequence[float], round_s: float, elapsed_s: float, limits: MeasureSpec) -> TimeLeft:
    """Estimate when measuring stops.

    Parameters
    ----------
    n : int
        Rounds counted so far.
    widths : sequence of float
        Relative widths of the intervals; NaN where there are none yet.
    round_s : float
        What a round takes.
    elapsed_s : float
        Of the limit of time.
    limits : MeasureSpec

    Returns
    -------
    TimeLeft
        A bound where a limit, and not the interval, will end it as far as is known.
    """
    # The round that is under way when time is up is finished.
    bound = min(max(limits.max_time - elapsed_s, 0.0) + round_s, max(limits.max_repeats - n, 0) * round_s)
    needed = [repetitions_needed(n, width, limits) for width in widths]
    if not needed or not all(map(isfinite, needed)):
        return TimeLeft(bound, is_bound=True)
    expected = max(max(needed) - n, 0.0) * round_s
    return TimeLeft(expected) if expected < bound else TimeLeft(bound, is_bound=True)


class State(Enum):
    """What became of an item of a list of work."""

    TO_GO = "to go"
    DONE = "done"
    FAILED = "failed"
    DONE_BEFORE = "done before"


class Ledger:
    """Items of work of several kinds, and how long those took that are done.

    Parameters
    ----------
    kinds : sequence of str
        One an item, as words after "none of them": ``on 4 ranks``.
    noun : str
        What an item is called.
    """

    def __init__(self, kinds: Sequence[str], noun: str) -> None:
        self._kinds = list(kinds)
        self._noun = noun
        self.states = [State.TO_GO] * len(kinds)
        self._seconds: dict[str, list[float]] = {}

    def settle(self, index: int, state: State, seconds: float = 0.0) -> None:
        """Note what became of an item.

        Only one that is done now says how long others take: what fails or was done before takes no time.
        """
        self.states[index] = state
        if state is State.DONE:
            self._seconds.setdefault(self._kinds[index], []).append(seconds)

    def count(self, state: State) -> int:
        """Return how many items are in a state."""
        return self.states.count(state)

    def time_left(self, running_s: float = 0.0) -> TimeLeft | None:
        """Estimate what the items to go will take; None before the first is done, and where nothing is known.

        Each is taken to last as long as those of its kind did on average, or as all did where none of its kind is done.

        Parameters
        ----------
        running_s : float
            What the first of them has taken already.
        """
        known = {kind: sum(taken) / len(taken) for kind, taken in self._seconds.items()}
        n_done = sum(map(len, self._seconds.values()))
        if not n_done:
            return None
        on_average = sum(map(sum, self._seconds.values())) / n_done
        kinds = [kind for kind, state in zip(self._kinds, self.states, strict=True) if state is State.TO_GO]
        expected = [known.get(kind, on_average) for kind in kinds]
        if expected:
            expected[0] = max(expected[0] - running_s, 0.0)
        if not sum(expected):
            return None  # nothing is to go, or the last one takes longer than those before did
        unseen = [kind for kind in dict.fromkeys(kinds) if kind not in known]
        basis = f"by the {n_done} {self._noun}s done" if n_done > 1 else f"by the one {self._noun} done"
        if unseen:
            basis += f", none {' or '.join(unseen[:3])}" + (" or others" if len(unseen) > 3 else "")
        return TimeLeft(sum(expected), basis=basis)
