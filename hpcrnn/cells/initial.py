"""Where the gates that keep a state begin."""

from __future__ import annotations

import numpy as np

from hpcrnn.cells.base import Array


def chrono_bias(rng: np.random.Generator, span: int, H: int) -> Array:
    """Draw biases of H units that keep a state, as chrono initialisation has them: ``log u``, u from U(1, span - 1).

    A gate of that bias alone keeps ``u / (1 + u)`` of the state a step, so that units forget after 2 to ``span`` steps
    (Tallec & Ollivier 2018, *Can recurrent neural networks warp time?*, arXiv 1804.11188).

    Parameters
    ----------
    rng : Generator
    span : int
        The longest dependence that is expected, in steps; at least 2.
    H : int

    Returns
    -------
    array (H,)
    """
    return np.log(rng.uniform(1, span - 1, H))
