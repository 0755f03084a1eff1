"""What every recurrent cell has, and the arrays it works on.

A layer's work over one chunk of time is three tasks, each one method:

``forward``          one input GEMM for the chunk, then the time loop; fills the tape;
``backward``         the time loop backwards; turns the tape's gate inputs into their gradients, in place
                     (``input_gradient``, one GEMM for the chunk, makes ``dx`` of them);
``weight_gradient``  two GEMMs over the whole chunk from the tape; may run any time after ``backward``.

Nothing is allocated inside a time loop: a :class:`Tape` holds what ``backward`` needs of ``forward``, a
:class:`Workspace` the scratch of one step and the laid-out recurrent weights.

GEMMs want the gates of a step beside each other, ``(B, G*H)``; pointwise work wants each gate contiguous,
``(G, B, H)``, because NumPy pays about 0.3 µs for every row of a strided operand.  So a step transposes
once on the way from the product to the activations, and once on the way back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hpcrnn.cells.products import ProductLibrary, StationaryProduct

Array = npt.NDArray[Any]
Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Tape:
    """What the forward pass leaves for the backward pass, over T steps.

    Attributes
    ----------
    gates : array (T, B, G*H)
        Inputs of the gates, before their nonlinearity; after ``backward`` the gradients of those.
    states : dict of str to array (T + 1, B, H)
        ``h``, for LSTM also ``c``. Row 0 is the state before the first step: where a halo arrives.
    saved : dict of str to array (T, ...)
        What else the cell keeps for its backward pass, one entry a step.
    """

    gates: Array
    states: dict[str, Array]
    saved: dict[str, Array] = field(default_factory=dict)

    @property
    def y(self) -> Array:
        """The layer's output (T, B, H): a view of the hidden states."""
        return self.states["h"][1:]

    @property
    def gates_by_gate(self) -> Array:
        """The gate inputs seen as (T, G, B, H)."""
        T, B, _ = self.gates.shape
        return self.gates.reshape(T, B, -1, self.states["h"].shape[-1]).transpose(0, 2, 1, 3)

    def window(self, start: int, stop: int) -> Tape:
        """Views of the steps ``start:stop``; neighbouring windows share the state between them."""
        return Tape(
            self.gates[start:stop],
            {name: a[start : stop + 1] for name, a in self.states.items()},
            {name: a[start:stop] for name, a in self.saved.items()},
        )


@dataclass(frozen=True)
class Workspace:
    """Scratch of one time step and the recurrent weights in the layout of their library.

    Attributes
    ----------
    library : ProductLibrary
    forward, backward : dict of str to StationaryProduct
        Products with the recurrent weights and with their transposes.
    bias : array (G, B, H)
        ``b``, repeated for every row: added to the gates as one contiguous block.
    scratch : dict of str to array
        Buffers of one step; their names are the cell's own.
    """

    library: ProductLibrary
    forward: dict[str, StationaryProduct]
    backward: dict[str, StationaryProduct]
    bias: Array
    scratch: dict[str, Array]


