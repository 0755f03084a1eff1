"""Where sequences start inside the rows of a tape: the state before such a step is another sequence's.

The step must start from zeros, while the state itself stays what it is: it is the output of the step before.  So the
rows are *hidden* for the time of the step: set aside, replaced by zeros, and put back afterwards.  What reads the
state that enters a step, forward or backward, in a product or pointwise, then reads zeros, exactly, and no cell has
other arithmetic for it.  Going back, what flows into the state before is *cut* there: nothing of one sequence reaches
another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        """Let step ``t`` start from zeros where a sequence starts."""

    def show(self, t: int) -> None:
        """Put back what was hidden for step ``t``."""

    def cut(self, t: int, gradients: Iterable[Array]) -> None:
        """Let no gradient (B, H) flow from step ``t`` to the state before, where a sequence starts."""

    def hide_all(self) -> None:
        """Hide the states of all steps, for work that takes them together."""

    def show_all(self) -> None:
        """Put them back."""

    def take_at(self, into: Array, source: Array) -> None:
        """Copy ``source`` (T, B, H) to ``into`` at the steps and rows where sequences start."""

    def window(self, start: int, stop: int, states: Mapping[str, Array]) -> NoStarts:  # noqa: ARG002
        """Return the starts in the steps ``start:stop``, over views of the states."""
        return self


@dataclass(frozen=True)
class Starts(NoStarts):
    """Starts of a tape.

    Attributes
    ----------
    steps, rows : int array (n,)
        Each start's, ordered by step.
    n_steps : int
        T of the tape.
    states : tuple of array (T + 1, B, H)
        What enters the steps.
    """

    steps: Array
    rows: Array
    n_steps: int
    states: tuple[Array, ...]
    _rows_of: list[Array | None] = field(default_factory=list)
    _kept: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        bounds = np.searchsorted(self.steps, np.arange(self.n_steps + 1)).tolist()
        self._rows_of.extend(self.rows[first:last] if first < last else None for first, last in pairwise(bounds))

    def by_step(self, n_steps: int) -> Sequence[Array | None]:  # noqa: ARG002 - those of the tape
        return self._rows_of

    def hide(self, t: int) -> None:
        rows = self._rows_of[t]
        if rows is not None:
            self._kept[:] = [state[t][rows] for state in self.states]
            for state in self.states:
                state[t][rows] = 0

    def show(self, t: int) -> None:
        rows = self._rows_of[t]
        if rows is not None:
            for state, kept in zip(self.states, self._kept, strict=True):
                state[t][rows] = kept

    def cut(self, t: int, gradients: Iterable[Array]) -> None:
        rows = self._rows_of[t]
        if rows is not None:
            for gradient in gradients:
                gradient[rows] = 0

    def hide_all(self) -> None:
        self._kept[:] = [state[self.steps, self.rows] for state in self.states]
        for state in self.states:
            state[self.steps, self.rows] = 0

    def show_all(self) -> None:
        for state, kept in zip(self.states, self._kept, strict=True):
            state[self.steps, self.rows] = kept

    def take_at(self, into: Array, source: Array) -> None:
        into[self.steps, self.rows] = source[self.steps, self.rows]

    def window(self, start: int, stop: int, states: Mapping[str, Array]) -> NoStarts:
        first, last = np.searchsorted(self.steps, (start, stop))
        if first == last:
            return NO_STARTS
        return Starts(self.steps[first:last] - start, self.rows[first:last], stop - start, tuple(states.values()))


NO_STARTS = NoStarts()
"""Of a tape whose rows are one sequence each."""


def starts_of(where: Array, states: Mapping[str, Array]) -> NoStarts:
    """Return the starts of a tape.

    Parameters
    ----------
    where : bool array (T, B)
    states : mapping of str to array (T + 1, B, H)
        Of the tape.
    """
    steps, rows = np.nonzero(where)
    return Starts(steps, rows, len(where), tuple(states.values())) if len(steps) else NO_STARTS
