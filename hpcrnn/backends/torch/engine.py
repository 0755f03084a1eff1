"""A peer: the same network, weights and tasks through ``torch.nn``, to be measured beside ours.

Each block is a ``torch.nn`` module of its own and each task F one call of it; autograd computes the input
and the weight gradient together, so task B does both and W has nothing left to do.  Parameters live in a flat
NumPy buffer that the modules share, in PyTorch's layout (each matrix transposed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hpcrnn.backends.base import Array, Extent, HostEngine, LayerSolve, Part, Piece, nothing, rows_first, state_names
from hpcrnn.cells import GRU, Cell, Elman
from hpcrnn.model.network import Block, Network
from hpcrnn.model.optimizers import clip, make_optimizer, norm_square
from hpcrnn.model.parameters import FlatBuffer
from hpcrnn.schedules.graph import Value
from hpcrnn.spec import TrainingSpec
from hpcrnn.workloads import Batch

Tensor = Any  # torch carries no types we check
States = tuple[Tensor, ...]


class TorchEngine(HostEngine):
    """Buffers and modules of one rank.

    Parameters
    ----------
    network : Network
    extent : Extent
    training : TrainingSpec
    threads : int
        Threads PyTorch may use.
    """

    def __init__(self, network: Network, extent: Extent, training: TrainingSpec, threads: int) -> None:
        torch.set_num_threads(threads)
        self._network, self._extent, self._training = network, extent, training
        shapes = [
            {name: shape[::-1] if _is_transposed(block, name) else shape for name, shape in block.shapes.items()}
            for block in network.blocks
        ]
        self._parameters = FlatBuffer(shapes, network.dtype)
        self._gradients = FlatBuffer(shapes, network.dtype)
        self._optimizer = make_optimizer(training, self._parameters.flat.size, network.dtype)
        self._modules = [
            _make_module(block, views) for block, views in zip(network.blocks, self._parameters.blocks, strict=True)
        ]
        self._inputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._weights: list[Tensor | None] = []
        self._initial: Mapping[str, Array] = {}
        self._cotangent: Mapping[str, Array] = {}
        self._collected: set[int] = set()
        # What each task F leaves for B, and what passes between tasks: (block, microbatch, chunk) -> tensors.
        self._into: dict[tuple[int, int, int], Tensor] = {}
        self._out: dict[tuple[int, int, int], Tensor] = {}
        self._state_in: dict[tuple[int, int, int], States] = {}
        self._state_out: dict[tuple[int, int, int], States] = {}
        self.loss = 0.0
        self.progress = nothing
        self.exchanged_bytes = 0

    @property
    def kernel(self) -> str:
        modules = [m for m in self._modules if isinstance(m, torch.nn.RNNBase)]
        return f"torch {torch.__version__} nn.{type(modules[0]).__name__}"

    def module(self, block: int) -> Any:
        """The module of a block; its parameters are those of this engine."""
        return self._modules[block]

    def load_parameters(self, parameters: Mapping[str, Array]) -> None:
        for block, views in zip(self._network.blocks, self._parameters.blocks, strict=True):
            for name, view in views.items():
                value = parameters[f"{block.name}.{name}"]
                view[...] = value.T if _is_transposed(block, name) else value
        self._copy_recurrent_bias()

    def load_batch(self, batch: Batch) -> None:
        self._inputs, self._targets, self._weights = [], [], []
        for rows in self._extent.microbatches:
            self._inputs.append(_tensor(batch.inputs[:, rows]))
            self._targets.append(_tensor(batch.targets[:, rows]))
            self._weights.append(None if batch.weights is None else _tensor(batch.weights[:, rows]))

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None:
        self._initial, self._cotangent = initial, cotangent

    def begin_step(self) -> None:
        self.loss = 0.0
        self._collected.clear()
        self._into.clear()
        self._out.clear()
        for module in self._modules:
            if module is not None:
                module.zero_grad(set_to_none=True)

    def forward(self, block: int, microbatch: int, chunk: int) -> None:
        key = (block, microbatch, chunk)
        module, shape = self._modules[block], self._network.blocks[block]
        window = self._extent.chunks[chunk]
        with torch.set_grad_enabled(self._extent.backward):
            x = self._inputs[microbatch][window] if block == 0 else self._out[block - 1, microbatch, chunk].detach()
            if self._network.gives_dx(block) and self._extent.backward:
                x.requires_grad_(True)
            self._into[key] = x
            if shape.cell is not None:
                self._out[key] = self._forward_recurrent(key, shape, x)
            elif shape.kind in ("embedding", "linear"):
                self._out[key] = module(x)
            else:
                self._out[key] = self._loss(key, shape, x)
                self.loss += float(self._out[key].detach())

    def _forward_recurrent(self, key: tuple[int, int, int], block: Block, x: Tensor) -> Tensor:
        states = self._entering_states(key, block)
        self._state_in[key] = states
        module = self._modules[key[0]]
        if not states:
            y, out = module(x)
        else:
            y, out = module(x, states[0] if len(states) == 1 else states)
        self._state_out[key] = out if isinstance(out, tuple) else (out,)
        return y

    def _entering_states(self, key: tuple[int, int, int], block: Block) -> States:
        index, m, c = key
        cell = _cell_of(block)
        if c > 0:
            states = tuple(s.detach() for s in self._state_out[index, m, c - 1])
        elif self._initial:
            rows = self._extent.microbatches[m]
            names = state_names(block.name, cell.state_names)
            states = tuple(_tensor(self._initial[n][rows].astype(self._network.dtype))[None] for n in names)
        else:
            return ()
        return tuple(s.requires_grad_(self._extent.backward) for s in states)

    def _loss(self, key: tuple[int, int, int], block: Block, y: Tensor) -> Tensor:
        _, m, c = key
        window = self._extent.chunks[c]
        targets, weights = self._targets[m][window], self._weights[m]
        weights = None if weights is None else weights[window]
        if block.kind == "cotangent":
            return (y * targets).sum() * self._extent.scale
        scores = self._modules[key[0]](y)
        if self._network.loss == "cross_entropy":
            terms = torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), targets.flatten().long(), reduction="none"
            ).view(targets.shape)
        else:
            terms = ((scores - targets) ** 2).mean(dim=-1)
        return (terms if weights is None else terms * weights).sum() * self._extent.scale

    def backward(self, block: int, microbatch: int, chunk: int) -> None:
        key = (block, microbatch, chunk)
        shape = self._network.blocks[block]
        if shape.kind in ("head", "cotangent"):
            torch.autograd.backward(self._out[key])
            return
        tensors, gradients = [self._out[key]], [self._into[block + 1, microbatch, chunk].grad]
        if shape.cell is not None:
            leaving = self._leaving_gradients(key, shape)
            tensors += self._state_out[key][: len(leaving)]
            gradients += leaving
        torch.autograd.backward(tensors, gradients)

    def _leaving_gradients(self, key: tuple[int, int, int], block: Block) -> list[Tensor]:
        index, m, c = key
        if c + 1 < len(self._extent.chunks):
            return [s.grad for s in self._state_in[index, m, c + 1]]
        if not self._cotangent:
            return []
        rows = self._extent.microbatches[m]
        names = state_names(block.name, _cell_of(block).state_names)
        return [_tensor(self._cotangent[n][rows].astype(self._network.dtype))[None] for n in names]

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None:
        """Autograd has done it in task B."""

    def gradient_range(self, start: int, stop: int) -> Array:
        for block in range(start, stop):
            self._collect(block)
        return self._gradients.range(start, stop)

    def gradients(self, blocks: Sequence[int]) -> dict[str, Array]:
        """Copy the gradients of some blocks, in the canonical layout, named as in an outcome."""
        found: dict[str, Array] = {}
        for index in blocks:
            self._collect(index)
            block = self._network.blocks[index]
            for name, view in self._gradients.blocks[index].items():
                canonical = view.T if _is_transposed(block, name) else view
                found[f"gradient {block.name}.{name}"] = canonical.copy()
        return found

    def buffers(self, value: Value, *, incoming: bool) -> tuple[Array, ...]:
        raise NotImplementedError(f"{value}: this peer takes part in data parallelism only")

    def mover(self, value: Value, *, incoming: bool) -> None:
        """Buffers are the engine's own."""

    def carry_states(self) -> None:
        raise NotImplementedError("this peer does not carry states")

    def parameter_pieces(self) -> dict[str, Piece]:
        raise NotImplementedError("this peer is not trained to a target")

    def predictions(self) -> Array:
        raise NotImplementedError("this peer is not trained to a target")

    def state(self) -> dict[str, Array]:
        raise NotImplementedError("this peer keeps no checkpoints")

    def restore(self, state: Mapping[str, Array]) -> None:
        raise NotImplementedError(f"{len(state)} arrays: this peer keeps no checkpoints")

    def norm_square(self) -> float:
        return norm_square(self.gradient_range(0, len(self._modules)))

    def update(self, norm: float) -> None:
        gradient = self.gradient_range(0, len(self._modules))
        clip(gradient, norm, self._training.clip)
        self._optimizer.update(self._parameters.flat, gradient)
        self._copy_recurrent_bias()

    def part(self) -> Part:
        arrays: dict[str, Array] = {}
        if self._extent.backward:
            arrays |= self.gradients(range(len(self._modules)))
            if self._network.gives_dx(0):
                arrays["dx"] = self._over_chunks(lambda m, c: self._into[0, m, c].grad)
        parts = range(len(self._extent.microbatches))
        last = len(self._extent.chunks) - 1
        for index, block in enumerate(self._network.blocks):
            if block.cell is None:
                continue
            for which, name in enumerate(state_names(block.name, block.cell.state_names)):
                final = [self._state_out[index, m, last][which][0].detach().numpy() for m in parts]
                arrays[f"state {name}"] = np.concatenate(final)
                if self._extent.backward and self._state_in[index, 0, 0]:
                    first = [self._state_in[index, m, 0][which].grad[0].numpy() for m in parts]
                    arrays[f"d {name}"] = np.concatenate(first)
        rows = slice(0, self._extent.rows)
        pieces = {
            name: Piece((slice(None),) * array.ndim if name.startswith("gradient ") else (rows,), array)
            for name, array in arrays.items()
        }
        return Part(self.loss, pieces)

    def solves(self) -> tuple[LayerSolve, ...]:
        return ()

    def exponents(self) -> dict[str, float]:
        return {}

    @property
    def memory_bytes(self) -> int:
        """Parameters, gradients and the optimizer; what PyTorch allocates by itself is not known here."""
        return 2 * self._parameters.flat.nbytes + self._optimizer.memory_bytes

    def _over_chunks(self, part: Any) -> Array:
        whole = [
            np.concatenate([part(m, c).numpy() for c in range(len(self._extent.chunks))])
            for m in range(len(self._extent.microbatches))
        ]
        return np.concatenate([rows_first(a) for a in whole])

    def _collect(self, block: int) -> None:
        """Copy a block's gradients from autograd's tensors to the flat buffer, once a step."""
        if block in self._collected:
            return
        self._collected.add(block)
        module = self._modules[block]
        for name, view in self._gradients.blocks[block].items():
            gradient = _named_tensor(module, name).grad
            view[...] = gradient[-view.size :].numpy() if name == "bR" else gradient.numpy()

    def _copy_recurrent_bias(self) -> None:
        """Copy the one trained part of ``bias_hh``: the GRU's candidate; the rest stays zero."""
        for module, views in zip(self._modules, self._parameters.blocks, strict=True):
            if "bR" in views:
                module.bias_hh_l0.data[-views["bR"].size :] = torch.from_numpy(views["bR"])


