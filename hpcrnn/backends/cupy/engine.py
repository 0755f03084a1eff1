"""The CuPy engine: the same tasks as the NumPy engine's, on one GPU.

Parameters, their gradients and the optimizer's moments are float32 on the device, whatever the precision of the
rest. Every task ends with the stream drained, so that the executor's clock reads what the task took.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cupy as cp
import numpy as np

from hpcrnn.backends.base import (
    Array,
    Extent,
    LayerSolve,
    Part,
    Piece,
    RankGroup,
    Summer,
    nothing,
    rows_first,
    state_names,
    with_prefix,
    without_prefix,
)
from hpcrnn.backends.boundaries import Boundary, input_boundary, microbatch_of, received_boundary
from hpcrnn.backends.cupy.arithmetic import Arithmetic, as_rows
from hpcrnn.backends.cupy.blocks import AffineBlock, CotangentBlock, EmbeddingBlock, GpuBlock, GpuContext, HeadBlock
from hpcrnn.backends.cupy.device import Device, DeviceArray, open_device
from hpcrnn.backends.cupy.exchange import GpuExchange
from hpcrnn.backends.cupy.memory import device_bytes
from hpcrnn.backends.cupy.nccl import NcclSummer
from hpcrnn.backends.cupy.optimizers import clip, make_optimizer, norm_square
from hpcrnn.backends.cupy.recurrent import RecurrentBlock
from hpcrnn.backends.cupy.segments import SegmentedBlock
from hpcrnn.backends.cupy.staging import Staging, pinned_zeros
from hpcrnn.cells.exchange import ALONE, Exchange
from hpcrnn.errors import LaunchError
from hpcrnn.kernels.plan import PERSISTENT_CAPABILITY
from hpcrnn.methods.line import ALONE as ONLY_WINDOW
from hpcrnn.methods.line import Line
from hpcrnn.model.network import Network
from hpcrnn.model.parameters import FlatBuffer
from hpcrnn.model.sharding import is_sharded, positions, shard_shapes, take, take_units
from hpcrnn.schedules.graph import Value
from hpcrnn.spec import HALVED, MachineSpec, TrainingSpec
from hpcrnn.workloads import Batch


class CupyEngine:
    """Buffers and blocks of one rank, on its GPU.

    Parameters
    ----------
    network : Network
    extent : Extent
        What of it this rank works on.
    training : TrainingSpec
    machine : MachineSpec
        For precision, kernel and the sharing of GPUs.
    exchange : Exchange
        With the other shards of the hidden units.
    line : Line
        With the other windows of time, for methods that run them at once.
    direct : bool
        MPI takes arrays on the GPU as they are.
    local_rank : int, optional
        Number of this rank among those of its host; by default what the launcher tells.

    Raises
    ------
    LaunchError
        There is no GPU for this rank, or too little memory on it.
    """

    def __init__(
        self,
        network: Network,
        extent: Extent,
        training: TrainingSpec,
        machine: MachineSpec,
        exchange: Exchange = ALONE,
        line: Line = ONLY_WINDOW,
        *,
        direct: bool = False,
        local_rank: int | None = None,
    ) -> None:
        self._network, self._extent, self._training, self._line = network, extent, training, line
        self._kernel, self._by_nccl = machine.kernel, machine.gradient_sum == "nccl"
        self._device: Device = open_device(shared=machine.allow_shared_gpu, local_rank=local_rank)
        self._check_capability(machine)
        self._exchange = GpuExchange(exchange, self._device)
        halved = machine.precision in HALVED
        self._gradient_scale = 2.0 ** round(-math.log2(extent.scale)) if halved else 1.0
        own = range(len(network.blocks)) if extent.blocks is None else extent.blocks
        self._position = {index: at for at, index in enumerate(own)}
        self._staging = Staging(self._device, direct=direct)
        self._staged: list[slice] = []
        self.loss = 0.0
        self.progress = nothing
        self.device_seconds: dict[str, float] = {}
        gc.collect()  # engines hold cycles: those that are done with would hold their memory too
        pool = cp.get_default_memory_pool()
        before = pool.used_bytes()
        self._needed = self._check_memory(2 if halved else 4)
        with self._device.stream, self._memory_named():
            self._arithmetic = Arithmetic(machine.precision)
            self._allocate(machine)
        self.memory_bytes = int(pool.used_bytes() - before)

    def _check_memory(self, itemsize: int) -> str:
        """Refuse what does not fit, before any of it is allocated; return what is needed and what there is."""
        needed, (free, total) = device_bytes(self._network, self._extent, itemsize), self._device.memory_bytes()
        needs = (
            f"about {needed / 2**30:.2g} GiB of {self._device.name}'s memory are needed, {free / 2**30:.2g} GiB of "
            f"{total / 2**30:.2g} are free: a smaller problem.batch, problem.seq or model.hidden"
        )
        if needed > free:
            raise LaunchError(f"machine.backend = cupy: {needs}")
        return needs

    @contextmanager
    def _memory_named(self) -> Iterator[None]:
        """Say what was needed where memory ends in the midst of something."""
        try:
            yield
        except cp.cuda.memory.OutOfMemoryError as error:
            raise LaunchError(f"machine.backend = cupy: {error}; {self._needed}") from None

    def _check_capability(self, machine: MachineSpec) -> None:
        major, minor = self._device.limits.capability
        self.remarks: tuple[str, ...] = ()
        if (major, minor) >= PERSISTENT_CAPABILITY:
            return
        found = f"{self._device.name} has compute capability {major}.{minor}"
        if machine.precision in ("bfloat16", "tf32"):
            raise LaunchError(
                f"machine.precision = {machine.precision}: {found}; allowed below 8.0 are float32 and float16"
            )
        self.remarks = (f"{found}: persistent kernels begin at 8.0, stepwise ones run",)

    def _allocate(self, machine: MachineSpec) -> None:
        network, extent = self._network, self._extent
        shapes = [shard_shapes(network.blocks[index], extent.shard) for index in self._position]
        # The layout of the flat buffers, and where gradients meet MPI.
        self._host = FlatBuffer(shapes, network.dtype, pinned_zeros)
        self._parameters, self._parameter_views = _on_device(self._host, shapes)
        self._gradients, self._gradient_views = _on_device(self._host, shapes)
        self._optimizer = make_optimizer(self._training, self._parameters.size, self._arithmetic)
        self._tokens: list[DeviceArray] = []
        self._features: list[DeviceArray] = []
        self._dx: list[DeviceArray] = []
        if 0 in self._position:
            self._make_inputs()
        self._blocks: dict[int, GpuBlock] = {}
        self._received: dict[int, Boundary] = {}
        for index, at in self._position.items():
            context = GpuContext(
                index,
                network,
                self._before(index),
                self._parameter_views[at],
                self._gradient_views[at],
                extent,
                self._arithmetic,
                self._device,
                machine.kernel,
                self._gradient_scale,
                self._exchange,
                self._line,
                self._poll,
            )
            self._blocks[index] = _make_block(context, self._tokens)
        self._device.synchronize()

    def _poll(self) -> None:
        """Call what the executor has set, once it has."""
        self.progress()

    def _make_inputs(self) -> None:
        """Arrays of the network's own input, whole: they are there before the step begins."""
        first = self._network.blocks[0]
        for steps, rows in map(self._extent.window_shape, range(len(self._extent.microbatches))):
            if first.kind == "embedding":
                self._tokens.append(cp.zeros((steps, rows), np.int32))
                continue
            self._features.append(self._arithmetic.zeros(steps, rows, first.inputs))
            if self._network.gives_dx(0) and self._extent.backward:
                self._dx.append(cp.zeros_like(self._features[-1]))

    def _before(self, index: int) -> Boundary:
        """Where a block's input comes from."""
        if index - 1 in self._blocks:
            return self._blocks[index - 1].output
        if index > 0:
            memory = self._arithmetic.memory
            self._received[index - 1] = received_boundary(self._network, index - 1, self._extent, memory)
            return self._received[index - 1]
        return input_boundary(self._extent, self._features, self._dx)

    @property
    def kernel(self) -> str:
        """The precision, and the tier where one was asked for; which was taken is among the details."""
        asked = () if self._kernel == "auto" else (self._kernel,)
        return " ".join(["cupy", self._arithmetic.precision, *asked])

    @property
    def kernel_details(self) -> str:
        recurrent = self._recurrent()
        return "; ".join([self._device.name, *(recurrent[0].describe() if recurrent else [])])

    def load_parameters(self, parameters: Mapping[str, Array]) -> None:
        for index, at in self._position.items():
            block = self._network.blocks[index]
            for name, view in self._host.blocks[at].items():
                view[...] = take(block, name, parameters[f"{block.name}.{name}"], self._extent.shard)
        with self._device.stream:
            self._parameters.set(self._host.flat)
            self._mark_stale()
            self._device.synchronize()

    def parameter_pieces(self) -> dict[str, Piece]:
        flat = self._flat_parameters()
        np.copyto(self._host.flat, flat)
        return {
            f"{block.name}.{name}": Piece(positions(block, name, self._extent.shard), view.copy())
            for index, at in self._position.items()
            for block in (self._network.blocks[index],)
            for name, view in self._host.blocks[at].items()
        }

    def _flat_parameters(self) -> Array:
        with self._device.stream:
            return np.asarray(cp.asnumpy(self._parameters))

    def predictions(self) -> Array:
        raise NotImplementedError("predictions stay on the GPU")

    def state(self) -> dict[str, Array]:
        with self._device.stream:
            carried = {
                f"{block.name}.{m}": cp.asnumpy(stack)
                for block in self._recurrent()
                for m, stack in enumerate(block.stacks["initial"])
            }
            optimizer = with_prefix("optimizer", self._optimizer.state())
        return {"parameters": self._flat_parameters()} | optimizer | with_prefix("carried", carried)

    def restore(self, state: Mapping[str, Array]) -> None:
        with self._device.stream:
            self._parameters.set(np.ascontiguousarray(state["parameters"]))
            self._optimizer.restore(without_prefix("optimizer", state))
            for block in self._recurrent():
                for m, stack in enumerate(block.stacks["initial"]):
                    stack.set(np.ascontiguousarray(state[f"carried.{block.name}.{m}"]))
            self._mark_stale()
            self._device.synchronize()

    def load_batch(self, batch: Batch) -> None:
        head = self._blocks.get(len(self._network.blocks) - 1)
        with self._device.stream:
            for m in range(len(self._extent.microbatches)):
                part = microbatch_of(batch, self._extent, m, self._network.dtype)
                if self._tokens:
                    self._tokens[m].set(np.ascontiguousarray(part.inputs, np.int32))
                elif self._features:
                    values = np.ascontiguousarray(part.inputs, np.float32)
                    self._arithmetic.round(cp.asarray(values), self._features[m])
                if isinstance(head, HeadBlock | CotangentBlock):
                    head.load_targets(m, part.targets, part.weights)
            self._device.synchronize()

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None:
        shard = self._extent.shard
        with self._device.stream:
            for block in self._recurrent():
                names = state_names(block.name, block.cell.state_names)
                for m, rows in enumerate(self._extent.microbatches):
                    starts, ends = block.states("initial", m), block.states("cotangent", m)
                    for name, short in zip(names, block.cell.state_names, strict=True):
                        _set(starts[short], take_units(initial[name][rows], shard))
                        _set(ends[short], take_units(cotangent[name][rows], shard) * self._gradient_scale)
            self._device.synchronize()

    def begin_step(self) -> None:
        self.loss = 0.0
        self.device_seconds.clear()
        self._staged.clear()
        for block in self._blocks.values():
            block.begin_step()

    def forward(self, block: int, microbatch: int, chunk: int) -> None:
        with self._timed("forward", block, microbatch, chunk):
            self._blocks[block].refresh()
            self.loss += self._blocks[block].forward(microbatch, chunk)

    def backward(self, block: int, microbatch: int, chunk: int) -> None:
        with self._timed("backward", block, microbatch, chunk):
            self._blocks[block].backward(microbatch, chunk)

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None:
        with self._timed("weight_gradient", block, microbatch, chunk):
            self._blocks[block].weight_gradient(microbatch, chunk)

    @contextmanager
    def _timed(self, phase: str, *place: int) -> Iterator[None]:
        """Work on the device, of a phase of the step."""
        what = f"{phase} {','.join(map(str, place))}".rstrip()
        with self._memory_named(), self._device.timed(what) as elapsed:
            yield
        self.device_seconds[phase] = self.device_seconds.get(phase, 0.0) + elapsed()

    def buffers(self, value: Value, *, incoming: bool) -> tuple[Array, ...]:
        return (self._staging.array(self._on_device(value, incoming=incoming)),)

    def mover(self, value: Value, *, incoming: bool) -> Callable[[], None] | None:
        return self._staging.mover(self._on_device(value, incoming=incoming), incoming=incoming)

    def _on_device(self, value: Value, *, incoming: bool) -> DeviceArray:
        """The array of a value that crosses ranks."""
        if value.kind in ("y", "dy"):
            received = self._received.get(value.block)
            boundary = self._blocks[value.block].output if received is None else received
            return (boundary.value if value.kind == "y" else boundary.gradient)[value.microbatch, value.chunk]
        block = self._blocks[value.block]
        if not isinstance(block, RecurrentBlock):
            raise TypeError(f"block {block.name} has no state")
        roles = ("initial", "final") if value.kind == "halo" else ("cotangent", "carry")
        return block.stacks[roles[0 if incoming else 1]][value.microbatch]

    def carry_states(self) -> None:
        with self._device.stream:
            for block in self._recurrent():
                for initial, final in zip(block.stacks["initial"], block.stacks["final"], strict=True):
                    initial[...] = final
            self._device.synchronize()

    def gradient_range(self, start: int, stop: int) -> Array:
        """As the protocol says; what MPI sums on the host returns to the GPU before it is used.

        Whatever the transport, MPI is given sums on the host: its nonblocking ones are made by the CPU, and some
        libraries that take pointers to a GPU everywhere else end there (github.com/open-mpi/ompi/issues/9845).
        """
        host = self._host.range(self._position[start], self._position[stop - 1] + 1)
        begin = (host.ctypes.data - self._host.flat.ctypes.data) // host.itemsize
        where = slice(begin, begin + host.size)
        if self._by_nccl:
            return self._gradients[where]  # type: ignore[no-any-return]
        self._gradients[where].get(out=host, stream=self._device.copies)
        self._device.copies.synchronize()
        self._staged.append(where)
        return host

    def summer(self, group: RankGroup) -> Summer | None:
        return NcclSummer(group, self._device) if self._by_nccl else None

    def norm_square(self) -> float:
        with self._device.stream:
            self._take_back()
            if self._extent.shard.index == 0:
                return norm_square(self._gradients)
            return sum(
                norm_square(view)
                for index, at in self._position.items()
                for name, view in self._gradient_views[at].items()
                if is_sharded(self._network.blocks[index], name)
            )

    def update(self, norm: float) -> None:
        with self._timed("update"):
            self._take_back()
            clip(self._gradients, norm, self._training.clip)
            self._optimizer.update(self._parameters, self._gradients)
            self._mark_stale()

    def part(self) -> Part:
        with self._device.stream:
            self._take_back()
            return Part(self.loss, self._gradient_pieces() | self._state_pieces())

    def _gradient_pieces(self) -> dict[str, Piece]:
        pieces: dict[str, Piece] = {}
        if not self._extent.backward:
            return pieces
        for index, at in self._position.items():
            block = self._network.blocks[index]
            for name, view in self._gradient_views[at].items():
                where = positions(block, name, self._extent.shard)
                pieces[f"gradient {block.name}.{name}"] = Piece(where, cp.asnumpy(view))
        if self._dx:
            wide = [self._arithmetic.widen(g) for g in self._dx]
            for array in wide:
                self._exchange.sum(as_rows(array))
            parts = [cp.asnumpy(array) / np.float32(self._gradient_scale) for array in wide]
            dx = [rows_first(self._extent.folding(m).unfold(part)) for m, part in enumerate(parts)]
            pieces["dx"] = Piece((slice(0, self._extent.rows), self._extent.window), np.concatenate(dx))
        return pieces

    def _state_pieces(self) -> dict[str, Piece]:
        """Final states where time ends, gradients of the initial ones where it begins."""
        pieces: dict[str, Piece] = {}
        own, last = self._extent.own_chunks, len(self._extent.chunks) - 1
        where = (slice(0, self._extent.rows), self._extent.shard.units(self._network.hidden))
        for block in self._recurrent():
            for index, short in enumerate(block.cell.state_names):
                name = f"{block.name}.{short}"
                if own[-1] == last:
                    final = [cp.asnumpy(stack[index]) for stack in block.stacks["final"]]
                    pieces[f"state {name}"] = Piece(where, np.concatenate(final))
                if own[0] == 0 and self._extent.backward:
                    carry = [cp.asnumpy(stack[index]) for stack in block.stacks["carry"]]
                    pieces[f"d {name}"] = Piece(where, np.concatenate(carry) / np.float32(self._gradient_scale))
        return pieces

    def solves(self) -> tuple[LayerSolve, ...]:
        return tuple(solve for block in self._blocks.values() for solve in block.solves())

    def exponents(self) -> dict[str, float]:
        if not self._extent.backward:  # there are no loops back in time
            return {}
        with self._device.stream:
            return {b.name: b.exponent() for b in self._blocks.values() if isinstance(b, SegmentedBlock)}

    @property
    def exchanged_bytes(self) -> int:
        return self._exchange.sent_bytes + self._line.sent_bytes

    @property
    def device_peak_bytes(self) -> int:
        """What this process's memory pool has taken from the GPU, which it never gives back."""
        return int(cp.get_default_memory_pool().total_bytes())

    def _take_back(self) -> None:
        """Copy what was staged for MPI to the GPU again."""
        for where in self._staged:
            self._gradients[where].set(self._host.flat[where])
        self._device.synchronize()
        self._staged.clear()

    def _recurrent(self) -> list[RecurrentBlock]:
        return [block for block in self._blocks.values() if isinstance(block, RecurrentBlock)]

    def _mark_stale(self) -> None:
        for block in self._blocks.values():
            block.stale = True


