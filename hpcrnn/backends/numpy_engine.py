"""The NumPy engine: the cells on host arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hpcrnn.backends.base import Array, Extent, Outcome, rows_first, state_names
from hpcrnn.backends.numpy_blocks import Boundary, CotangentBlock, HeadBlock, NumpyBlock, RecurrentBlock, make_block
from hpcrnn.cells.products import ProductLibrary
from hpcrnn.model.network import Network
from hpcrnn.model.optimizers import clip, global_norm, make_optimizer
from hpcrnn.model.parameters import FlatBuffer
from hpcrnn.spec import TrainingSpec
from hpcrnn.workloads import Batch


class NumpyEngine:
    """Buffers and blocks of one rank.

    Parameters
    ----------
    network : Network
    extent : Extent
    training : TrainingSpec
    library : ProductLibrary
        What multiplies.
    """

    def __init__(self, network: Network, extent: Extent, training: TrainingSpec, library: ProductLibrary) -> None:
        self._network, self._extent, self._training = network, extent, training
        self._library = library
        shapes = [block.shapes for block in network.blocks]
        self._parameters = FlatBuffer(shapes, network.dtype)
        self._gradients = FlatBuffer(shapes, network.dtype)
        self._optimizer = make_optimizer(training, self._parameters.flat.size, network.dtype)
        features = 0 if network.blocks[0].kind == "embedding" else network.blocks[0].inputs
        self._input = Boundary.allocate(extent, features, network.dtype, gradient=network.gives_dx(0))
        self._tokens = [np.zeros((extent.steps, m.stop - m.start), np.int32) for m in extent.microbatches]

        self._blocks: list[NumpyBlock] = []
        before = self._input
        for index, block in enumerate(network.blocks):
            made = make_block(
                block,
                before,
                self._tokens,
                self._parameters.blocks[index],
                self._gradients.blocks[index],
                extent,
                network,
                library,
            )
            self._blocks.append(made)
            before = made.output
        self.loss = 0.0

    @property
    def kernel(self) -> str:
        return self._library.name

    def load_parameters(self, parameters: Mapping[str, Array]) -> None:
        for block, views in zip(self._network.blocks, self._parameters.blocks, strict=True):
            for name, view in views.items():
                view[...] = parameters[f"{block.name}.{name}"]
        self._mark_stale()

    def load_batch(self, batch: Batch) -> None:
        head = self._blocks[-1]
        for m, rows in enumerate(self._extent.microbatches):
            if batch.inputs.ndim == 2:
                np.copyto(self._tokens[m], batch.inputs[:, rows])
            else:
                np.copyto(self._input.value[m], batch.inputs[:, rows])
            weights = None if batch.weights is None else batch.weights[:, rows]
            if isinstance(head, HeadBlock | CotangentBlock):
                head.load_targets(m, batch.targets[:, rows], weights)

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None:
        for block in self._recurrent():
            names = state_names(block.name, block.cell.state_names)
            for m, rows in enumerate(self._extent.microbatches):
                for name, short in zip(names, block.cell.state_names, strict=True):
                    block.initial[m][short][...] = initial[name][rows]
                    block.cotangent[m][short][...] = cotangent[name][rows]

    def begin_step(self) -> None:
        self.loss = 0.0
        for block in self._blocks:
            block.begin_step()

    def forward(self, block: int, microbatch: int, chunk: int) -> None:
        self.loss += self._blocks[block].forward(microbatch, chunk)

    def backward(self, block: int, microbatch: int, chunk: int) -> None:
        self._blocks[block].backward(microbatch, chunk)

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None:
        self._blocks[block].weight_gradient(microbatch, chunk)

    def gradient_range(self, start: int, stop: int) -> Array:
        return self._gradients.range(start, stop)

    def update(self) -> float:
        norm = global_norm(self._gradients.flat)
        clip(self._gradients.flat, norm, self._training.clip)
        self._optimizer.update(self._parameters.flat, self._gradients.flat)
        self._mark_stale()
        return norm

    def outcome(self) -> Outcome:
        gradients: dict[str, Array] = {}
        by_row: dict[str, Array] = {}
        if self._extent.backward:
            for block, views in zip(self._network.blocks, self._gradients.blocks, strict=True):
                gradients |= {f"{block.name}.{name}": view.copy() for name, view in views.items()}
            if self._network.gives_dx(0):
                by_row["dx"] = np.concatenate([rows_first(g) for g in self._input.gradient])
        for recurrent in self._recurrent():
            for short in recurrent.cell.state_names:
                name = f"{recurrent.name}.{short}"
                by_row[f"state {name}"] = np.concatenate([tape.states[short][-1] for tape in recurrent.tapes])
                if self._extent.backward:
                    by_row[f"d {name}"] = np.concatenate([carry[short] for carry in recurrent.carry])
        return Outcome(self.loss, gradients, by_row)

    def _recurrent(self) -> list[RecurrentBlock]:
        return [block for block in self._blocks if isinstance(block, RecurrentBlock)]

    def _mark_stale(self) -> None:
        for block in self._recurrent():
            block.stale = True
