"""Progress of one run: what is verified, then of every case its median, its interval and its last steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hpcrnn.benchmarks.progress.estimates import TimeLeft, repetitions_needed, time_left
from hpcrnn.benchmarks.progress.screen import Line, Screen
from hpcrnn.benchmarks.progress.training import TrainingProgress, training_line, training_view
from hpcrnn.benchmarks.progress.words import bar, duration, percent, shortened, step_time
from hpcrnn.records.sparkline import sparkline
from hpcrnn.records.statistics import median_interval
from hpcrnn.spec import MeasureSpec, TrainingSpec

if TYPE_CHECKING:  # MPI would start with it, in a sweep too
    from hpcrnn.benchmarks.to_target import Course, Follower
    from hpcrnn.execution.measurement import Samples, Watcher

_MOST_STEPS = 40
"""Last steps that a line of blocks shows, at the most."""


@dataclass(frozen=True)
class CaseProgress:
    """How far a case is.

    Attributes
    ----------
    name : str
    n : int
        Counted steps.
    median_s : float
    width : float
        Of the interval, relative to the median; NaN while there is none.
    share : float
        Of the repetitions that the wanted width needs, as far as is known now; NaN while it is not.
    last_s : tuple of float
        The last steps.
    """

    name: str
    n: int
    median_s: float
    width: float
    share: float
    last_s: tuple[float, ...]


class Progress:
    """A context in which the progress of a run is shown on standard error.

    Parameters
    ----------
    enabled : bool
        False on all ranks but one.
    screen : Screen, optional
        Another one in tests.
    """

    def __init__(self, *, enabled: bool, screen: Screen | None = None) -> None:
        self._screen = screen or Screen(enabled=enabled)

    def __enter__(self) -> Self:
        self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._screen.line(text)

    def verifying(self, names: Sequence[str]) -> Callable[[str], None]:
        """Return what the verification calls with what it begins to run: the reference, or one of the names."""
        if not self._screen.is_live:
            self._screen.line(f"verifying {', '.join(names)}")

        def begin(name: str) -> None:
            number = f" ({names.index(name) + 1} of {len(names)})" if name in names else ""
            text = f"verifying {name}{number}"
            self._screen.show(partial(_doing, text), lambda: text, now=True)

        return begin

    def watcher(self, names: Sequence[str], limits: MeasureSpec) -> Watcher:
        """Return what :func:`~hpcrnn.execution.measurement.measure` calls after every round."""
        warm_s = 0.0
        steps_s: list[list[float]] = [[] for _ in names]
        self.doing(f"warming up, {limits.warmup} to go" if limits.warmup else "measuring")

        def watch(repetition: int, elapsed_s: float, samples: Sequence[Samples]) -> None:
            nonlocal warm_s
            if repetition < 0:
                warm_s = elapsed_s
                to_go = -repetition - 1
                text = f"warming up, {to_go} to go" if to_go else "measuring"
                self._screen.show(partial(_doing, text), lambda: f"{text}; {duration(elapsed_s)} so far")
                return

            # Medians and intervals of many samples are found only where they are shown.
            def now() -> tuple[list[CaseProgress], TimeLeft]:
                for known, found in zip(steps_s, samples, strict=True):
                    known.extend(float(sample[:, 0].max()) for sample in found.time_s[len(known) :])
                cases = [_progress(name, known, limits) for name, known in zip(names, steps_s, strict=True)]
                round_s = (elapsed_s - warm_s) / (repetition + 1)
                widths = [case.width for case in cases]
                return cases, time_left(repetition + 1, widths, round_s, elapsed_s, limits)

            self._screen.show(
                lambda width, in_ascii: run_view(*now(), elapsed_s, limits.ci_width, width, in_ascii=in_ascii),
                lambda: run_line(*now(), elapsed_s, limits.ci_width),
            )

        return watch

    def training(self, name: str, spec: TrainingSpec) -> Follower:
        """Return what a training to a target calls after every evaluation."""

        def follow(seed_index: int, course: Course) -> None:
            now = TrainingProgress.of(name, spec, seed_index, course)
            self._screen.show(partial(training_view, now), lambda: training_line(now))

        return follow

    def doing(self, text: str) -> None:
        """Show what is being done; on a terminal only."""
        if self._screen.is_live:
            self._screen.show(partial(_doing, text), lambda: text, now=True)


def _doing(text: str, width: int, in_ascii: bool) -> list[Line]:
    return [[(shortened(text, width, in_ascii=in_ascii), "bold")]]


def _progress(name: str, steps_s: Sequence[float], limits: MeasureSpec) -> CaseProgress:
    interval = median_interval(steps_s)
    width = interval.relative_width
    needed = repetitions_needed(interval.n, width, limits)
    share = interval.n / needed if isfinite(needed) else nan
    return CaseProgress(name, interval.n, interval.median, width, share, tuple(steps_s[-_MOST_STEPS:]))


def run_line(cases: Sequence[CaseProgress], left: TimeLeft, elapsed_s: float, wanted: float) -> str:
    """Say all of it on one plain line.

    Parameters
    ----------
    cases : sequence of CaseProgress
    left : TimeLeft
    elapsed_s : float
    wanted : float
        Relative width of the interval that ends it.
    """
    known = [
        f"{case.name} {step_time(case.median_s)}" + (f" ({percent(case.width)})" if isfinite(case.width) else "")
        for case in cases
    ]
    return (
        f"step {cases[0].n}, {duration(elapsed_s)} so far, {left}: {', '.join(known)}; "
        f"intervals of {percent(wanted)} wanted"
    )


def run_view(
    cases: Sequence[CaseProgress], left: TimeLeft, elapsed_s: float, wanted: float, columns: int, *, in_ascii: bool
) -> list[Line]:
    """Lay a run out as lines of a terminal; parameters as of :func:`run_line`.

    Parameters
    ----------
    columns : int
        No line is longer. The bars, then the last steps are left out where there is no room.
    in_ascii : bool
    """
    dot = "-" if in_ascii else "·"
    head = f"measuring {dot} step {cases[0].n} {dot} {duration(elapsed_s)} {dot} {left}"
    n_name = min(max(len(case.name) for case in cases), max(8, columns // 3))
    n_fixed = n_name + len("  9.99 ms  100 %  ")
    n_steps = max(0, min(_MOST_STEPS, (columns - n_fixed) // 2 - 2))
    n_bar = max(0, min(24, columns - n_fixed - n_steps - 2))
    aim = f"towards {percent(wanted)}"
    titles = [
        f"{'':{n_name}}",
        f"{'median':>7}",
        f"{'width':>5}",
        f"{aim if len(aim) <= n_bar else '':{n_bar}}",
        "last steps" if n_steps >= len("last steps") else "",
    ]
    lines: list[Line] = [[(shortened(head, columns, in_ascii=in_ascii), "bold")]]
    lines.append([(shortened("  ".join(titles).rstrip(), columns, in_ascii=in_ascii), "dim")])
    for case in cases:
        done, rest = bar(case.share, n_bar, in_ascii=in_ascii)
        name = shortened(case.name, n_name, in_ascii=in_ascii)
        pieces = [
            (f"{name:{n_name}}  {step_time(case.median_s):>7}  {percent(case.width):>5}  ", ""),
            (done, "green" if case.share >= 1 else "cyan"),
            (f"{rest}  ", "dim"),
            (sparkline(case.last_s[-n_steps:], n_steps, ascii_only=in_ascii) if n_steps else "", "magenta"),
        ]
        lines.append(_cut(pieces, columns))
    return lines


def _cut(pieces: Sequence[tuple[str, str]], columns: int) -> Line:
    """Cut a line of pieces to a width."""
    kept = []
    for text, style in pieces:
        kept.append((text[:columns], style))
        columns -= len(kept[-1][0])
    return [piece for piece in kept if piece[0]]
