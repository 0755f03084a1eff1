"""The optimizers of ``hpcrnn/model/optimizers.py`` on the GPU: one kernel a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Array
from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import DeviceArray, launch_flat
from hpcrnn.spec import TrainingSpec


class GpuOptimizer(Protocol):
    """Changes parameters in place from a gradient, both float32."""

    def update(self, parameters: DeviceArray, gradient: DeviceArray) -> None:
        """Take one step."""

    def state(self) -> dict[str, Array]:
        """Copies, on the host, of what the next step depends on."""

    def restore(self, state: Mapping[str, Array]) -> None:
        """Go on from what :meth:`state` returned."""


class SGD:
    """Gradient descent with momentum.

    Parameters
    ----------
    n : int
        Parameters.
    arithmetic : Arithmetic
    lr, momentum : float
    """

    def __init__(self, n: int, arithmetic: Arithmetic, lr: float, momentum: float) -> None:
        self._velocity = cp.zeros(n, np.float32)
        self._kernel = arithmetic.kernel("sgd")
        self._constants = np.float32(lr), np.float32(momentum), np.int64(n)

    def update(self, parameters: DeviceArray, gradient: DeviceArray) -> None:
        launch_flat(self._kernel, parameters.size, (parameters, gradient, self._velocity, *self._constants))

    def state(self) -> dict[str, Array]:
        return {"velocity": cp.asnumpy(self._velocity)}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._velocity.set(state["velocity"])


class Adam:
    """Adam with bias correction.

    Parameters
    ----------
    n : int
        Parameters.
    arithmetic : Arithmetic
    lr : float
    beta1, beta2, eps : float
    """

    def __init__(
        self, n: int, arithmetic: Arithmetic, lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self._mean, self._square = cp.zeros(n, np.float32), cp.zeros(n, np.float32)
        self._kernel = arithmetic.kernel("adam")
        self._lr, self._beta1, self._beta2, self._eps = lr, beta1, beta2, eps
        self._steps = 0

    def update(self, parameters: DeviceArray, gradient: DeviceArray) -> None:
        self._steps += 1
        correction1 = 1 - self._beta1**self._steps
        correction2 = (1 - self._beta2**self._steps) ** 0.5
        constants = (self._lr * correction2 / correction1, self._eps * correction2, self._beta1, self._beta2)
        arrays = parameters, gradient, self._mean, self._square
        scalars = (*(np.float32(value) for value in constants), np.int64(parameters.size))
        launch_flat(self._kernel, parameters.size, (*arrays, *scalars))

    def state(self) -> dict[str, Array]:
        return {"mean": cp.asnumpy(self._mean), "square": cp.asnumpy(self._square), "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._mean.set(state["mean"])
        self._square.set(state["square"])
        self._steps = int(state["steps"])


def make_optimizer(training: TrainingSpec, n: int, arithmetic: Arithmetic) -> GpuOptimizer:
    """Return the optimizer a specification asks for."""
    if training.optimizer == "sgd":
        return SGD(n, arithmetic, training.lr, training.momentum)
    return Adam(n, arithmetic, training.lr)


def norm_square(gradient: DeviceArray) -> float:
    """Square of the 2-norm of a flat gradient, in float64; not finite where a value is not."""
    return float(cp.square(gradient.astype(np.float64)).sum())


def clip(gradient: DeviceArray, norm: float, limit: float | None) -> None:
    """Scale a gradient in place so that its norm is at most ``limit``."""
    if limit is not None and norm > limit:
        cp.multiply(gradient, np.float32(limit / norm), out=gradient)
