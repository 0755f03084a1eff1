"""A rank made slow on purpose, to try what unequal ranks do and what helps.

After each piece of work the rank keeps its core busy for as much CPU time more as a slower core would have needed.  CPU
time, because on a core that others use too the wall clock says how much of it the rank was given, not how fast it is.
"""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time_ns


class Slowdown:
    """Slows the calls of one executor down.

    Parameters
    ----------
    speed : float
        In (0, 1): what is left of the rank's speed.
    from_run : int
        Steps of the executor before the first slow one.
    """

    def __init__(self, speed: float, from_run: int = 0) -> None:
        self._more = 1.0 / speed - 1.0
        self._runs_left = from_run
        self._is_slow = False

    def begin_step(self) -> None:
        """Count a step."""
        self._is_slow = self._runs_left <= 0
        self._runs_left -= 1

    def slow(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return a call that takes as much CPU time as a slower core would need for this one.

        Of a call of several threads, that of the calling one, which works as long as the others do.
        """

        def slowed() -> None:
            start = thread_time_ns()
            call()
            if self._is_slow:
                now = thread_time_ns()
                end = now + self._more * (now - start)
                while thread_time_ns() < end:
                    pass

        return slowed
