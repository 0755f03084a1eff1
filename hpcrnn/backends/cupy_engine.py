"""The CuPy engine: the same tasks as the NumPy engine's, on one GPU.

Parameters, their gradients and the optimizer's moments are float32 on the device, whatever the precision of the
rest. Every task ends with the stream drained, so that the executor's clock reads what the task took.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Array, Extent, LayerSolve, Part, Piece, nothing, rows_first, state_names
from hpcrnn.backends.cupy_arithmetic import Arithmetic
from hpcrnn.backends.cupy_blocks import (
    CotangentBlock,
    GpuBlock,
    GpuBoundary,
    GpuContext,
    HeadBlock,
    RecurrentBlock,
    make_block,
)
from hpcrnn.backends.cupy_device import Device, DeviceArray, open_device
from hpcrnn.backends.cupy_optimizers import clip, make_optimizer, norm_square
from hpcrnn.errors import LaunchError
from hpcrnn.model.network import Network
from hpcrnn.model.parameters import FlatBuffer
from hpcrnn.schedules.graph import Value
from hpcrnn.spec import MachineSpec, TrainingSpec
from hpcrnn.workloads import Batch


class CupyEngine:
    """Buffers and blocks of one rank, on its GPU.

    Parameters
    ----------
    network : Network
    extent : Extent
    training : TrainingSpec
    machine : MachineSpec
        For precision, kernel and the sharing of GPUs.

    Raises
    ------
    LaunchError
        There is no GPU for this rank, or too little memory on it.
    """

    def __init__(self, network: Network, extent: Extent, training: TrainingSpec, machine: MachineSpec) -> None:
        self._network, self._extent, self._training = network, extent, training
        self._device: Device = open_device(shared=machine.allow_shared_gpu)
        self._arithmetic = Arithmetic(machine.precision)
        halved = self._arithmetic.stored.itemsize == 2
        self._gradient_scale = 2.0 ** round(-math.log2(extent.scale)) if halved else 1.0
        shapes = [block.shapes for block in network.blocks]
        # The layout of the flat buffers, and where gradients meet MPI.
        self._host = FlatBuffer(shapes, network.dtype)
        self._staged: list[slice] = []
        self.loss = 0.0
        self.progress = nothing
        self.exchanged_bytes = 0
        with self._device.stream:
            free, total = self._device.memory_bytes()
            try:
                self._allocate(shapes, machine)
            except cp.cuda.memory.OutOfMemoryError as error:
                raise LaunchError(
                    f"machine.backend = cupy: {self._device.name} has {free / 2**30:.1f} GiB free of "
                    f"{total / 2**30:.1f}; {error}"
                ) from None

    def _allocate(self, shapes: list[dict[str, tuple[int, ...]]], machine: MachineSpec) -> None:
        network, extent = self._network, self._extent
        self._parameters, parameter_views = _on_device(self._host, shapes)
        self._gradients, self._gradient_views = _on_device(self._host, shapes)
        self._parameter_views = parameter_views
        self._optimizer = make_optimizer(self._training, self._parameters.size, self._arithmetic)
        features = 0 if network.blocks[0].kind == "embedding" else network.blocks[0].inputs
        self._input = GpuBoundary.allocate(extent, features, self._arithmetic, gradient=network.gives_dx(0))
        self._tokens = [cp.zeros((extent.steps, m.stop - m.start), np.int32) for m in extent.microbatches]
        self._blocks: list[GpuBlock] = []
        before = self._input
        for index, block in enumerate(network.blocks):
            context = GpuContext(
                block,
                before,
                parameter_views[index],
                self._gradient_views[index],
                extent,
                self._arithmetic,
                self._device,
                machine.kernel,
                self._gradient_scale,
                network.gives_dx(index),
            )
            self._blocks.append(make_block(context, self._tokens, network))
            before = self._blocks[-1].output
        self._device.synchronize()

    @property
    def kernel(self) -> str:
        first = next(iter(self._recurrent()[0].loops.values()))
        loops = "; ".join(loop.describe() for loop in first)
        return f"{self._device.name}, {self._arithmetic.precision}: {loops}"

    def load_parameters(self, parameters: Mapping[str, Array]) -> None:
        for block, views in zip(self._network.blocks, self._host.blocks, strict=True):
            for name, view in views.items():
                view[...] = parameters[f"{block.name}.{name}"]
        with self._device.stream:
            self._parameters.set(self._host.flat)
            self._mark_stale()
            self._device.synchronize()

    def load_batch(self, batch: Batch) -> None:
        head = self._blocks[-1]
        with self._device.stream:
            for m, rows in enumerate(self._extent.microbatches):
                inputs = np.ascontiguousarray(batch.inputs[:, rows])
                if inputs.ndim == 2:
                    self._tokens[m].set(inputs.astype(np.int32, copy=False))
                else:
                    values = cp.asarray(inputs.astype(np.float32, copy=False))
                    self._arithmetic.round(values, self._input.value[m])
                weights = None if batch.weights is None else batch.weights[:, rows]
                if isinstance(head, HeadBlock | CotangentBlock):
                    head.load_targets(m, batch.targets[:, rows], weights)
            self._device.synchronize()

    def set_boundary(self, initial: Mapping[str, Array], cotangent: Mapping[str, Array]) -> None:
        with self._device.stream:
            for block in self._recurrent():
                names = state_names(block.name, block.cell.state_names)
                for m, rows in enumerate(self._extent.microbatches):
                    for name, short in zip(names, block.cell.state_names, strict=True):
                        _set(block.initial[m][short], initial[name][rows])
                        _set(block.cotangent[m][short], cotangent[name][rows] * self._gradient_scale)
            self._device.synchronize()

    def begin_step(self) -> None:
        self.loss = 0.0
        self._staged.clear()
        for block in self._blocks:
            block.begin_step()

    def forward(self, block: int, microbatch: int, chunk: int) -> None:
        with self._device.stream:
            self._blocks[block].refresh()
            self.loss += self._blocks[block].forward(microbatch, chunk)
            self._device.synchronize()

    def backward(self, block: int, microbatch: int, chunk: int) -> None:
        with self._device.stream:
            self._blocks[block].backward(microbatch, chunk)
            self._device.synchronize()

    def weight_gradient(self, block: int, microbatch: int, chunk: int) -> None:
        with self._device.stream:
            self._blocks[block].weight_gradient(microbatch, chunk)
            self._device.synchronize()

    def gradient_range(self, start: int, stop: int) -> Array:
        """As the protocol says, on the host: what MPI sums there returns to the GPU before it is used."""
        host = self._host.range(start, stop)
        begin = (host.ctypes.data - self._host.flat.ctypes.data) // host.itemsize
        where = slice(begin, begin + host.size)
        with self._device.stream:
            self._gradients[where].get(out=host)
        self._staged.append(where)
        return host

    def buffers(self, value: Value, *, incoming: bool) -> tuple[Array, ...]:
        raise NotImplementedError(f"{value}: on GPUs there is data parallelism only")

    def carry_states(self) -> None:
        raise NotImplementedError("states are not carried on GPUs")

    def norm_square(self) -> float:
        with self._device.stream:
            self._take_back()
            return norm_square(self._gradients)

    def update(self, norm: float) -> None:
        with self._device.stream:
            self._take_back()
            clip(self._gradients, norm, self._training.clip)
            self._optimizer.update(self._parameters, self._gradients)
            self._mark_stale()
            self._device.synchronize()

    def part(self) -> Part:
        pieces: dict[str, Piece] = {}
        rows, scale = slice(0, self._extent.rows), np.float32(1 / self._gradient_scale)
        with self._device.stream:
            self._take_back()
            if self._extent.backward:
                for block, views in zip(self._network.blocks, self._gradient_views, strict=True):
                    for name, view in views.items():
                        pieces[f"gradient {block.name}.{name}"] = Piece((slice(None),) * view.ndim, cp.asnumpy(view))
                if self._network.gives_dx(0):
                    parts = [cp.asnumpy(self._arithmetic.widen(g)) * scale for g in self._input.gradient]
                    pieces["dx"] = Piece((rows,), np.concatenate([rows_first(g) for g in parts]))
            for recurrent in self._recurrent():
                for short in recurrent.cell.state_names:
                    name, parts_of = f"{recurrent.name}.{short}", range(len(recurrent.tapes))
                    final = [cp.asnumpy(recurrent.state(m, short, self._extent.steps)) for m in parts_of]
                    pieces[f"state {name}"] = Piece((rows,), np.concatenate(final))
                    if self._extent.backward:
                        first = [cp.asnumpy(carry[short]) * scale for carry in recurrent.carry]
                        pieces[f"d {name}"] = Piece((rows,), np.concatenate(first))
        return Part(self.loss, pieces)

    def solves(self) -> tuple[LayerSolve, ...]:
        return ()

    def exponents(self) -> dict[str, float]:
        return {}

    @property
    def memory_bytes(self) -> int:
        """What this process's memory pool has taken from the GPU: the high-water mark of all its engines."""
        return int(cp.get_default_memory_pool().total_bytes())

    def _take_back(self) -> None:
        """Copy what was staged for MPI to the GPU again."""
        for where in self._staged:
            self._gradients[where].set(self._host.flat[where])
        self._device.synchronize()
        self._staged.clear()

    def _recurrent(self) -> list[RecurrentBlock]:
        return [block for block in self._blocks if isinstance(block, RecurrentBlock)]

    def _mark_stale(self) -> None:
        for block in self._blocks:
            block.stale = True


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
