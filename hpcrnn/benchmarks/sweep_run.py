"""Running a sweep: the points that are not done, one after another, until all are or the time is up."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hpcrnn.benchmarks.launch import Ended, Launch
from hpcrnn.benchmarks.progress.estimates import State
from hpcrnn.benchmarks.progress.items import Items
from hpcrnn.benchmarks.progress.words import duration
from hpcrnn.benchmarks.sweep import Point, Sweep
from hpcrnn.errors import EXIT_VALID, EXIT_WRONG_USE


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to.

    Attributes
    ----------
    files : tuple of Path
        The result files there are.
    exit_code : int
        The first that was not 0; 1 where points are left because it was asked to end.
    n_done : int
        Points that were run now and are done.
    n_left : int
        Points that were not run, or not to their end, because it was asked to end.
    """

    files: tuple[Path, ...]
    exit_code: int
    n_done: int = 0
    n_left: int = 0


def run_sweep(sweep: Sweep, *, dry_run: bool) -> SweepOutcome:
    """Run the points that are not done, one after another.

    A point that fails is reported and the rest goes on; what it said is in its log beside the results.  SIGUSR1,
    which Slurm can send before the time of a job is up, ends it early: the point that runs ends with what it has
    measured, and no other begins.

    Parameters
    ----------
    sweep : Sweep
    dry_run : bool
        Only say what would be started.

    Returns
    -------
    SweepOutcome
    """
    if dry_run:
        for prefix, point in zip(_prefixes(sweep), sweep.points, strict=True):
            _say(f"{prefix}: {'done before' if point.is_done() else shlex.join(sweep.command(point))}")
        return SweepOutcome(_files(sweep), EXIT_VALID)
    kinds = [f"on {point.ranks} rank{'s' * (point.ranks > 1)}" for point in sweep.points]
    with Items(f"sweep {sweep.section.name}", kinds, "point", has_lines=True) as items:
        runner = _Runner(sweep, items)
        with _on_signal(runner):
            return runner.run()


class _Runner:
    """The state of a sweep that runs: what it starts now, and whether it was asked to end."""

    def __init__(self, sweep: Sweep, items: Items) -> None:
        self._sweep, self._items = sweep, items
        self._launch: Launch | None = None
        self._asked = threading.Event()

    def ask_to_end(self, number: int, _frame: FrameType | None) -> None:
        """Hear a signal: whatever runs is told, and nothing more begins."""
        self._asked.set()
        if self._launch is not None:
            self._launch.signal(signal.Signals(number))

    def run(self) -> SweepOutcome:
        code, done, items = EXIT_VALID, 0, self._items
        to_do = self._to_do()
        for index, prefix, point in to_do:
            if self._asked.is_set():
                break
            items.begin(index, point.name)
            if not items.is_live:
                items.line(f"{prefix}: started on {point.ranks} rank{'s' * (point.ranks > 1)}")
            ended = self._start(point, prefix)
            # Ranks that the signal reaches before they listen for it die of it, and that is no failure of theirs.
            cut_short = self._asked.is_set() and ended.code in (EXIT_VALID, EXIT_WRONG_USE) and not point.is_done()
            went_well = ended.code == EXIT_VALID and not cut_short
            took = duration(items.end(State.DONE if went_well else State.FAILED))
            done += went_well
            if cut_short:
                items.line(f"{prefix}: ended early after {took}, with too few repetitions to count as done")
            elif ended.code != EXIT_VALID:
                code = code or ended.code
                items.line(f"{prefix}: FAILED with exit code {ended.code} after {took}: {ended.said}")
                items.line(f"{prefix}: everything it said is in {_log_path(point)}")
            else:
                items.line(f"{prefix}: done in {took}" + ("" if items.is_live else f"; {items.so_far()}"))
        left = sum(not point.is_done() for _, _, point in to_do) if self._asked.is_set() else 0
        if left:
            items.line(f"asked to end by SIGUSR1: {left} of {len(self._sweep.points)} points are left")
        return SweepOutcome(_files(self._sweep), code or (EXIT_WRONG_USE if left else EXIT_VALID), done, left)

    def _to_do(self) -> list[tuple[int, str, Point]]:
        """Say what is done; return the rest. All of them first: how much is left is then known from the start."""
        left = []
        for index, (prefix, point) in enumerate(zip(_prefixes(self._sweep), self._sweep.points, strict=True)):
            if point.is_done():
                self._items.end(State.DONE_BEFORE, index)
                self._items.line(f"{prefix}: done before")
            else:
                left.append((index, prefix, point))
        return left

    def _start(self, point: Point, prefix: str) -> Ended:
        items = self._items

        def pass_on(text: str) -> None:
            if items.is_live and not text.startswith("warning"):
                items.note(text)
            else:
                items.line(f"{prefix}: {text}")

        self._launch = Launch(self._sweep.command(point), _log_path(point), point.spec.machine.threads)
        try:
            return self._launch.run(self._sweep.section.timeout, pass_on)
        finally:
            self._launch = None


@contextmanager
def _on_signal(runner: _Runner) -> Iterator[None]:
    """Let SIGUSR1 end a sweep, where this system and this thread can hear it."""
    try:
        before = signal.signal(signal.SIGUSR1, runner.ask_to_end)
    except (AttributeError, ValueError):
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _prefixes(sweep: Sweep) -> list[str]:
    """Name each point with its number."""
    return [f"[{number}/{len(sweep.points)}] {point.name}" for number, point in enumerate(sweep.points, start=1)]


def _files(sweep: Sweep) -> tuple[Path, ...]:
    return tuple(point.path for point in sweep.points if point.path.exists())


def _log_path(point: Point) -> Path:
    return point.path.with_suffix(".log")


def _say(text: str) -> None:
    sys.stderr.write(f"hpcrnn: {text}\n")
    sys.stderr.flush()
