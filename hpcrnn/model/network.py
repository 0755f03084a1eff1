"""A network as a row of blocks: shapes, parameters and costs, with no arrays.

A *block* is what one task of the schedule works on: the input layer (where there is one), each recurrent
layer, the head with the loss.  Every block has the same three tasks (forward, backward, weight gradient),
so a schedule treats them alike; only recurrent blocks depend on the chunk of time before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hpcrnn.cells import Cell, make_cell
from hpcrnn.errors import SpecError
from hpcrnn.spec import DType, RunSpec
from hpcrnn.workloads import Interface, Loss

BlockKind = Literal["embedding", "linear", "recurrent", "head", "cotangent"]


@dataclass(frozen=True)
class Block:
    """One block of a network.

    Attributes
    ----------
    name : str
        ``input``, ``layer0``, ..., ``head``.
    kind : {"embedding", "linear", "recurrent", "head", "cotangent"}
        ``cotangent`` is a head without parameters: the loss is the inner product with a given array.
    inputs, outputs : int
        Sizes of the last axis of what goes in and comes out; for an embedding, ``inputs`` is its rows.
    shapes : dict of str to tuple of int
        Parameters.
    cell : Cell or None
        Of a recurrent block.
    """

    name: str
    kind: BlockKind
    inputs: int
    outputs: int
    shapes: dict[str, tuple[int, ...]]
    cell: Cell | None = None

    @property
    def is_recurrent(self) -> bool:
        """Whether a chunk of time needs the chunk before."""
        return self.kind == "recurrent"

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Network:
    """Blocks in the order of the forward pass.

    Attributes
    ----------
    blocks : tuple of Block
    hidden : int
        H of every recurrent layer.
    loss : {"cross_entropy", "squared_error", "linear"}
    dtype : {"float32", "float64"}
    needs_dx : bool
        Whether the first block must hand a gradient to its input: where nothing before it is trained but
        the run asks for every gradient (mode ``gradient``).
    """

    blocks: tuple[Block, ...]
    hidden: int
    loss: Loss
    dtype: DType
    needs_dx: bool

    @cached_property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return sum(block.n_parameters for block in self.blocks)

    @property
    def recurrent(self) -> tuple[bool, ...]:
        """Which blocks carry a state through time."""
        return tuple(block.is_recurrent for block in self.blocks)

    def gives_dx(self, index: int) -> bool:
        """Whether the backward pass of a block computes the gradient of its input."""
        return index > 0 or (self.needs_dx and self.blocks[0].kind != "embedding")

    def flops(self, steps: int, rows: int, *, backward: bool) -> float:
        """Operations of one pass over ``rows`` sequences of ``steps`` steps, all blocks.

        Every matrix product (m, k) @ (k, n) counts 2 m k n; pointwise work and look-ups count nothing.
        """
        return sum(self.block_flops(index, steps, rows, backward=backward) for index in range(len(self.blocks)))

    def block_flops(self, index: int, steps: int, rows: int, *, backward: bool) -> float:
        """Operations of one block."""
        block, total = self.blocks[index], 0
        if block.cell is not None:
            sizes = (steps, rows, block.inputs, block.outputs)
            total += block.cell.forward_flops(*sizes)
            if backward:
                total += block.cell.backward_flops(*sizes, input_gradient=self.gives_dx(index))
                total += block.cell.weight_flops(*sizes)
        elif block.kind in ("linear", "head"):
            products = 1 + (1 + self.gives_dx(index) if backward else 0)
            total += 2 * products * steps * rows * block.inputs * block.outputs
        return float(total)

    def memory_bytes(self, steps: int, rows: int, own: Sequence[int] | None = None) -> int:
        """Bound what a rank allocates for ``steps`` steps of ``rows`` sequences, however they are cut.

        Parameters
        ----------
        steps, rows : int
        own : sequence of int, optional
            Blocks of the rank; all if not given.
        """
        blocks = self.blocks if own is None else tuple(self.blocks[index] for index in own)
        itemsize = np.dtype(self.dtype).itemsize
        # Parameters, gradients, two moments, optimizer scratch, weight-gradient scratch; two packed copies of R for
        # each of two sizes of micro-batch.
        elements = 10 * sum(block.n_parameters for block in blocks)
        for block in blocks:
            # The output and its gradient; an embedding sorts a copy of that and adds it up.
            elements += (4 if block.kind == "embedding" else 2) * steps * rows * block.outputs
            if block.cell is not None:  # scratch of one step, and the states at both ends of a sequence
                elements += (2 * block.cell.n_gates + 3 * len(block.cell.state_names) + 8) * rows * block.outputs
                # and what scratch there is however few the rows, for each of two sizes of micro-batch
                elements += 2 * sum(math.prod(shape) for shape in block.cell.scratch_shapes(1, 1).values())
        if blocks[0].kind != "embedding":  # the network's input, or what another rank sends
            elements += 2 * steps * rows * blocks[0].inputs
        tapes = sum(b.cell.tape_bytes(steps, rows, b.outputs, itemsize) for b in blocks if b.cell is not None)
        # Tokens, targets, weights, and the loss of each element with its indices in eight bytes.
        return tapes + elements * itemsize + 64 * steps * rows


def build_network(spec: RunSpec, interface: Interface) -> Network:
    """Lay out the blocks a specification and a workload ask for.

    Raises
    ------
    SpecError
        The input layer does not fit the workload.
    """
    model = spec.model
    tokens = interface.inputs == "tokens"
    kind = ("embedding" if tokens else "linear") if model.input == "auto" else model.input
    if tokens and kind != "embedding":
        raise SpecError("model.input", model.input, f"embedding, as {spec.problem.workload} gives tokens")
    if not tokens and kind == "embedding":
        raise SpecError("model.input", model.input, f"linear or direct, as {spec.problem.workload} gives features")
    if kind == "direct" and model.embed not in (None, interface.input_size):
        raise SpecError("model.embed", model.embed, f"the feature count, {interface.input_size}, with input = direct")

    cell, H = make_cell(model), model.hidden
    D = interface.input_size if kind == "direct" else spec.embed
    blocks: list[Block] = []
    if kind == "embedding":
        blocks.append(Block("input", "embedding", interface.input_size, D, {"E": (interface.input_size, D)}))
    elif kind == "linear":
        shapes: dict[str, tuple[int, ...]] = {"W": (interface.input_size, D), "b": (D,)}
        blocks.append(Block("input", "linear", interface.input_size, D, shapes))
    for layer in range(model.layers):
        size = D if layer == 0 else H
        blocks.append(Block(f"layer{layer}", "recurrent", size, H, cell.parameter_shapes(size, H), cell))
    if interface.loss == "linear":
        blocks.append(Block("head", "cotangent", H, H, {}))
    else:
        out = interface.output_size
        blocks.append(Block("head", "head", H, out, {"W": (H, out), "b": (out,)}))
    return Network(tuple(blocks), H, interface.loss, model.dtype, needs_dx=spec.training.mode == "gradient")


def initial_parameters(network: Network, seed: int, member: int = 0) -> dict[str, np.ndarray]:
    """Draw every parameter in float64, named ``block.parameter``; the same for every backend and rank.

    Recurrent layers as ``torch.nn`` does; linear layers U(-1/sqrt(inputs), 1/sqrt(inputs)); embeddings
    N(0, 1).  Members of an ensemble have parameters of their own.
    """
    parameters: dict[str, np.ndarray] = {}
    for index, block in enumerate(network.blocks):
        rng = np.random.default_rng(np.random.SeedSequence((seed, index), spawn_key=(member,) if member else ()))
        if block.cell is not None:
            drawn = block.cell.initial_parameters(rng, block.inputs, block.outputs)
        elif block.kind == "embedding":
            drawn = {name: rng.standard_normal(shape) for name, shape in block.shapes.items()}
        else:
            bound = block.inputs**-0.5
            drawn = {name: rng.uniform(-bound, bound, shape) for name, shape in block.shapes.items()}
        parameters |= {f"{block.name}.{name}": value for name, value in drawn.items()}
    return parameters