class Cell(ABC):
    """A recurrent cell: shapes, equations and costs. Stateless; all arrays are arguments."""

    name: ClassVar[str]
    n_gates: ClassVar[int]
    state_names: ClassVar[tuple[str, ...]] = ("h",)

    def parameter_shapes(self, D: int, H: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter: ``W`` (D, G*H), ``R`` (H, G*H), ``b`` (G*H,)."""
        gates = self.n_gates * H
        return {"W": (D, gates), "R": (H, gates), "b": (gates,)}

    def initial_parameters(self, rng: np.random.Generator, D: int, H: int) -> dict[str, Array]:
        """Draw float64 parameters from U(-1/sqrt(H), 1/sqrt(H)), as ``torch.nn`` does."""
        bound = H**-0.5
        return {name: rng.uniform(-bound, bound, shape) for name, shape in self.parameter_shapes(D, H).items()}

    def saved_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of what a step keeps on the tape beside gates and states."""
        return {"activations": (self.n_gates, B, H)}

    def make_tape(self, T: int, B: int, H: int, dtype: npt.DTypeLike) -> Tape:
        """Allocate a tape of T steps; all states start at zero."""
        return Tape(
            np.zeros((T, B, self.n_gates * H), dtype),
            {name: np.zeros((T + 1, B, H), dtype) for name in self.state_names},
            {name: np.zeros((T, *shape), dtype) for name, shape in self.saved_shapes(B, H).items()},
        )

    @abstractmethod
    def recurrent_blocks(self, H: int) -> dict[str, slice]:
        """Columns of ``R`` that take part in each recurrent product of a step."""

    @abstractmethod
    def scratch_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of the buffers a step needs."""

    def make_workspace(self, B: int, H: int, dtype: npt.DTypeLike, library: ProductLibrary) -> Workspace:
        """Allocate the scratch of one step for B rows and plan the recurrent products."""
        widths = {name: len(range(*s.indices(self.n_gates * H))) for name, s in self.recurrent_blocks(H).items()}
        return Workspace(
            library,
            forward={name: library.product(B, H, width, dtype) for name, width in widths.items()},
            backward={name: library.product(B, width, H, dtype) for name, width in widths.items()},
            bias=np.empty((self.n_gates, B, H), dtype),
            scratch={name: np.empty(shape, dtype) for name, shape in self.scratch_shapes(B, H).items()},
        )

    def load(self, parameters: Parameters, work: Workspace, *, backward: bool) -> None:
        """Lay out the recurrent weights; needed once whenever they have changed.

        Parameters
        ----------
        parameters : mapping of str to array
        work : Workspace
        backward : bool
            Lay out the transposes too.
        """
        R = parameters["R"]
        work.bias[...] = parameters["b"].reshape(self.n_gates, 1, -1)
        for name, columns in self.recurrent_blocks(len(R)).items():
            work.forward[name].load(R[:, columns])
            if backward:
                work.backward[name].load(R[:, columns].T)

    @abstractmethod
    def forward(self, parameters: Parameters, x: Array, tape: Tape, work: Workspace) -> None:
        """Run T steps from the state in row 0 of the tape.

        Parameters
        ----------
        parameters : mapping of str to array
        x : array (T, B, D)
        tape : Tape
            Filled; ``tape.y`` is the output, row T of its states the final state.
        work : Workspace
        """

    @abstractmethod
    def backward(self, dy: Array, dstate: dict[str, Array], tape: Tape, work: Workspace) -> None:
        """Backpropagate through the T steps of the tape.

        Parameters
        ----------
        dy : array (T, B, H)
            Gradient with respect to the layer's output.
        dstate : dict of str to array (B, H)
            In: gradient with respect to the final state beyond what ``dy`` holds. Out: with respect to
            the state before the first step.
        tape : Tape
            Its gates become gate gradients.
        work : Workspace
        """

    def input_gradient(self, parameters: Parameters, tape: Tape, dx: Array, work: Workspace) -> None:
        """Compute ``dx`` (T, B, D) from the gate gradients: one GEMM for the chunk."""
        work.library.matmul(as_rows(tape.gates), parameters["W"].T, as_rows(dx))

    def weight_gradient(self, x: Array, tape: Tape, into: Parameters, work: Workspace) -> None:
        """Compute the gradients of the parameters from the gate gradients: GEMMs over the chunk.

        Parameters
        ----------
        x : array (T, B, D)
            The layer's input of the forward pass.
        tape : Tape
            After ``backward``.
        into : mapping of str to array
            Overwritten.
        work : Workspace
        """
        gates = as_rows(tape.gates)
        work.library.matmul(as_rows(x).T, gates, into["W"])
        np.sum(gates, axis=0, out=into["b"])
        self.recurrent_gradient(tape, into, work)

    def recurrent_gradient(self, tape: Tape, into: Parameters, work: Workspace) -> None:
        """Compute the gradient of ``R``, and of any parameter only this cell has."""
        work.library.matmul(as_rows(tape.states["h"][:-1]).T, as_rows(tape.gates), into["R"])

    # What it costs: every product (m, k) @ (k, n) as 2 m k n operations; pointwise work is not counted.

    def forward_flops(self, T: int, B: int, D: int, H: int) -> int:
        """Operations of ``forward``."""
        return 2 * T * B * self.n_gates * H * (D + H)

    def backward_flops(self, T: int, B: int, D: int, H: int, *, input_gradient: bool = True) -> int:
        """Operations of ``backward``, with or without ``input_gradient``."""
        return 2 * T * B * self.n_gates * H * (H + (D if input_gradient else 0))

    def weight_flops(self, T: int, B: int, D: int, H: int) -> int:
        """Operations of ``weight_gradient``."""
        return 2 * T * B * self.n_gates * H * (D + H)

    def tape_bytes(self, T: int, B: int, H: int, itemsize: int) -> int:
        """Memory of a tape."""
        saved = sum(math.prod(shape) for shape in self.saved_shapes(B, H).values())
        return itemsize * (T * (B * H * self.n_gates + saved) + (T + 1) * B * H * len(self.state_names))


def as_rows(a: Array) -> Array:
    """(T, B, N) seen as (T*B, N)."""
    return a.reshape(-1, a.shape[-1])


def input_product(parameters: Parameters, x: Array, tape: Tape, work: Workspace) -> None:
    """Compute ``gates = x @ W`` for a whole chunk: (T*B, D) @ (D, G*H) as one GEMM."""
    work.library.matmul(as_rows(x), parameters["W"], as_rows(tape.gates))


def sigmoid(a: Array) -> None:
    """Apply the logistic function in place, as ``(1 + tanh(a / 2)) / 2``: one vectorised transcendental.

    Unlike ``1 / (1 + exp(-a))`` it does not overflow.
    """
    np.multiply(a, 0.5, out=a)
    np.tanh(a, out=a)
    np.multiply(a, 0.5, out=a)
    np.add(a, 0.5, out=a)