def _is_transposed(block: Block, name: str) -> bool:
    return len(block.shapes[name]) == 2 and block.kind != "embedding"


def _cell_of(block: Block) -> Cell:
    if block.cell is None:
        msg = f"{block.name} is not recurrent"
        raise ValueError(msg)
    return block.cell


def _tensor(a: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(a))


def _make_module(block: Block, views: Mapping[str, Array]) -> Any:
    """Build a module whose parameters are the given arrays."""
    if block.kind == "cotangent":
        return None
    if block.kind == "embedding":
        module = torch.nn.Embedding(block.inputs, block.outputs)
    elif block.cell is None:
        module = torch.nn.Linear(block.inputs, block.outputs)
    else:
        module = _recurrent_module(block.cell, block.inputs, block.outputs)
    module = module.to(getattr(torch, str(next(iter(views.values())).dtype)))
    for name, view in views.items():
        if name != "bR":
            _named_tensor(module, name).data = torch.from_numpy(view)
    return module


def _recurrent_module(cell: Cell, D: int, H: int) -> Any:
    if isinstance(cell, Elman):
        module = torch.nn.RNN(D, H, nonlinearity=cell.activation)
    elif isinstance(cell, GRU):
        module = torch.nn.GRU(D, H)
    else:
        module = torch.nn.LSTM(D, H)
    # PyTorch has two biases where one does; the second stays zero, but for the GRU's candidate gate.
    torch.nn.init.zeros_(module.bias_hh_l0)
    module.bias_hh_l0.requires_grad_(isinstance(cell, GRU))
    return module


_NAMES = {
    torch.nn.Embedding: {"E": "weight"},
    torch.nn.Linear: {"W": "weight", "b": "bias"},
}
_RECURRENT_NAMES = {"W": "weight_ih_l0", "R": "weight_hh_l0", "b": "bias_ih_l0", "bR": "bias_hh_l0"}


def _named_tensor(module: Any, name: str) -> Tensor:
    return getattr(module, _NAMES.get(type(module), _RECURRENT_NAMES)[name])
