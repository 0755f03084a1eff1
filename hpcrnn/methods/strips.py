"""Single steps of chosen rows: what a re-run and a correction are made of.

The chosen rows are either all rows, or few. All rows are worked on where they lie, with the products planned for them;
few are copied to where they lie together, worked on with ordinary products, and, after a forward step, copied back.
"""

from __future__ import annotations

import math

import numpy as np

from hpcrnn.cells.base import Array, Cell, Parameters, Tape, Workspace
from hpcrnn.cells.products import ProductLibrary
from hpcrnn.methods.passes import Rows

States = dict[str, Array]


class _PlainProduct:
    """``a @ M`` for any number of rows, with M where it lies."""

    def __init__(self, library: ProductLibrary, matrix: Array) -> None:
        self._library, self._matrix = library, matrix

    def load(self, matrix: Array) -> None:
        """Nothing to lay out: M is always the one it was made with."""

    def multiply(self, a: Array, out: Array) -> None:
        self._library.matmul(a, self._matrix, out)

    def accumulate(self, a: Array, out: Array) -> None:
        self._library.matmul(a, self._matrix, out, accumulate=True)


class Strips:
    """One-step tapes of chosen rows of a folded tape.

    Parameters
    ----------
    cell : Cell
    parameters : mapping of str to array
        Views that stay where they are.
    tape : Tape
        Of all rows.
    work : Workspace
        Of all rows.
    """

    def __init__(self, cell: Cell, parameters: Parameters, tape: Tape, work: Workspace) -> None:
        self._cell, self._tape, self._work = cell, tape, work
        self.n_rows, self._H = tape.gates.shape[1], tape.states["h"].shape[-1]
        R = parameters.get("R")
        blocks = {} if R is None else {n: R[:, part] for n, part in cell.recurrent_blocks(self._H).items()}
        self._forward = {name: _PlainProduct(work.library, block) for name, block in blocks.items()}
        self._backward = {name: _PlainProduct(work.library, block.T) for name, block in blocks.items()}
        self._zeros = np.zeros((1, self.n_rows, self._H), tape.gates.dtype)
        self._buffers: dict[str, Array] = {}
        self._narrow: dict[int, Workspace] = {}

    def forward(self, step: int, rows: Rows, before: States, difference: Array, after: States) -> None:
        """Run one step of some rows again, from another state, and leave it on the tape but for the new state.

        Parameters
        ----------
        step : int
        rows : int array (k,)
            Ascending.
        before : dict of str to array (k, H)
            The state the step starts from.
        difference : array (k, H)
            How much its ``h`` differs from the one the tape's gates were made with.
        after : dict of str to array (k, H)
            Overwritten with the state it comes to.
        """
        whole = len(rows) == self.n_rows
        gates, saved = self._take(step, rows)
        states = {}
        for name in self._cell.state_names:
            states[name] = self._buffer(f"state {name}", (2, len(rows), self._H))
            np.copyto(states[name][0], before[name])
        hidden = states["h"]
        if self._cell.gates_hold_product:
            hidden = self._buffer("hidden", (2, len(rows), self._H))
            np.copyto(hidden[0], difference)
        self._cell.recur(Tape(gates, states, hidden, saved), self._workspace(len(rows)))
        for name in self._cell.state_names:
            np.copyto(after[name], states[name][1])
        if not whole:
            self._tape.gates[step][rows] = gates[0]
            for name, strip in saved.items():
                self._tape.saved[name][step][..., rows, :] = strip[0]

    def backward(self, step: int, rows: Rows, dstate: States) -> None:
        """Carry a correction of the gradient one step back, and add what it does to the tape's gate gradients.

        Parameters
        ----------
        step : int
        rows : int array (k,)
            Ascending.
        dstate : dict of str to array (k, H)
            In: with respect to the state after the step; out: before it.
        """
        whole = len(rows) == self.n_rows
        _, saved = self._take(step, rows, gates=False)
        gates = self._buffer("gates", (1, len(rows), self._tape.gates.shape[-1]))
        states = {
            name: a[step : step + 2] if whole else self._gathered(f"state {name}", a[step : step + 2], rows)
            for name, a in self._tape.states.items()
        }
        self._cell.backward(
            self._zeros[:, : len(rows)], dstate, Tape(gates, states, states["h"], saved), self._workspace(len(rows))
        )
        if whole:
            np.add(self._tape.gates[step], gates[0], out=self._tape.gates[step])
        else:
            self._tape.gates[step][rows] += gates[0]

    def _take(self, step: int, rows: Rows, *, gates: bool = True) -> tuple[Array, dict[str, Array]]:
        """Gates and saved arrays of one step: views of all rows, or copies of some."""
        now = slice(step, step + 1)
        if len(rows) == self.n_rows:
            return self._tape.gates[now], {name: a[now] for name, a in self._tape.saved.items()}
        copied = self._gathered("gates", self._tape.gates[now], rows) if gates else self._tape.gates[:0]
        return copied, {name: self._gathered(name, a[now], rows) for name, a in self._tape.saved.items()}

    def _gathered(self, name: str, a: Array, rows: Rows) -> Array:
        copy = self._buffer(name, (*a.shape[:-2], len(rows), a.shape[-1]))
        return np.take(a, rows, axis=-2, out=copy)

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Array:
        """Scratch that is kept at the largest size met."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, self._tape.gates.dtype)
        return self._buffers[name][:size].reshape(shape)

    def _workspace(self, k: int) -> Workspace:
        if k == self.n_rows:
            return self._work
        if k not in self._narrow:
            shapes = self._cell.scratch_shapes(k, self._H)
            scratch = {name: a.reshape(-1) for name, a in self._work.scratch.items()}
            scratch |= {name: scratch[name][: math.prod(shape)].reshape(shape) for name, shape in shapes.items()}
            self._narrow[k] = Workspace(
                self._work.library,
                self._work.exchange,
                self._forward,  # type: ignore[arg-type]  # a dict of a narrower type
                self._backward,  # type: ignore[arg-type]
                self._work.bias[:, :k],
                scratch,
                self._work.poll,
            )
        return self._narrow[k]
