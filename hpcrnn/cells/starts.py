"""Where sequences start inside the rows of a tape: the state before such a step is another sequence's.

The step must start from zeros, while the state itself stays what it is: it is the output of the step before.  So these
rows are *hidden* while the loop is at work: set aside, replaced by zeros, and put back when the loop is done.  What
reads the state that enters a step, forward or backward, in a product or pointwise, then reads zeros, exactly, and no
cell has other arithmetic for it.  Going back, what flows into the state before is *cut* there: nothing of one sequence
reaches another.

Going forward a state is hidden as soon as it is there, at its step; else all are hidden together, which costs less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class NoStarts:
    """Rows that are one sequence each: nothing is hidden, nothing cut."""

    def by_step(self, n_steps: int) -> Sequence[Array | None]:
        """Return the rows in which a sequence starts at each of so many steps; None where in none."""
        return [None] * n_steps

    def hide(self, t: int) -> None:
        """Hide all states that enter step ``t`` where a sequence starts; once of all steps, then :meth:`show`."""

    def hide_all(self, name: str) -> None:
        """Hide one state where sequences start, at all steps."""

    def show(self, *names: str) -> None:
        """Put back what has been hidden."""

    def cut(self, t: int, gradients: Iterable[Array]) -> None:
        """Let no gradient (B, H) flow from step ``t`` to the state before, where a sequence starts."""

    def take_at(self, into: Array, source: Array) -> None:
        """Copy ``source`` (T, B, H) to ``into`` at the steps and rows where sequences start."""

    def window(self, start: int, stop: int, states: dict[str, Array]) -> NoStarts:  # noqa: ARG002
        """Return the starts in the steps ``start:stop``, over views of the states."""
        return self


@dataclass(frozen=True, eq=False)
class Starts(NoStarts):
    """Starts of a tape.

    Attributes
    ----------
    steps, rows : int array (n,)
        Each start's, ordered by step.
    n_steps : int
        T of the tape.
    states : dict of str to array (T + 1, B, H)
        What enters the steps.
    """

    steps: Array
    rows: Array
    n_steps: int
    states: dict[str, Array]
    _kept: dict[str, Array] = field(init=False)
    _bounds: list[int] = field(init=False)
    _rows_of: list[Array | None] = field(init=False)

    def __post_init__(self) -> None:
        bounds = np.searchsorted(self.steps, np.arange(self.n_steps + 1)).tolist()
        n, states = len(self.steps), self.states.items()
        kept = {name: np.empty((n, state.shape[-1]), state.dtype) for name, state in states}
        object.__setattr__(self, "_kept", kept)
        object.__setattr__(self, "_bounds", bounds)
        parts = (self.rows[first:last] if first < last else None for first, last in pairwise(bounds))
        object.__setattr__(self, "_rows_of", list(parts))

    def by_step(self, n_steps: int) -> Sequence[Array | None]:  # noqa: ARG002 - those of the tape
        return self._rows_of

    def hide(self, t: int) -> None:
        rows = self._rows_of[t]
        if rows is None:
            return
        first, last = self._bounds[t], self._bounds[t + 1]
        for name, state in self.states.items():
            now = state[t]
            now.take(rows, 0, self._kept[name][first:last], "clip")
            now[rows] = 0

    def hide_all(self, name: str) -> None:
        self._kept[name][...] = self.states[name][self.steps, self.rows]
        self.states[name][self.steps, self.rows] = 0

    def show(self, *names: str) -> None:
        for name in names:
            self.states[name][self.steps, self.rows] = self._kept[name]

    def cut(self, t: int, gradients: Iterable[Array]) -> None:
        rows = self._rows_of[t]
        if rows is not None:
            for gradient in gradients:
                gradient[rows] = 0

    def take_at(self, into: Array, source: Array) -> None:
        into[self.steps, self.rows] = source[self.steps, self.rows]

    def window(self, start: int, stop: int, states: dict[str, Array]) -> NoStarts:
        first, last = np.searchsorted(self.steps, (start, stop))
        if first == last:
            return NO_STARTS
        return Starts(self.steps[first:last] - start, self.rows[first:last], stop - start, states)


NO_STARTS = NoStarts()
"""Of a tape whose rows are one sequence each."""


def starts_of(where: Array, states: dict[str, Array]) -> NoStarts:
    """Return the starts of a tape.

    Parameters
    ----------
    where : bool array (T, B)
    states : dict of str to array (T + 1, B, H)
        Of the tape.
    """
    steps, rows = np.nonzero(where)
    return Starts(steps, rows, len(where), states) if len(steps) else NO_STARTS
