"""The certificate of a method that runs segments of time at once: what it did, and how near the chain it came.

A layer's *solve* is its pass over the whole sequence in one direction: every segment runs from a guess of the state
it starts from, then from better ones, until the trajectories meet. Ranks hold consecutive segments; here they are
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

DIRECTIONS = ("forward", "backward")

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Of the meeting lengths, over segments and samples."""

UNMET = -1
"""A meeting length: the segment was re-run to its end, and its trajectory had not met the old one."""
SETTLED = 0
"""A meeting length: the segment never had to be re-run."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """What a case's solves did, step by step as training went on; steps are those of ``Case.loss``, warm-ups too.

    L layers, D directions (one in mode ``forward``), S segments over all ranks, B rows of the global batch.

    Attributes
    ----------
    layers : tuple of str
        ``layer0``, ...
    directions : tuple of str
        ``forward``, ``backward``.
    n_segments : int
        Over all time ranks, folded ones included.
    rounds : int64 array (n_steps, L, D)
        Passes over the segments, the first included; 1 where no start had to be corrected.
    critical_steps : int64 array (n_steps, L, D)
        Time steps one after another: of every round those of the rank that had the most.
    row_steps : int64 array (n_steps, L, D)
        Time steps times rows, all rounds and ranks: the work; of the serial run it is T·B.
    residual : float64 array (n_steps, L, D)
        Largest difference, at the end, between a state a segment started from and the one its neighbour ended with;
        relative to the scale of the state as the tolerance is.
    converged : bool array (n_steps, L, D)
        Whether every residual came below the tolerance.
    truncated : bool array (n_steps, L, D)
        Whether a correction of the gradient was dropped in a segment without loss terms of its own, where what is
        dropped is not small beside anything local.
    n_unmet : int64 array (n_steps, L, D)
        Segments and samples whose last re-run came to the segment's end without meeting.
    meeting_quantiles : float64 array (n_steps, L, D, 6)
        :data:`QUANTILES` of the meeting lengths of those that met, time steps; NaN where none did.
    meeting : int64 array (L, D, S, B)
        Meeting length of every segment and sample in the last step, or :data:`UNMET` or :data:`SETTLED`.
    lyapunov : float64 array (2, L)
        Estimated largest Lyapunov exponent of each layer, 1/step, along the trajectories of the first and of the last
        step; NaN where it was not estimated.
    choice : dict
        How ``--method auto`` chose: what its probe measured, the prediction of each method, the reason; empty where
        the method was given.
    """

    layers: tuple[str, ...]
    directions: tuple[str, ...]
    n_segments: int
    rounds: IntArray
    critical_steps: IntArray
    row_steps: IntArray
    residual: FloatArray
    converged: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    n_unmet: IntArray
    meeting_quantiles: FloatArray
    meeting: IntArray
    lyapunov: FloatArray
    choice: dict[str, Any]

    @property
    def n_unconverged(self) -> int:
        """Training steps in which a residual of some solve stayed above the tolerance."""
        return _n_steps_with(~self.converged)

    @property
    def n_truncated(self) -> int:
        """Training steps in which a correction of the gradient was dropped."""
        return _n_steps_with(self.truncated)

    def fault(self, n_steps: int) -> str:
        """What keeps the arrays from fitting each other; empty where they do."""
        L, D = len(self.layers), len(self.directions)
        steps = (n_steps, L, D)
        wanted = dict.fromkeys(
            ("rounds", "critical_steps", "row_steps", "residual", "converged", "truncated", "n_unmet"), steps
        )
        shapes: dict[str, tuple[int, ...]] = wanted | {
            "meeting_quantiles": (*steps, len(QUANTILES)),
            "meeting": (L, D, self.n_segments, *(self.meeting.shape[3:4] or (1,))),
            "lyapunov": (2, L),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                return f"certificate: {name} has shape {found}, not {shape}"
        return ""


def _n_steps_with(flags: npt.NDArray[np.bool_]) -> int:
    """Count the training steps in which a flag of any layer and direction is set."""
    return int(flags.any(axis=(1, 2)).sum())