def _make_block(context: GpuContext, tokens: list[DeviceArray]) -> GpuBlock:
    """Build a block's buffers behind those of the block before it."""
    block = context.block
    if block.cell is not None:
        make = SegmentedBlock if context.extent.is_folded else RecurrentBlock
        return make(context, block.cell)
    if block.kind == "embedding":
        return EmbeddingBlock(context, tokens)
    if block.kind == "linear":
        return AffineBlock(context)
    if block.kind == "cotangent":
        return CotangentBlock(context)
    return HeadBlock(context, context.network.loss)


def _on_device(
    host: FlatBuffer, shapes: list[dict[str, tuple[int, ...]]]
) -> tuple[DeviceArray, list[dict[str, DeviceArray]]]:
    """Return zeros on the device in the layout of a flat buffer, and their views."""
    flat = cp.zeros(host.flat.size, np.float32)
    blocks: list[dict[str, Any]] = []
    position = 0
    for block in shapes:
        views: dict[str, Any] = {}
        for name, shape in block.items():
            count = math.prod(shape)
            views[name] = flat[position : position + count].reshape(shape)
            position += count
        blocks.append(views)
    return flat, blocks


def _set(array: DeviceArray, values: Array) -> None:
    array.set(np.ascontiguousarray(values, np.float32))
