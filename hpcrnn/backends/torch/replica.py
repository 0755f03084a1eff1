"""A peer: the same network trained by PyTorch alone, to be measured beside our data parallelism.

The modules are those of a :class:`~hpcrnn.backends.torch.engine.TorchEngine`, so parameters and gradients are mapped in
one place; everything else of the step is PyTorch's own: one graph through all layers, ``DistributedDataParallel`` on
several ranks, its fused Adam.  What can be kept out of the timed step is kept out: tokens and targets are converted
beforehand, and the loss, of which our step makes the sum over the ranks, stays the rank's own.
"""

from __future__ import annotations

from typing import Any

import torch

from hpcrnn.backends.base import Extent, Part, Piece
from hpcrnn.backends.torch.engine import TorchEngine
from hpcrnn.model.network import Network
from hpcrnn.workloads import Batch

Tensor = Any  # torch carries no types we check


class _Loss(torch.nn.Module):  # type: ignore[misc]  # torch carries no types we check
    """Embedding, recurrent layers, head and cross entropy, from tokens to the scaled loss."""

    def __init__(self, layers: list[Any], scale: float) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)
        self._scale = scale

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = tokens
        for layer in self.layers:
            x = layer(x)
            if isinstance(x, tuple):  # a recurrent layer gives its final states too
                x = x[0]
        return torch.nn.functional.cross_entropy(x.flatten(0, 1), targets, reduction="sum") * self._scale


class TorchReplica:
    """One rank's copy of the network, its rows of the batch, and its optimizer.

    Parameters
    ----------
    engine : TorchEngine
        Holds parameters and gradients.
    network : Network
        Of tokens, with a head for cross entropy.
    extent : Extent
        Rows of this rank, in one piece.
    lr : float
        Of Adam.
    n_ranks : int
        Replicas; with one there is no ``DistributedDataParallel``.
    bucket_mib : float, optional
        Its ``bucket_cap_mb``; PyTorch's default where None.
    """

    def __init__(
        self,
        engine: TorchEngine,
        network: Network,
        extent: Extent,
        lr: float,
        n_ranks: int,
        bucket_mib: float | None = None,
    ) -> None:
        self._engine, self._n_ranks = engine, n_ranks
        self._blocks = range(len(network.blocks))
        # Gradients are divided by the ranks where our scale makes their sum the gradient.
        module = _Loss([engine.module(index) for index in self._blocks], extent.scale * n_ranks)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(trained, lr=lr, fused=True)
        self._module = module
        if n_ranks > 1:
            self._module = torch.nn.parallel.DistributedDataParallel(
                module, bucket_cap_mb=bucket_mib, gradient_as_bucket_view=True, static_graph=True
            )
        self._tokens: Tensor = None
        self._targets: Tensor = None
        self._loss: Tensor = None

    def load_batch(self, batch: Batch) -> None:
        """Take in this rank's rows of the next step."""
        self._tokens = torch.from_numpy(batch.inputs.copy())
        self._targets = torch.from_numpy(batch.targets.copy()).flatten().long()

    def step(self) -> None:
        """Run forward, backward and the update."""
        self._engine.begin_step()
        self._loss = self._module(self._tokens, self._targets)
        self._loss.backward()
        self._optimizer.step()

    def part(self) -> Part:
        """Copy this rank's part of the loss, and the gradients, which are those of all ranks."""
        found = self._engine.gradients(self._blocks)
        pieces = {name: Piece((slice(None),) * array.ndim, array) for name, array in found.items()}
        return Part(float(self._loss.detach()) / self._n_ranks, pieces)
