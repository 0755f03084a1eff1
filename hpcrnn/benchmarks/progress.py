"""What a run says while it works: a live line on a terminal, a plain line now and then in a batch log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from math import isnan
from types import TracebackType
from typing import Any, Self

from hpcrnn.execution.measurement import Samples, Watcher
from hpcrnn.spec import MeasureSpec

_PLAIN_EVERY_S = 10.0


class Progress:
    """A context in which progress is shown on standard error.

    Parameters
    ----------
    enabled : bool
        False on all ranks but one.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._live: Any = None
        self._last_plain = 0.0

    def __enter__(self) -> Self:
        if self._enabled and sys.stderr.isatty():
            from rich.console import Console

            self._live = Console(stderr=True).status("")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str, *, at_most_every_s: float = 0.0) -> None:
        """Show what is being done."""
        if not self._enabled:
            return
        if self._live is not None:
            self._live.update(text)
            return
        now = time.monotonic()
        if now - self._last_plain >= at_most_every_s:
            self._last_plain = now
            sys.stderr.write(f"hpcrnn: {text}\n")
            sys.stderr.flush()

    def watcher(self, names: Sequence[str], limits: MeasureSpec) -> Watcher:
        """Return what :func:`~hpcrnn.execution.measurement.measure` calls after every round."""

        def watch(repetition: int, elapsed_s: float, samples: Sequence[Samples]) -> None:
            if repetition < 0:
                self.say(f"warming up, {-repetition} to go", at_most_every_s=_PLAIN_EVERY_S)
                return
            intervals = [s.interval() for s in samples]
            medians = ", ".join(
                f"{name} {interval.median * 1e3:.1f} ms" for name, interval in zip(names, intervals, strict=True)
            )
            widest = max(i.relative_width for i in intervals)
            width = "not known yet" if isnan(intervals[0].low) else f"{widest:.1%}"
            self.say(
                f"step {repetition + 1}, {elapsed_s:.0f} of at most {limits.max_time:.0f} s: {medians}; "
                f"widest interval {width}, wanted {limits.ci_width:.1%}",
                at_most_every_s=_PLAIN_EVERY_S,
            )

        return watch
