"""Optimizers on flat buffers: stochastic gradient descent with momentum, Adam, clipping by global norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import NumericsError
from hpcrnn.spec import TrainingSpec

Array = npt.NDArray[Any]


class Optimizer(Protocol):
    """Changes parameters in place from a gradient."""

    def update(self, parameters: Array, gradient: Array) -> None:
        """Take one step; ``gradient`` (n,) may be used as scratch."""

    def state(self) -> dict[str, Array]:
        """Copies of what the next step depends on."""

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from what :meth:`state` returned."""

    @property
    def memory_bytes(self) -> int:
        """What this optimizer has allocated."""


class SGD:
    """Gradient descent with momentum: ``v = momentum v + g``, ``θ -= lr v`` (PyTorch's form).

    Parameters
    ----------
    n : int
        Parameters.
    dtype : dtype
    lr, momentum : float
    """

    def __init__(self, n: int, dtype: npt.DTypeLike, lr: float, momentum: float) -> None:
        self._velocity, self._scratch = np.zeros(n, dtype), np.empty(n, dtype)
        self._lr, self._momentum = lr, momentum

    def update(self, parameters: Array, gradient: Array) -> None:
        np.multiply(self._velocity, self._momentum, out=self._velocity)
        np.add(self._velocity, gradient, out=self._velocity)
        np.multiply(self._velocity, self._lr, out=self._scratch)
        np.subtract(parameters, self._scratch, out=parameters)

    def state(self) -> dict[str, Array]:
        return {"velocity": self._velocity.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._velocity[...] = state["velocity"]

    @property
    def memory_bytes(self) -> int:
        return self._velocity.nbytes + self._scratch.nbytes


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) with bias correction.

    Parameters
    ----------
    n : int
        Parameters.
    dtype : dtype
    lr : float
    beta1, beta2, eps : float
        The paper's defaults.
    """

    # Pieces that stay in a core's own cache: the ten passes below then read memory once.
    _PIECE = 1 << 16

    def __init__(
        self, n: int, dtype: npt.DTypeLike, lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self._sum, self._square_sum = np.zeros(n, dtype), np.zeros(n, dtype)
        self._scratch = np.empty(min(n, self._PIECE), dtype)
        self._lr, self._beta1, self._beta2, self._eps = lr, beta1, beta2, eps
        self._steps = 0

    def update(self, parameters: Array, gradient: Array) -> None:
        self._steps += 1
        # Kept are the sums Σ β^(t-k) g_k, not the paper's means m = (1 - β1) Σ and v = (1 - β2) Σ: two passes less.
        # With c1 = (1 - β1) / (1 - β1^t), c2 likewise: θ -= lr c1 Σ1 / (sqrt(c2 Σ2) + eps), divided by sqrt(c2).
        c1 = (1 - self._beta1) / (1 - self._beta1**self._steps)
        c2 = (1 - self._beta2) / (1 - self._beta2**self._steps)
        rate, eps = self._lr * c1 / c2**0.5, self._eps / c2**0.5
        for start in range(0, parameters.size, self._PIECE):
            piece = slice(start, start + self._PIECE)
            p, g, first, second = parameters[piece], gradient[piece], self._sum[piece], self._square_sum[piece]
            scratch = self._scratch[: p.size]
            np.multiply(first, self._beta1, out=first)
            np.add(first, g, out=first)
            np.multiply(second, self._beta2, out=second)
            np.multiply(g, g, out=scratch)
            np.add(second, scratch, out=second)
            np.sqrt(second, out=scratch)
            np.add(scratch, eps, out=scratch)
            np.divide(first, scratch, out=scratch)
            np.multiply(scratch, rate, out=scratch)
            np.subtract(p, scratch, out=p)

    def state(self) -> dict[str, Array]:
        return {"sum": self._sum.copy(), "square_sum": self._square_sum.copy(), "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._sum[...], self._square_sum[...] = state["sum"], state["square_sum"]
        self._steps = int(state["steps"])

    @property
    def memory_bytes(self) -> int:
        return self._sum.nbytes + self._square_sum.nbytes + self._scratch.nbytes


def make_optimizer(training: TrainingSpec, n: int, dtype: npt.DTypeLike) -> Optimizer:
    """Return the optimizer a specification asks for."""
    if training.optimizer == "sgd":
        return SGD(n, dtype, training.lr, training.momentum)
    return Adam(n, dtype, training.lr)


def norm_square(gradient: Array) -> float:
    """Square of the 2-norm of a flat gradient, in float64; infinite where a value is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.dot(gradient, gradient))
    if np.finfo(gradient.dtype).tiny < square < np.inf:
        return square
    largest = float(np.abs(gradient).max(initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return 0.0 if largest == 0.0 else float("inf")
    # Only the squares left the range of the dtype.
    scaled = gradient / largest
    return largest * largest * float(np.dot(scaled, scaled))


def finite_norm(square: float) -> float:
    """Take the root of a squared norm, which may be a sum over ranks.

    Raises
    ------
    NumericsError
        It is not finite.
    """
    if not np.isfinite(square):
        raise NumericsError("the gradient is not finite; a smaller training.lr or a training.clip usually helps")
    return float(square**0.5)


def clip(gradient: Array, norm: float, limit: float | None) -> None:
    """Scale a gradient in place so that its norm is at most ``limit`` (Pascanu, Mikolov & Bengio 2013)."""
    if limit is not None and norm > limit:
        np.multiply(gradient, limit / norm, out=gradient)
