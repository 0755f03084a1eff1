"""What a gradient codec did to a case: bytes it saved, errors it made.

The gradient that ranks together computed in a step, and what they applied instead, are known on a few steps only, for a
dense sum over ranks is what a codec is there to avoid: it is made outside the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

NO_CODEC = "none"

_FIRST = 8


def is_watched(step: int) -> bool:
    """Whether the errors of a training step are looked at: of the first eight, and of the powers of two from there."""
    return step < _FIRST or step & (step - 1) == 0


@dataclass(frozen=True, eq=False)
class Compression:
    """What the sums of the gradients of a case sent, and how far what was applied was from the gradient.

    Steps are numbered as in ``Case.loss``, warm-ups included.

    Attributes
    ----------
    plain_bytes, coded_bytes : int
        What a rank contributes to the sums of a step, without the codec and with it.
    plain_wire_bytes, coded_wire_bytes : float
        What a rank must send for them at the least, on average over the ranks (Chan et al. 2007).
    training_step : int64 array (n,)
        The steps that were looked at, ascending.
    error : float64 array (n,)
        ``|g - applied| / |g|`` with g the gradient of all ranks in that step: what the step left out of g, or put in of
        what was held back before.
    backlog : float64 array (n,)
        ``|held back| / |g|`` after the step, of what all ranks together hold back for later steps.
    held_back : float64 array (n, n_ranks)
        The same of what each rank holds back.
    """

    plain_bytes: int
    coded_bytes: int
    plain_wire_bytes: float
    coded_wire_bytes: float
    training_step: IntArray
    error: FloatArray
    backlog: FloatArray
    held_back: FloatArray

    @property
    def saving(self) -> float:
        """How many times fewer bytes a rank sends at the least; below one where they are more."""
        return self.plain_wire_bytes / self.coded_wire_bytes

    def fault(self, n_ranks: int) -> str:
        """What keeps the arrays from fitting each other; empty where they do."""
        n = len(self.training_step)
        shapes = {"training_step": (n,), "error": (n,), "backlog": (n,), "held_back": (n, n_ranks)}
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                return f"compression: {name} has shape {found}, not {shape}"
        return ""
