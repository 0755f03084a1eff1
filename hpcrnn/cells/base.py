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

A layer may be one *shard* of a wider one: it holds H of ``width`` hidden units, the columns of every gate for them,
and all rows of ``R``.  Pointwise work touches only its own units; once a step it gathers the hidden state of all
shards, and on the way back sums their parts of ``dh`` (:mod:`hpcrnn.cells.exchange`).  A whole layer is the only
shard: ``width`` is H, and both exchanges are nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hpcrnn.cells.exchange import ALONE, Exchange
from hpcrnn.cells.products import ProductLibrary, StationaryProduct
from hpcrnn.cells.starts import NO_STARTS, NoStarts

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
        ``h``, for LSTM also ``c``, of this shard's units. Row 0 is the state before the first step: where a halo
        arrives.
    hidden : array (T + 1, B, width)
        ``h`` of all shards: what recurrent products read. In a whole layer it *is* ``states["h"]``.
    saved : dict of str to array (T, ...)
        What else the cell keeps for its backward pass, one entry a step.
    starts : NoStarts
        Where sequences start inside the rows.
    """

    gates: Array
    states: dict[str, Array]
    hidden: Array
    saved: dict[str, Array] = field(default_factory=dict)
    starts: NoStarts = NO_STARTS

    @property
    def y(self) -> Array:
        """The layer's output (T, B, width), all shards': a view of the hidden states."""
        return self.hidden[1:]

    @cached_property
    def gates_by_gate(self) -> Array:
        """The gate inputs seen as (T, G, B, H)."""
        T, B, _ = self.gates.shape
        return self.gates.reshape(T, B, -1, self.states["h"].shape[-1]).transpose(0, 2, 1, 3)

    def window(self, start: int, stop: int) -> Tape:
        """Views of the steps ``start:stop``; neighbouring windows share the state between them."""
        states = {name: a[start : stop + 1] for name, a in self.states.items()}
        return Tape(
            self.gates[start:stop],
            states,
            states["h"] if self.hidden is self.states["h"] else self.hidden[start : stop + 1],
            {name: a[start:stop] for name, a in self.saved.items()},
            self.starts.window(start, stop, states),
        )


@dataclass(frozen=True)
class Workspace:
    """Scratch of one time step and the recurrent weights in the layout of their library.

    Attributes
    ----------
    library : ProductLibrary
    exchange : Exchange
        With the other shards.
    forward, backward : dict of str to StationaryProduct
        Products with the recurrent weights and with their transposes.
    bias : array (G, B, H)
        ``b``, repeated for every row: added to the gates as one contiguous block.
    scratch : dict of str to array
        Buffers of one step; their names are the cell's own, but for those of the two methods below.
    poll : callable
        Called once a time step, for whoever has work of his own to be done meanwhile.
    """

    library: ProductLibrary
    exchange: Exchange
    forward: dict[str, StationaryProduct]
    backward: dict[str, StationaryProduct]
    bias: Array
    scratch: dict[str, Array]
    poll: Callable[[], None]

    def own(self, full: Array) -> Array:
        """Where this shard's part (B, H) of ``full`` (B, width) is made, to be gathered: in a whole layer, in place."""
        return self.scratch.get("own", full)

    def partial(self, own: Array) -> Array:
        """Where this shard's part (B, width) of a sum is made of which it will keep ``own`` (B, H): as above."""
        return self.scratch.get("partial", own)


