"""The NumPy engine: the cells on host arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from hpcrnn.backends.arena import Memory
from hpcrnn.backends.base import (
    Array,
    Extent,
    HostEngine,
    LayerSolve,
    Part,
    Piece,
    nothing,
    rows_first,
    state_names,
    with_prefix,
    without_prefix,
)
from hpcrnn.backends.boundaries import Boundary, input_boundary, microbatch_of, received_boundary
from hpcrnn.backends.filling import Filling
from hpcrnn.backends.numpy.blocks import (
    Context,
    CotangentBlock,
    HeadBlock,
    NumpyBlock,
    RecurrentBlock,
    make_block,
)
from hpcrnn.backends.numpy.segments import SegmentedBlock
from hpcrnn.cells.exchange import ALONE, Exchange
from hpcrnn.cells.products import ProductLibrary
from hpcrnn.methods.line import ALONE as ONLY_WINDOW
from hpcrnn.methods.line import Line
from hpcrnn.model.network import Block, Network
from hpcrnn.model.optimizers import clip, make_optimizer, norm_square
from hpcrnn.model.parameters import FlatBuffer
from hpcrnn.model.sharding import is_sharded, positions, shard_shapes, take, take_units
from hpcrnn.schedules.graph import Value
from hpcrnn.spec import TrainingSpec
from hpcrnn.workloads import Batch


class NumpyEngine(HostEngine):
    """Buffers and blocks of one rank.

    Parameters
    ----------
    network : Network
    extent : Extent
        What of it this rank works on.
    training : TrainingSpec
    library : ProductLibrary
        What multiplies.
    exchange : Exchange
        With the other shards of the hidden units.
    line : Line
        With the other windows of time, for methods that run them at once.
    """

    def __init__(
        self,
        network: Network,
        extent: Extent,
        training: TrainingSpec,
        library: ProductLibrary,
        exchange: Exchange = ALONE,
        line: Line = ONLY_WINDOW,
    ) -> None:
        self._network, self._extent, self._training = network, extent, training
        self._library, self._exchange, self._line = library, exchange, line
        self.progress = nothing
        own = range(len(network.blocks)) if extent.blocks is None else extent.blocks
        shapes = [shard_shapes(network.blocks[index], extent.shard) for index in own]
        self._position = {index: at for at, index in enumerate(own)}
        self._parameters = FlatBuffer(shapes, network.dtype)
        self._gradients = FlatBuffer(shapes, network.dtype)
        self._optimizer = make_optimizer(training, self._parameters.flat.size, network.dtype)
        self._tokens: list[Array] = []
        self._features: list[Array] = []
        self._dx: list[Array] = []
        self._filling = Filling(extent)
        if own[0] == 0:
            self._make_inputs()

        self._blocks: dict[int, NumpyBlock] = {}
        self._received: dict[int, Boundary] = {}
        for index in own:
            context = Context(
                index,
                network,
                self._before(index),
                self._parameters.blocks[self._position[index]],
                self._gradients.blocks[self._position[index]],
                extent,
                library,
                exchange,
                line,
                self._filling,
                self._poll,
            )
            make = SegmentedBlock if extent.is_folded and network.blocks[index].is_recurrent else make_block
            self._blocks[index] = make(context, self._tokens)
        self.loss = 0.0

    def _poll(self) -> None:
        """Call what the executor has set, once it has."""
        self.progress()

    def _make_inputs(self) -> None:
        """Arrays of the network's own input, whole: they are there before the step begins."""
        first = self._network.blocks[0]
        for steps, rows in map(self._extent.window_shape, range(len(self._extent.microbatches))):
            if first.kind == "embedding":
                self._tokens.append(np.zeros((steps, rows), np.int32))
            else:
                self._features.append(np.zeros((steps, rows, first.inputs), self._network.dtype))
                if self._network.gives_dx(0) and self._extent.backward:
                    self._dx.append(np.zeros_like(self._features[-1]))

    def _before(self, index: int) -> Boundary:
        """Where a block's input comes from."""
        if index - 1 in self._blocks:
            return self._blocks[index - 1].output
        if index > 0:
            self._received[index - 1] = received_boundary(
                self._network, index - 1, self._extent, Memory(self._network.dtype)
            )
            return self._received[index - 1]
        return input_boundary(self._extent, self._features, self._dx)

    @property
    def kernel(self) -> str:
        return self._library.name

    def load_parameters(self, parameters: Mapping[str, Array]) -> None:
        for index, at in self._position.items():
            block = self._network.blocks[index]
            for name, view in self._parameters.blocks[at].items():
                view[...] = take(block, name, parameters[f"{block.name}.{name}"], self._extent.shard)
        self._mark_stale()

    def parameter_pieces(self) -> dict[str, Piece]:
        return {
            f"{block.name}.{name}": Piece(positions(block, name, self._extent.shard), view.copy())
            for block, views in self._own(self._parameters)
            for name, view in views.items()
        }

    def predictions(self) -> Array:
        head = self._blocks[len(self._network.blocks) - 1]
        if not isinstance(head, HeadBlock) or not head.predictions:
            raise TypeError("a network without a head, or a mode that trains it, predicts nothing")
        return np.concatenate(head.predictions, axis=1)

    def state(self) -> dict[str, Array]:
        carried = {
            f"{m}.{name}": state.copy()
            for block in self._recurrent()
            for m, states in enumerate(block.initial)
            for name, state in zip(state_names(block.name, block.cell.state_names), states.values(), strict=True)
        }
        optimizer = with_prefix("optimizer", self._optimizer.state())
        return {"parameters": self._parameters.flat.copy()} | optimizer | with_prefix("carried", carried)

    def restore(self, state: Mapping[str, Array]) -> None:
        self._parameters.flat[...] = state["parameters"]
        self._optimizer.restore(without_prefix("optimizer", state))
        for block in self._recurrent():
            for m, states in enumerate(block.initial):
                for name, array in zip(state_names(block.name, block.cell.state_names), states.values(), strict=True):
                    array[...] = state[f"carried.{m}.{name}"]
        self._mark_stale()

    def load_batch(self, batch: Batch) -> None:
        self._filling.load(batch)
        head = self._blocks.get(len(self._network.blocks) - 1)
        for m in range(len(self._extent.microbatches)):
            part = microbatch_of(batch, self._extent, m, self._network.dtype)
            if self._tokens:
                np.copyto(self._tokens[m], part.inputs)
            elif self._features:
                np.copyto(self._features[m], part.inputs)
            if isinstance(head, HeadBlock | CotangentBlock):
                head.load_targets(m, part.targets, part.weights)

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None:
        shard = self._extent.shard
        for block in self._recurrent():
            names = state_names(block.name, block.cell.state_names)
            for m, rows in enumerate(self._extent.microbatches):
                for name, short in zip(names, block.cell.state_names, strict=True):
                    block.initial[m][short][...] = take_units(initial[name][rows], shard)
                    block.cotangent[m][short][...] = take_units(cotangent[name][rows], shard)

    def begin_step(self) -> None:
        self.loss = 0.0
        for block in self._blocks.values():
            block.begin_step()

    def forward(self, block: int, microbatch: int, chunk: int) -> None:
        if self._filling.steps(microbatch, chunk):
            self.loss += self._blocks[block].forward(microbatch, chunk)

    def backward(self, block: int, microbatch: int, chunk: int) -> None:
        self._blocks[block].backward(microbatch, chunk)

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None:
        self._blocks[block].weight_gradient(microbatch, chunk)

    def buffers(self, value: Value, *, incoming: bool) -> tuple[Array, ...]:
        unit = value.microbatch, value.chunk
        if value.kind in ("y", "dy"):
            received = self._received.get(value.block)
            boundary = self._blocks[value.block].output if received is None else received
            return ((boundary.value if value.kind == "y" else boundary.gradient)[unit],)
        block = self._blocks[value.block]
        if not isinstance(block, RecurrentBlock):
            raise TypeError(f"block {block.name} has no state")
        if value.kind == "halo":
            states = block.initial if incoming else block.final
        else:
            states = block.cotangent if incoming else block.carry
        return tuple(states[value.microbatch].values())

    def mover(self, value: Value, *, incoming: bool) -> None:
        """Buffers are the engine's own."""

    def carry_states(self) -> None:
        for block in self._recurrent():
            for initial, final in zip(block.initial, block.final, strict=True):
                for name, state in final.items():
                    np.copyto(initial[name], state)

    def gradient_range(self, start: int, stop: int) -> Array:
        return self._gradients.range(self._position[start], self._position[stop - 1] + 1)

    def parameter_range(self, start: int, stop: int) -> Array:
        return self._parameters.range(self._position[start], self._position[stop - 1] + 1)

    def parameters_changed(self) -> None:
        self._mark_stale()

    def norm_square(self) -> float:
        if self._extent.shard.index == 0:
            return norm_square(self._gradients.flat)
        views = zip(self._position, self._gradients.blocks, strict=True)
        return sum(
            norm_square(view.ravel())
            for index, block in views
            for name, view in block.items()
            if is_sharded(self._network.blocks[index], name)
        )

    def update(self, norm: float) -> None:
        clip(self._gradients.flat, norm, self._training.clip)
        self._optimizer.update(self._parameters.flat, self._gradients.flat)
        self._mark_stale()

    def part(self) -> Part:
        return Part(self.loss, self._gradient_pieces() | self._state_pieces())

    def _gradient_pieces(self) -> dict[str, Piece]:
        pieces: dict[str, Piece] = {}
        if not self._extent.backward:
            return pieces
        for block, views in self._own(self._gradients):
            for name, view in views.items():
                where = positions(block, name, self._extent.shard)
                pieces[f"gradient {block.name}.{name}"] = Piece(where, view.copy())
        if self._dx:
            dx = [self._extent.folding(m).unfold(d).copy() for m, d in enumerate(self._dx)]
            for array in dx:
                self._exchange.sum(array)
            window = self._extent.window
            pieces["dx"] = Piece((slice(0, self._extent.rows), window), np.concatenate([rows_first(d) for d in dx]))
        return pieces

    def _state_pieces(self) -> dict[str, Piece]:
        """Final states where time ends, gradients of the initial ones where it begins."""
        pieces: dict[str, Piece] = {}
        own, last = self._extent.own_chunks, len(self._extent.chunks) - 1
        for block in self._recurrent():
            where = (slice(0, self._extent.rows), self._extent.shard.units(self._network.hidden))
            for short in block.cell.state_names:
                if own[-1] == last:
                    final = np.concatenate([states[short] for states in block.final])
                    pieces[f"state {block.name}.{short}"] = Piece(where, final)
                if own[0] == 0 and self._extent.backward:
                    carry = np.concatenate([states[short] for states in block.carry])
                    pieces[f"d {block.name}.{short}"] = Piece(where, carry)
        return pieces

    def solves(self) -> tuple[LayerSolve, ...]:
        return tuple(solve for block in self._blocks.values() for solve in block.solves())

    def exponents(self) -> dict[str, float]:
        return {b.name: b.exponent() for b in self._blocks.values() if isinstance(b, SegmentedBlock)}

    @property
    def exchanged_bytes(self) -> int:
        return self._exchange.sent_bytes + self._line.sent_bytes

    @property
    def memory_bytes(self) -> int:
        flat = 2 * self._parameters.flat.nbytes + self._optimizer.memory_bytes
        inputs = sum(array.nbytes for array in self._tokens + self._features + self._dx)
        received = sum(boundary.memory_bytes for boundary in self._received.values())
        return flat + inputs + received + sum(block.memory_bytes for block in self._blocks.values())

    def _own(self, buffer: FlatBuffer) -> Iterator[tuple[Block, dict[str, Array]]]:
        """Walk over the engine's own blocks, each with its views into a flat buffer."""
        for index, at in self._position.items():
            yield self._network.blocks[index], buffer.blocks[at]

    def _recurrent(self) -> list[RecurrentBlock]:
        return [block for block in self._blocks.values() if isinstance(block, RecurrentBlock)]

    def _mark_stale(self) -> None:
        for block in self._recurrent():
            block.stale = True
