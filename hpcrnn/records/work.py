"""What the steps of a case worked on where sequences are of unequal length: what was there, and what was computed.

A *token* is a time step of a row that holds something; a *slot* is one that was run, padding or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Work:
    """What each rank worked on in each counted repetition, and of what lengths the data are.

    Attributes
    ----------
    tokens, slots : int64 array (n_repetitions, n_ranks)
    n_sequences : int64 array (T,)
        Sequences of each length 1 to T in the data.
    """

    tokens: IntArray
    slots: IntArray
    n_sequences: IntArray

    @property
    def waste(self) -> float:
        """Share of all slots that was padding; NaN where nothing was run."""
        return 1 - float(self.tokens.sum() / self.slots.sum()) if self.slots.sum() else float("nan")

    @property
    def token_imbalance(self) -> float:
        """Share of the ranks' time that is lost where a rank's time goes with its tokens."""
        return lost_share(self.tokens)

    @property
    def slot_imbalance(self) -> float:
        """Share of the ranks' time that is lost where a rank's time goes with its slots: what must be waited."""
        return lost_share(self.slots)

    @property
    def step_tokens(self) -> IntArray:
        """Tokens of each step, all ranks' (n_repetitions,)."""
        return np.asarray(self.tokens.sum(axis=1))

    def filled(self, batch: int) -> float:
        """Return what part of a batch of so many full rows a step runs on average."""
        return float(self.slots.sum(axis=1).mean()) / (batch * len(self.n_sequences))

    def quantiles(self, shares: npt.ArrayLike) -> IntArray:
        """Return the smallest lengths that these shares of all sequences do not exceed."""
        below = np.cumsum(self.n_sequences) / max(1, self.n_sequences.sum())
        return np.asarray(np.searchsorted(below, np.asarray(shares) - 1e-12) + 1, dtype=np.int64)

    def fault(self, shape: tuple[int, int]) -> str:
        """What keeps the arrays from fitting repetitions and ranks; empty where nothing does."""
        for name in ("tokens", "slots"):
            found = getattr(self, name).shape
            if found != shape:
                return f"work: {name} has shape {found}, not {shape}"
        return "" if self.n_sequences.ndim == 1 else f"work: n_sequences has shape {self.n_sequences.shape}, not (T,)"


def lost_share(work: FloatArray | IntArray) -> float:
    """Return what part of all ranks' time passes while the rank with the most work in a step is still at it.

    ``1 - sum(work) / (n_ranks * sum over steps of the largest)``: sums over all steps, so that long ones count as they
    last.

    Parameters
    ----------
    work : float64 or int64 array (n_steps, n_ranks)
        In anything a rank's time goes with. NaN where there is none.
    """
    longest = float(work.max(axis=1, initial=0).sum()) * work.shape[1] if work.size else 0.0
    return 1 - float(work.sum()) / longest if longest else float("nan")
