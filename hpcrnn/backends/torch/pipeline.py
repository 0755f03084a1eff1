"""A peer: the same layers through ``torch.distributed.pipelining``, to be measured beside our layer pipeline.

A rank's layers are the modules of a :class:`~hpcrnn.backends.torch.engine.TorchEngine`, so parameters and gradients are
mapped in one place.  The schedule is PyTorch's own, over micro-batches, with gloo in between.  What can be kept out
of the timed step is kept out: the batch is cut into contiguous micro-batches beforehand, outputs that nobody asked
for are not merged, and the loss is left on the last rank.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

import numpy as np
import torch

from hpcrnn.backends.base import Extent, Part, Piece, rows_first
from hpcrnn.backends.torch.engine import TorchEngine
from hpcrnn.errors import MissingPackageError
from hpcrnn.model.network import Network
from hpcrnn.workloads import Batch

Tensor = Any  # torch carries no types we check
ScheduleName = Literal["GPipe", "1F1B"]


def check_pipelining() -> None:
    """Refuse a PyTorch that has no pipeline schedules, or older ones than this needs.

    Raises
    ------
    MissingPackageError
    """
    try:
        from torch.distributed.pipelining import ScheduleGPipe
    except ImportError:
        ScheduleGPipe = None
    if ScheduleGPipe is None or "return_outputs" not in inspect.signature(ScheduleGPipe.step).parameters:
        lacks = "torch.distributed.pipelining with step(return_outputs=...)"
        raise MissingPackageError(f"torch {torch.__version__} lacks {lacks}: pip install --upgrade torch")


class _Stage(torch.nn.Module):  # type: ignore[misc]  # torch carries no types we check
    """Recurrent layers one after another; the first stage also asks for the gradient of its input."""

    def __init__(self, layers: list[Any], *, first: bool) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)
        self._first = first
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self._first:
            # Cut from the graph here, so that no gradient travels back through the cutting into micro-batches.
            x = x[0].detach().requires_grad_(True)
            self.inputs.append(x)
        for layer in self.layers:
            x, _ = layer(x)
        return x


class TorchPipeline:
    """One rank's stage, its schedule, and the batch.

    Parameters
    ----------
    engine : TorchEngine
        Holds parameters and gradients; only the layers of this stage are used.
    network : Network
        Without an input layer, and with a linear loss.
    extent : Extent
        Blocks and micro-batches of this rank; time in one chunk.
    stage, n_stages : int
        Number of this rank's stage, and how many there are, two or more.
    schedule : {"GPipe", "1F1B"}
    """

    def __init__(
        self, engine: TorchEngine, network: Network, extent: Extent, stage: int, n_stages: int, schedule: ScheduleName
    ) -> None:
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

        blocks = range(len(network.blocks)) if extent.blocks is None else extent.blocks
        self._engine, self._extent = engine, extent
        self._layers = [index for index in blocks if network.blocks[index].is_recurrent]
        self._first, self._last = stage == 0, stage == n_stages - 1
        self._module = _Stage([engine.module(index) for index in self._layers], first=self._first)
        piped = PipelineStage(self._module, stage, n_stages, torch.device("cpu"))
        make = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}[schedule]
        # The loss is a sum over micro-batches, each with its share of the scale: gradients are not to be divided.
        self._schedule = make(piped, len(extent.microbatches), loss_fn=_loss, scale_grads=False)
        self._inputs: Tensor = None
        self._targets: Tensor = None
        self.loss = 0.0

    def load_batch(self, batch: Batch) -> None:
        """Take in the rows of the next step: (M, T, B/M, N), so that PyTorch cuts along the first axis for free."""
        if self._first:
            self._inputs = self._cut(batch.inputs)
        if self._last:
            self._targets = self._cut(batch.targets) * self._extent.scale

    def _cut(self, whole: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(np.stack([whole[:, rows] for rows in self._extent.microbatches]))

    def step(self) -> None:
        """Run forward and backward on all micro-batches."""
        self._engine.begin_step()
        self._module.inputs.clear()
        losses: list[Tensor] = []
        given = (self._inputs,) if self._first else ()
        self._schedule.step(*given, target=self._targets, losses=losses, return_outputs=False)
        self.loss = float(sum(float(term.detach()) for term in losses))

    def part(self) -> Part:
        """Copy what this stage computed: gradients of its parameters and, on the first, of the input."""
        whole = slice(None)
        found = self._engine.gradients(self._layers)
        pieces = {name: Piece((whole,) * array.ndim, array) for name, array in found.items()}
        if self._first:
            # The first step runs one more micro-batch, to learn the shapes.
            inputs = self._module.inputs[-len(self._extent.microbatches) :]
            dx = np.concatenate([rows_first(x.grad.numpy()) for x in inputs])
            pieces["dx"] = Piece((slice(0, self._extent.rows), whole, whole), dx)
        return Part(self.loss, pieces)


def _loss(y: Tensor, target: Tensor) -> Tensor:
    return (y * target[0]).sum()
