"""Averages of models: local SGD, and the outer optimizer of DiLoCo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outer:
    """What takes the way from one average to the next for a gradient (Douillard et al. 2023, DiLoCo, algorithm 1).

    Attributes
    ----------
    lr : float
    momentum : float
        Nesterov's, as in ``torch.optim.SGD``.
    """

    lr: float
    momentum: float


class ModelAverage:
    """The average of all replicas' parameters, weighted by their shares of the batch.

    Without an outer optimizer every replica goes on from the average (local SGD; Stich 2019).  With one it goes on from
    where all were after the average before, moved by Nesterov momentum along the way the models made on average::

        g = θ - mean(θ_r)    v = momentum v + g    θ = θ - lr (g + momentum v)

    Parameters
    ----------
    parameters : array (n,)
        Of this replica, changed in place; equal on all at first.
    share : float
        Of this replica in the batch; those of all add up to one.
    outer : Outer, optional
    """

    def __init__(self, parameters: Array, share: float, outer: Outer | None = None) -> None:
        self._parameters, self._share, self._outer = parameters, share, outer
        self._sum = np.empty_like(parameters)
        self._state: dict[str, Array] = {}
        if outer is not None:
            self._state = {"anchor": parameters.copy(), "velocity": np.zeros_like(parameters)}

    def weighted(self) -> Array:
        """Multiply this replica's parameters by its share: what is to be summed, in place."""
        return np.multiply(self._parameters, self._share, out=self._sum)

    def take(self) -> None:
        """Go on from the sum."""
        if self._outer is None:
            np.copyto(self._parameters, self._sum)
            return
        anchor, velocity, gradient = self._state["anchor"], self._state["velocity"], self._sum
        np.subtract(anchor, self._sum, out=gradient)
        velocity *= self._outer.momentum
        velocity += gradient
        gradient += self._outer.momentum * velocity
        gradient *= self._outer.lr
        np.subtract(anchor, gradient, out=self._parameters)
        np.copyto(anchor, self._parameters)

    def reset(self) -> None:
        """Begin again from parameters that were set from outside, equal on all."""
        if self._outer is not None:
            np.copyto(self._state["anchor"], self._parameters)
            self._state["velocity"].fill(0)

    def state(self) -> dict[str, Array]:
        """Copies of what the next average depends on."""
        return {name: array.copy() for name, array in self._state.items()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from what :meth:`state` returned."""
        for name, array in self._state.items():
            array[...] = state[name]

    @property
    def memory_bytes(self) -> int:
        """What this has allocated."""
        return self._sum.nbytes + sum(array.nbytes for array in self._state.values())
