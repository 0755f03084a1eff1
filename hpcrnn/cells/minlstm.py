"""Minimal long short-term memory (Feng et al. 2024, *Were RNNs all we needed?*, arXiv 2410.01201).

Gates ``f, i, n`` of ``k = x_t W + b``, of which none sees the state; f and i divide one whole between them::

    f, i = σ(k_f), σ(k_i)               n = k_n
    f' = f / (f + i)                    i' = i / (f + i)
    h_t = f' h_{t-1} + i' n

Where both gates are closed this is 0/0 in rounded numbers.  With ``σ(k) = 1 / (1 + exp(-k))``, and both sides of the
fraction multiplied by ``exp(s)`` for ``s = min(k_f, k_i, 0)``, no exponent is positive and p or q is at least one::

    p = exp(s) + exp(s - k_f)           i' = p / (p + q)        1 - f = exp(s - k_f) / p
    q = exp(s) + exp(s - k_i)           f' = q / (p + q)        1 - i = exp(s - k_i) / q

The other may vanish, so the smallest number is added to both: what is then divided by it is multiplied by it later.

The logit of the share ``i'`` is ``log i - log f``: its derivatives by ``k_i`` and ``k_f`` are ``1 - i`` and ``f - 1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpcrnn.cells.base import Array, Tape, Workspace
from hpcrnn.cells.initial import chrono_bias
from hpcrnn.cells.linear import LinearCell, like


@dataclass(frozen=True)
class MinLSTM(LinearCell):
    """Three gates, one state; ``forget_bias`` is added to the forget gate's initial bias.

    With a ``chrono_span`` the initial biases of the forget and the input gate are those of chrono initialisation.
    """

    forget_bias: float = 0.0
    chrono_span: int | None = None

    name: ClassVar[str] = "minlstm"
    n_gates: ClassVar[int] = 3

    def initial_parameters(self, rng: np.random.Generator, D: int, H: int) -> dict[str, Array]:
        parameters = super().initial_parameters(rng, D, H)
        f, i, _ = parameters["b"].reshape(3, H)
        if self.chrono_span:
            f[...] = chrono_bias(rng, self.chrono_span, H)
            i[...] = -f
        f += self.forget_bias
        return parameters

    def saved_shapes(self, B: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:
        """The factor, and how far each gate is closed: ``1 - f`` and ``1 - i``."""
        return super().saved_shapes(B, H, width) | {"f_closed": (B, H), "i_closed": (B, H)}

    def admit(self, block: Tape, work: Workspace) -> None:
        """The share is the input gate's: ``i'``."""
        f, i, share = block.saved["f_closed"], block.saved["i_closed"], block.saved["factor"]
        q, zero = like(share, work.scratch["block"]), like(share, work.scratch["delta"])
        zero.fill(0)  # NumPy compares with an array four times as fast as with a number
        for gate, k in enumerate((f, i)):
            np.copyto(k, block.gates_by_gate[:, gate])
            np.add(k, work.bias[gate], out=k)
        np.minimum(f, i, out=q)
        np.minimum(q, zero, out=q)
        for k in (f, i):
            np.subtract(q, k, out=k)
            np.exp(k, out=k)
        np.exp(q, out=q)
        np.add(q, np.finfo(q.dtype).tiny, out=q)
        p = share
        np.add(q, f, out=p)
        np.add(q, i, out=q)
        np.divide(f, p, out=f)
        np.divide(i, q, out=i)
        np.add(q, p, out=q)
        np.divide(p, q, out=share)

    def spread(self, dlogit: Array, block: Tape, work: Workspace) -> None:
        product, by_gate = like(dlogit, work.scratch["delta"]), block.gates_by_gate
        np.multiply(dlogit, block.saved["i_closed"], out=product)
        np.copyto(by_gate[:, 1], product)
        np.multiply(dlogit, block.saved["f_closed"], out=product)
        np.negative(product, out=by_gate[:, 0])
