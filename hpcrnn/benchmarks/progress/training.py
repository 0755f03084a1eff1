"""Progress of a training to a target: which seed, how far, and how the loss on held-out data comes down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcrnn.benchmarks.progress.screen import Line
from hpcrnn.benchmarks.progress.words import duration, shortened
from hpcrnn.records.sparkline import sparkline
from hpcrnn.spec import TrainingSpec

if TYPE_CHECKING:  # MPI would start with it, in a sweep too
    from hpcrnn.benchmarks.to_target import Course

_MOST_LOSSES = 40
"""Last evaluations that a line of blocks shows, at the most."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes
    ----------
    name : str
        Of the way of running it.
    seed, number, n_seeds : int
        The seed under way, counted from 1, and how many there are.
    step, max_steps : int
    time_s : float
        Of training.
    losses : tuple of float
        On held-out data, so far.
    target : float
    """

    name: str
    seed: int
    number: int
    n_seeds: int
    step: int
    max_steps: int
    time_s: float
    losses: tuple[float, ...]
    target: float

    @classmethod
    def of(cls, name: str, spec: TrainingSpec, seed_index: int, course: Course) -> TrainingProgress:
        """Look at a course."""
        return cls(
            name,
            course.seed,
            seed_index + 1,
            spec.seeds,
            int(course.last("step")),
            spec.max_steps,
            course.last("time_s"),
            tuple(course.columns["held_out_loss"]),
            spec.target_loss or 0.0,
        )


def training_line(now: TrainingProgress) -> str:
    """Say all of it on one plain line."""
    seed, steps = _seed_and_steps(now)
    return (
        f"training {now.name}, {seed}: {steps}, {duration(now.time_s)} of training: "
        f"held-out loss {now.losses[-1]:.4g}, target {now.target:.4g}"
    )


def _seed_and_steps(now: TrainingProgress) -> tuple[str, str]:
    return f"seed {now.seed} ({now.number} of {now.n_seeds})", f"step {now.step}, at most {now.max_steps}"


def training_view(now: TrainingProgress, columns: int, in_ascii: bool) -> list[Line]:
    """Lay it out as two lines of a terminal; no line is longer than ``columns``."""
    dot = "-" if in_ascii else "·"
    head = f" {dot} ".join(["training", now.name, *_seed_and_steps(now), duration(now.time_s)])
    losses = f"held-out loss {now.losses[-1]:.4g}, target {now.target:.4g}"
    n_blocks = max(0, min(_MOST_LOSSES, columns - len(losses) - 2))
    drawn = sparkline(now.losses[-n_blocks:], n_blocks, ascii_only=in_ascii) if n_blocks else ""
    return [
        [(shortened(head, columns, in_ascii=in_ascii), "bold")],
        [(shortened(losses, columns, in_ascii=in_ascii), ""), (f"  {drawn}" if drawn else "", "magenta")],
    ]
