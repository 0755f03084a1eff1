"""Random numbers."""

from typing import Any

import numpy as np

from cupy._array import from_host, ndarray

_generator = np.random.default_rng(0)


def seed(value: int | None = None) -> None:
    """Begin anew."""
    global _generator  # noqa: PLW0603 - one generator, as CuPy has one
    _generator = np.random.default_rng(value)


def standard_normal(size: Any = None, dtype: Any = float) -> ndarray:
    """Draw from N(0, 1)."""
    return from_host(np.asarray(_generator.standard_normal(size, dtype)))


def random(size: Any = None, dtype: Any = float) -> ndarray:
    """Draw from U(0, 1)."""
    return from_host(np.asarray(_generator.random(size, dtype)))
