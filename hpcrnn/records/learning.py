"""How a model learned: its loss on data held out, against steps, time, bytes and energy, once for each seed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

Ending = Literal["target", "max_steps", "max_time", "diverged", "asked", "unfinished"]
"""Why the training of a seed ended: ``unfinished`` stands in a file that was written before it had."""
ENDINGS: tuple[Ending, ...] = get_args(Ending)


@dataclass(frozen=True, eq=False)
class Curve:
    """The training of one seed, as far as it was looked at; row 0 is the untrained model.

    Attributes
    ----------
    seed : int
    ending : str
        Why it ended; ``target`` where the last loss is at most the target.
    step : int64 array (n_evaluations,)
        Optimizer steps done, ascending from 0.
    time_s : float64 array (n_evaluations,)
        Seconds of training, from the common start of each leg to the end of its slowest rank: loading data, computing,
        communicating and waiting; evaluations and checkpoints are not in it.
    sent_bytes : int64 array (n_evaluations,)
        What all ranks together had sent.
    energy_j : float64 array (n_evaluations,)
        Joules of all processors and GPUs whose counters could be read; NaN where one could not.
    train_loss : float64 array (n_evaluations,)
        Mean over the steps since the row before; NaN in row 0.
    held_out_loss : float64 array (n_evaluations,)
        Of the model as it was then, on data it is never trained on.
    """

    seed: int
    ending: Ending
    step: IntArray
    time_s: FloatArray
    sent_bytes: IntArray
    energy_j: FloatArray
    train_loss: FloatArray
    held_out_loss: FloatArray

    @property
    def reached(self) -> bool:
        """Whether it came to the target."""
        return self.ending == "target"


COLUMNS = tuple(field.name for field in fields(Curve) if field.name not in ("seed", "ending"))
"""What a curve knows of each evaluation."""
COUNTED = ("step", "sent_bytes")
"""Columns of whole numbers."""


@dataclass(frozen=True, eq=False)
class Learning:
    """What a case learned, seed by seed.

    Attributes
    ----------
    target_loss : float
        In the unit of the loss; training stops at the first evaluation at or below it.
    unit : str
        Of the losses, e.g. ``nats per byte``; empty for a plain number.
    held_out : str
        What the model was held against, in words.
    curves : tuple of Curve
        One a seed, in the order in which they were run.
    restarts : tuple of int
        Legs that had been done, over all seeds, each time the training went on from a checkpoint: its times come from
        several processes.
    """

    target_loss: float
    unit: str
    held_out: str
    curves: tuple[Curve, ...]
    restarts: tuple[int, ...] = ()

    @property
    def n_reached(self) -> int:
        """Seeds that came to the target."""
        return sum(curve.reached for curve in self.curves)

    def to_target(self, column: str) -> FloatArray:
        """What each seed needed to come to the target: infinite where it never did.

        Parameters
        ----------
        column : str
            ``step``, ``time_s``, ``sent_bytes`` or ``energy_j``.

        Returns
        -------
        float64 array (n_seeds,)
            NaN where it was not known.
        """
        needed = [float(getattr(curve, column)[-1]) if curve.reached else inf for curve in self.curves]
        return np.array(needed, dtype=np.float64)

    def fault(self) -> str:
        """What keeps the columns from fitting each other; empty where they do."""
        for curve in self.curves:
            for name in COLUMNS:
                found = getattr(curve, name).shape
                if found != curve.step.shape or len(found) != 1:
                    return f"learning: {name} of seed {curve.seed} has shape {found}, step {curve.step.shape}"
        return ""
