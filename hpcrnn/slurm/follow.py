"""How submitted jobs get on: what is done, what runs, what waits and why, and what will never be done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcrnn.benchmarks.sweep import Point, Sweep
from hpcrnn.errors import LaunchError
from hpcrnn.slurm import queue
from hpcrnn.slurm.jobs import on_ranks
from hpcrnn.slurm.queue import State
from hpcrnn.slurm.submission import Submission, SubmittedJob

_ASK_EVERY_S = (1.0, 15.0)
"""At first and at the most: Slurm's controller serves many."""
_SLOWER = 1.3
_PATIENCE_S = 1800.0
"""How long Slurm's controller may not answer, as while it is started anew, before following it is given up."""


@dataclass(frozen=True)
class Standing:
    """How a sweep stands.

    Attributes
    ----------
    n_done, n_points : int
        Points whose results are there, whole and valid, and all.
    states : tuple of State
        Of the jobs and tasks Slurm still knows.
    lost : tuple of SubmittedJob
        Jobs Slurm no longer knows that left points undone.
    """

    n_done: int
    n_points: int
    states: tuple[State, ...]
    lost: tuple[SubmittedJob, ...]

    @property
    def over(self) -> bool:
        """Whether no job will do any more."""
        return all(state.over for state in self.states)

    @property
    def failed(self) -> tuple[State, ...]:
        """Jobs and tasks that ended, and not well."""
        return tuple(state for state in self.states if state.over and state.word != queue.ENDED_WELL)

    def line(self) -> str:
        """``12 of 18 points done; 2 running, 4 pending (Resources)``."""
        counts = Counter(state.word.lower() for state in self.states if not state.over)
        why = sorted({s.reason for s in self.states if s.word == "PENDING" and s.reason not in ("", "None")})
        parts = [f"{count} {word}" for word, count in counts.items()]
        waiting = f" ({', '.join(why)})" if why and parts else ""
        return f"{self.n_done} of {self.n_points} points done" + (f"; {', '.join(parts)}{waiting}" if parts else "")


def look(sweep: Sweep, submission: Submission, done: set[str] | None = None) -> Standing:
    """Ask Slurm and the folder of the results how a sweep stands.

    Parameters
    ----------
    sweep : Sweep
    submission : Submission
    done : set of str, optional
        Names of points known to be done, which are not read again; those found now are added.
    """
    # Slurm first: what a job that has ended left behind is then there.
    states = queue.states(job.id for job in submission.jobs)
    known = {state.job.split("_")[0] for state in states}
    done = set() if done is None else done
    done |= {point.name for point in sweep.points if point.name not in done and point.is_done()}
    lost = tuple(
        job
        for job in submission.jobs
        if job.id not in known and any(point.name not in done for point in points_of(sweep.points, job))
    )
    return Standing(len(done), len(sweep.points), states, lost)


def points_of(points: Sequence[Point], job: SubmittedJob) -> list[Point]:
    """Return the points that are a job's to run."""
    same = on_ranks(points, job.n_ranks)
    return [same[k] for k in job.tasks if k < len(same)] if job.tasks else same


def follow(sweep: Sweep, submission: Submission, say: Callable[[str], None]) -> Standing:
    """Say how a sweep stands whenever that has changed, until no job will do any more.

    Raises
    ------
    LaunchError
        Slurm does not answer, and did not for half an hour.
    """
    pause, last, done = _ASK_EVERY_S[0], "", set[str]()
    answered: float | None = None
    while True:
        try:
            standing = look(sweep, submission, done)
        except LaunchError as error:
            if answered is None or time.monotonic() - answered > _PATIENCE_S:
                raise
            if (line := f"{error}; asking again") != last:
                say(line)
                last = line
            time.sleep(_ASK_EVERY_S[1])
            continue
        answered = time.monotonic()
        if (line := standing.line()) != last:
            say(line)
            last, pause = line, _ASK_EVERY_S[0]
        if standing.over:
            return standing
        time.sleep(pause)
        pause = min(pause * _SLOWER, _ASK_EVERY_S[1])