class Cell(ABC):
    """A recurrent cell: shapes, equations and costs. Stateless; all arrays are arguments."""

    name: ClassVar[str]
    n_gates: ClassVar[int]
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    memory: ClassVar[str] = "h"
    """The state that keeps what was, elementwise: see :meth:`retention`."""

    def parameter_shapes(self, D: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:
        """Name and shape of each parameter: ``W`` (D, G*H), ``R`` (width, G*H), ``b`` (G*H,).

        Parameters
        ----------
        D : int
            Input size.
        H : int
            Hidden units held here.
        width : int, optional
            Hidden units of all shards; H if not given, here as in every method below.
        """
        gates = self.n_gates * H
        return {"W": (D, gates), "R": (width or H, gates), "b": (gates,)}

    def initial_parameters(self, rng: np.random.Generator, D: int, H: int) -> dict[str, Array]:
        """Draw float64 parameters from U(-1/sqrt(H), 1/sqrt(H)), as ``torch.nn`` does."""
        bound = H**-0.5
        return {name: rng.uniform(-bound, bound, shape) for name, shape in self.parameter_shapes(D, H).items()}

    def saved_shapes(self, B: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """Name and shape of what a step keeps on the tape beside gates and states."""
        return {"activations": (self.n_gates, B, H)}

    def tape_shapes(self, T: int, B: int, H: int, width: int | None = None) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array of a tape; ``hidden`` only where it is not ``h``."""
        shapes: dict[str, tuple[int, ...]] = {"gates": (T, B, self.n_gates * H)}
        shapes |= dict.fromkeys(self.state_names, (T + 1, B, H))
        if width not in {None, H}:
            shapes["hidden"] = (T + 1, B, width)
        return shapes | {name: (T, *shape) for name, shape in self.saved_shapes(B, H, width).items()}

    def make_tape(
        self,
        T: int,
        B: int,
        H: int,
        dtype: npt.DTypeLike,
        width: int | None = None,
        allocate: Callable[[tuple[int, ...]], Array] | None = None,
    ) -> Tape:
        """Allocate a tape of T steps.

        Parameters
        ----------
        T, B, H : int
        dtype : dtype
        width : int, optional
        allocate : function of a shape, optional
            Gives each of the ``tape_shapes`` its array, contiguous and of ``dtype``; zeros if not given.
        """

        def zeros(shape: tuple[int, ...]) -> Array:
            return np.zeros(shape, dtype)

        make = allocate or zeros
        arrays = {name: make(shape) for name, shape in self.tape_shapes(T, B, H, width).items()}
        return Tape(
            arrays["gates"],
            {name: arrays[name] for name in self.state_names},
            arrays.get("hidden", arrays["h"]),
            {name: arrays[name] for name in self.saved_shapes(B, H, width)},
        )

    @abstractmethod
    def recurrent_blocks(self, H: int) -> dict[str, slice]:
        """Columns of ``R`` that take part in each recurrent product of a step."""

    @abstractmethod
    def scratch_shapes(self, B: int, H: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of the buffers a step needs."""

    def make_workspace(
        self,
        B: int,
        H: int,
        dtype: npt.DTypeLike,
        library: ProductLibrary,
        width: int | None = None,
        exchange: Exchange = ALONE,
        poll: Callable[[], None] = lambda: None,
    ) -> Workspace:
        """Allocate the scratch of one step for B rows and plan the recurrent products.

        Parameters
        ----------
        B, H : int
        dtype : dtype
        library : ProductLibrary
        width : int, optional
        exchange : Exchange, optional
            With the shards that have the other ``width - H`` units.
        poll : callable, optional
        """
        width = width or H
        columns = {name: len(range(*s.indices(self.n_gates * H))) for name, s in self.recurrent_blocks(H).items()}
        shapes = self.scratch_shapes(B, H) | {"sums": (self.n_gates * H,)}
        if exchange.size > 1:
            shapes |= {"own": (B, H), "partial": (B, width)}
        return Workspace(
            library,
            exchange,
            forward={name: library.product(B, width, n, dtype) for name, n in columns.items()},
            backward={name: library.product(B, n, width, dtype) for name, n in columns.items()},
            bias=np.empty((self.n_gates, B, H), dtype),
            scratch={name: np.empty(shape, dtype) for name, shape in shapes.items()},
            poll=poll,
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
        for name, columns in self.recurrent_blocks(work.bias.shape[-1]).items():
            work.forward[name].load(R[:, columns])
            if backward:
                work.backward[name].load(R[:, columns].T)

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
        input_product(parameters, x, tape, work)
        self.recur(tape, work)

    @abstractmethod
    def recur(self, tape: Tape, work: Workspace) -> None:
        """Run the time loop of ``forward``: from ``x W`` in the tape's gates to everything else.

        Of the state in row 0 the recurrent product reads ``tape.hidden[0]``, everything else ``tape.states``.
        """

    @abstractmethod
    def backward(self, dy: Array, dstate: dict[str, Array], tape: Tape, work: Workspace) -> None:
        """Backpropagate through the T steps of the tape.

        Parameters
        ----------
        dy : array (T, B, H)
            Gradient with respect to the layer's output, this shard's units.
        dstate : dict of str to array (B, H)
            In: gradient with respect to the final state beyond what ``dy`` holds. Out: with respect to
            the state before the first step.
        tape : Tape
            Its gates become gate gradients.
        work : Workspace
        """

    def input_gradient(self, parameters: Parameters, tape: Tape, dx: Array, work: Workspace) -> None:
        """Compute ``dx`` (T, B, D) from the gate gradients: one GEMM for the chunk.

        A shard computes its part of a sum over the shards.
        """
        work.library.matmul(as_rows(tape.gates), parameters["W"].T, as_rows(dx))

    def weight_gradient(
        self, x: Array, tape: Tape, into: Parameters, work: Workspace, *, accumulate: bool = False
    ) -> None:
        """Compute the gradients of the parameters from the gate gradients: GEMMs over the chunk.

        Parameters
        ----------
        x : array (T, B, D)
            The layer's input of the forward pass.
        tape : Tape
            After ``backward``.
        into : mapping of str to array
            Overwritten, or added to.
        work : Workspace
        accumulate : bool, optional
            Add to what is there.
        """
        gates = as_rows(tape.gates)
        work.library.matmul(as_rows(x).T, gates, into["W"], accumulate=accumulate)
        work.poll()
        sum_rows(gates, into["b"], work.scratch["sums"], accumulate=accumulate)
        self.recurrent_gradient(tape, into, work, accumulate=accumulate)

    def recurrent_gradient(self, tape: Tape, into: Parameters, work: Workspace, *, accumulate: bool = False) -> None:
        """Compute the gradient of ``R``, and of any parameter only this cell has."""
        tape.starts.hide_all("h")
        work.library.matmul(as_rows(tape.hidden[:-1]).T, as_rows(tape.gates), into["R"], accumulate=accumulate)
        tape.starts.show("h")

    # What methods that run segments of time at once want to know.

    @property
    def gates_hold_product(self) -> bool:
        """Whether ``recur`` adds the recurrent product to the tape's gates, in place.

        Where it does, a step is run again from another state by the product of the *difference* of the two states.
        """
        return True

    @property
    def unbounded(self) -> tuple[str, ...]:
        """States that may grow beyond one: differences of these are relative."""
        return ()

    @abstractmethod
    def retention(self, parameters: Parameters, tape: Tape) -> Array:
        """Return what each step keeps of ``memory``, elementwise: (T, B, H), a view where it can be.

        The diagonal of the step's Jacobian as far as the gates make it: the forget gate and its kin.
        """

    def exposure(self, tape: Tape, steps: Array) -> dict[str, Array]:  # noqa: ARG002
        """Return how the states other than ``memory`` follow it: their elementwise derivative by it.

        Parameters
        ----------
        tape : Tape
        steps : int array (B,)
            The step of each row to take it at.

        Returns
        -------
        dict of str to array (B, H)
        """
        return {}

    # What it costs: every product (m, k) @ (k, n) as 2 m k n operations; pointwise work is not counted.

    def forward_flops(self, T: int, B: int, D: int, H: int, width: int | None = None) -> int:
        """Operations of ``forward``."""
        return 2 * T * B * self.n_gates * H * (D + (width or H))

    def backward_flops(
        self, T: int, B: int, D: int, H: int, width: int | None = None, *, input_gradient: bool = True
    ) -> int:
        """Operations of ``backward``, with or without ``input_gradient``."""
        return 2 * T * B * self.n_gates * H * ((width or H) + (D if input_gradient else 0))

    def weight_flops(self, T: int, B: int, D: int, H: int, width: int | None = None) -> int:
        """Operations of ``weight_gradient``."""
        return 2 * T * B * self.n_gates * H * (D + (width or H))

    def tape_bytes(self, T: int, B: int, H: int, itemsize: int, width: int | None = None) -> int:
        """Memory of a tape."""
        return itemsize * sum(math.prod(shape) for shape in self.tape_shapes(T, B, H, width).values())


def as_rows(a: Array) -> Array:
    """(T, B, N) seen as (T*B, N)."""
    return a.reshape(-1, a.shape[-1])


def input_product(parameters: Parameters, x: Array, tape: Tape, work: Workspace) -> None:
    """Compute ``gates = x @ W`` for a whole chunk: (T*B, D) @ (D, G*H) as one GEMM."""
    work.library.matmul(as_rows(x), parameters["W"], as_rows(tape.gates))


def sum_rows(rows: Array, out: Array, scratch: Array, *, accumulate: bool) -> None:
    """Sum (M, N) over its rows into ``out`` (N,), or add the sum to it by way of ``scratch`` (at least N,)."""
    if not accumulate:
        np.sum(rows, axis=0, out=out)
        return
    part = scratch[: len(out)]
    np.sum(rows, axis=0, out=part)
    np.add(out, part, out=out)


def sigmoid(a: Array) -> None:
    """Apply the logistic function in place, as ``(1 + tanh(a / 2)) / 2``: one vectorised transcendental.

    Unlike ``1 / (1 + exp(-a))`` it does not overflow.
    """
    np.multiply(a, 0.5, out=a)
    np.tanh(a, out=a)
    np.multiply(a, 0.5, out=a)
    np.add(a, 0.5, out=a)
