"""Minimal gated recurrent unit (Feng et al. 2024, *Were RNNs all we needed?*, arXiv 2410.01201).

Gates ``z, n`` of ``k = x_t W + b``, of which neither sees the state::

    z = σ(k_z)      n = k_n
    h_t = (1 - z) h_{t-1} + z n

``z`` takes in where the ``z`` of :mod:`hpcrnn.cells.gru` keeps: the authors have it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpcrnn.cells.base import Array, Tape, Workspace, sigmoid
from hpcrnn.cells.initial import chrono_bias
from hpcrnn.cells.linear import LinearCell


@dataclass(frozen=True)
class MinGRU(LinearCell):
    """Two gates, one state.

    The update gate forgets: ``forget_bias`` is subtracted from its initial bias, which with a ``chrono_span`` is minus
    that of chrono initialisation.
    """

    forget_bias: float = 0.0
    chrono_span: int | None = None

    name: ClassVar[str] = "mingru"
    n_gates: ClassVar[int] = 2

    def initial_parameters(self, rng: np.random.Generator, D: int, H: int) -> dict[str, Array]:
        parameters = super().initial_parameters(rng, D, H)
        z, _ = parameters["b"].reshape(2, H)
        if self.chrono_span:
            z[...] = -chrono_bias(rng, self.chrono_span, H)
        z -= self.forget_bias
        return parameters

    def admit(self, block: Tape, work: Workspace) -> None:
        """The share is the update gate."""
        z = block.saved["factor"]
        np.copyto(z, block.gates_by_gate[:, 0])
        np.add(z, work.bias[0], out=z)
        sigmoid(z)

    def spread(self, dlogit: Array, block: Tape, work: Workspace) -> None:  # noqa: ARG002
        """Its logit is the gate's input."""
        np.copyto(block.gates_by_gate[:, 0], dlogit)
