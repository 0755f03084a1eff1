"""A solve: one layer's pass over all segments, and rounds until every segment starts where its neighbour ended.

::

    round 1    all segments run from guesses            S steps
    round 2    ends go to the neighbours; where a start moved, the segment is re-run until it meets: m steps
    ...        until no start moves, which all ranks find together

In round k the first k segments start from what is final, so after as many rounds as there are segments it *is* the
chain. A solve in which nothing meets any more becomes the chain at once: of each rank the first segment that moved is
re-run alone, instead of all of them again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcrnn.cells.base import Array
from hpcrnn.errors import NumericsError
from hpcrnn.methods.codec import Codec, make_codec
from hpcrnn.methods.line import Line
from hpcrnn.methods.passes import Pass, Rows
from hpcrnn.methods.transfers import DenseTransfer, DiagonalTransfer, Transfer
from hpcrnn.records.certificate import SETTLED
from hpcrnn.recurrence import CORRECTED, least_tolerance
from hpcrnn.spec import RecurrenceSpec

_STALLED = 0.5
"""A round in which nothing met and the largest gap is still more than this share of what it was is slow."""

_SLOW_ROUNDS = 2
"""So many slow rounds in a row, and the solve has stalled; a first prediction may well overshoot."""


_LOSSLESS = make_codec("none")


@dataclass(frozen=True)
class Solve:
    """What a rank saw of a solve.

    Attributes
    ----------
    steps : tuple of int
        Time steps of each round on this rank, one after another; a warm-up belongs to the first.
    row_steps : int
        Time steps times rows.
    meeting : int array (V, B)
        See :class:`~hpcrnn.records.certificate.Certificate`.
    residual : float
        Over all ranks.
    converged, truncated : bool
        Over all ranks; over this rank.
    """

    steps: tuple[int, ...]
    row_steps: int
    meeting: npt.NDArray[np.int64]
    residual: float
    converged: bool
    truncated: bool


def shifted(own: Array, edge: Array | None, line: Line, codec: Codec, *, leftward: bool) -> Array:
    """Give every row what the row of the segment before it (after it, leftward) hands on.

    Parameters
    ----------
    own : array (n, V, B, H)
    edge : array (n, B, H) or None
        What the sequence begins (ends) with; needed on the first (last) rank.
    line : Line
    codec : Codec
        Of what crosses ranks.
    leftward : bool

    Returns
    -------
    array (n, V, B, H)
    """
    arriving = np.empty_like(own)
    here, there = (slice(None, -1), slice(1, None)) if leftward else (slice(1, None), slice(None, -1))
    arriving[:, here] = own[:, there]
    inlet = arriving[:, -1 if leftward else 0]
    if line.size > 1:
        wire = codec.encode(own[:, 0 if leftward else -1])
        codec.decode(line.pass_left(wire) if leftward else line.pass_right(wire), inlet)
    if line.rank == (line.size - 1 if leftward else 0):
        inlet[...] = edge
    return arriving


def tolerance_of(settings: RecurrenceSpec, dtype: npt.DTypeLike) -> float:
    """Return the difference at which trajectories have met; of what is exact, what rounding leaves."""
    return least_tolerance(np.dtype(dtype).name) if settings.method == "scan" else settings.tolerance


class Solver:
    """Solves layers by one method.

    Parameters
    ----------
    settings : RecurrenceSpec
    line : Line
    codec : Codec
    tolerance : float
        See :func:`tolerance_of`.
    """

    def __init__(self, settings: RecurrenceSpec, line: Line, codec: Codec, tolerance: float) -> None:
        self._s, self._line, self._codec, self._tolerance = settings, line, codec, tolerance

    def solve(self, sweep: Pass, edge: Array) -> Solve:
        """Run a pass to the end.

        Parameters
        ----------
        sweep : Pass
        edge : array (n, B, H)
            The sequence's initial states, or the gradients of its final ones; used on the rank that has that end.

        Raises
        ------
        NumericsError
            A state is not finite; on all ranks.
        """
        folding = sweep.folding
        steps = self._begin(sweep, edge)
        sweep.run()
        lonely = sweep.lonely()
        rounds, row_steps = [steps + folding.longest], (steps + folding.longest) * folding.rows
        meeting = np.full(folding.rows, SETTLED, dtype=np.int64)
        before, slow, truncated, some_met = np.inf, 0, False, True
        while True:
            arriving = self._arriving(sweep, edge)
            gaps = arriving - sweep.received
            far = sweep.size(gaps)
            worst, any_met = self._agreed(sweep, float(far.max()), float(some_met))
            over = self._s.max_rounds is not None and len(rounds) >= self._s.max_rounds
            if worst <= self._tolerance or over or self._s.method not in CORRECTED:
                break
            if slow < _SLOW_ROUNDS:
                slow = slow + 1 if worst > _STALLED * before and not any_met else 0
            stalled = slow == _SLOW_ROUNDS
            before = worst
            dirty, halos = self._starts(sweep, arriving, gaps, far, stalled=stalled)
            rounds.append(0)
            some_met = False
            if len(dirty):
                rerun = sweep.rerun(dirty, halos)
                rounds[-1], row_steps = rerun.steps, row_steps + rerun.row_steps
                meeting[dirty] = rerun.met
                some_met = bool((rerun.met > 0).any())
                truncated |= bool((lonely[dirty] & (rerun.met > 0)).any())
        truncated |= bool((lonely & (far > 0) & (meeting == SETTLED)).any())  # too small to be handed over
        met = worst <= self._tolerance
        if self._codec.name != "none":  # what the segments started from is not what was sent
            sent = self._arriving(sweep, edge, _LOSSLESS)
            worst, _ = self._agreed(sweep, float(sweep.size(sent - sweep.received).max()), 0.0)
        return Solve(
            tuple(rounds), row_steps, meeting.reshape(folding.segments, folding.samples), worst, met, truncated
        )

    def _begin(self, sweep: Pass, edge: Array) -> int:
        """Set what the segments start from; return the steps that took."""
        sweep.received.fill(0)
        steps = 0
        if self._s.method == "tbptt_stale" and not sweep.leftward:
            sweep.received[...] = self._arriving(sweep, edge)  # of the step before: nothing has run yet
        elif self._warms_up(sweep):
            folding = sweep.folding
            steps = min(self._s.burn_in, folding.common)
            # Forward, a longer segment is warmed up for the one step more that it has.
            sweep.run(slice(0, steps) if sweep.leftward else slice(folding.common - steps, folding.longest))
            steps += 0 if sweep.leftward else folding.longest - folding.common
            sweep.received[...] = self._arriving(sweep, edge)
        if self._line.rank == (self._line.size - 1 if sweep.leftward else 0):
            samples = sweep.folding.samples
            sweep.received[:, -samples if sweep.leftward else 0 :][:, :samples] = edge
        return steps

    def _warms_up(self, sweep: Pass) -> bool:
        # Burnt-in states carry no gradient; an overlap is of both directions.
        return self._s.burn_in > 0 and not (sweep.leftward and self._s.method == "burnin")

    def _arriving(self, sweep: Pass, edge: Array, codec: Codec | None = None) -> Array:
        folding = sweep.folding
        own = sweep.handed.reshape(len(edge), folding.segments, folding.samples, -1)
        arriving = shifted(own, edge, self._line, codec or self._codec, leftward=sweep.leftward)
        return arriving.reshape(sweep.handed.shape)

    def _agreed(self, sweep: Pass, worst: float, flag: float) -> tuple[float, float]:
        """The largest gap of all ranks, and the largest of another number: what all decide by must be the same."""
        # What the last segment hands on is looked at too: the others' is in the gaps, here or on the next rank.
        samples = sweep.folding.samples
        outlet = sweep.handed[:, :samples] if sweep.leftward else sweep.handed[:, -samples:]
        finite = np.isfinite(outlet).all() and np.isfinite(worst)
        agreed, flag = self._line.largest(np.array([worst if finite else np.nan, flag])).tolist()
        if not np.isfinite(agreed):
            what = "a gradient of a state" if sweep.leftward else "a state"
            raise NumericsError(
                f"{what} is not finite after the {sweep.direction} pass of method {self._s.method}; "
                "a smaller training.lr or a training.clip usually helps"
            )
        return agreed, flag

    def _starts(
        self, sweep: Pass, arriving: Array, gaps: Array, far: npt.NDArray[np.float64], *, stalled: bool
    ) -> tuple[Rows, Array]:
        """Choose the rows that are to be run again, and the halos (n, k, H) they are to start from."""
        is_off = far > self._tolerance
        if stalled or self._s.method not in _TRANSFERS:  # what arrives, as it is
            dirty = np.flatnonzero(is_off)
            if stalled:
                dirty = _first_of_each_sample(dirty, sweep.folding.samples, leftward=sweep.leftward)
            return dirty, _taken(arriving, dirty)
        # What is settled predicts nothing: the first segment that is not starts from what arrives, and is final.
        deltas = self._corrections(sweep, gaps * is_off[:, np.newaxis])
        dirty = np.flatnonzero(np.maximum(far, sweep.size(deltas)) > self._tolerance)
        # In this order a correction that predicts nothing is what arrives, to the last bit.
        return dirty, _taken(arriving, dirty) + (_taken(deltas, dirty) - _taken(gaps, dirty))

    def _corrections(self, sweep: Pass, gaps: Array) -> Array:
        folding, transfer = sweep.folding, _TRANSFERS[self._s.method](sweep)
        by_segment = gaps.reshape(len(gaps), folding.segments, folding.samples, -1)
        return transfer.corrections(by_segment, self._line, leftward=sweep.leftward).reshape(gaps.shape)


def _taken(halos: Array, rows: Rows) -> Array:
    """Rows of (n, R, H): a view where they follow one another, as nearly always."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return halos[:, rows[0] : rows[-1] + 1]
    return halos[:, rows]


def _first_of_each_sample(dirty: npt.NDArray[np.intp], samples: int, *, leftward: bool) -> npt.NDArray[np.intp]:
    """Of the rows of each sample the one whose segment comes first in the order of the pass."""
    ordered = dirty[::-1] if leftward else dirty
    _, first = np.unique(ordered % samples, return_index=True)
    return np.sort(ordered[first])


def _gate_products(sweep: Pass) -> Transfer:
    """Multiply what each step keeps, over each segment."""
    products, cell = sweep.gate_products(), sweep.cell
    shape = (sweep.folding.segments, sweep.folding.samples, -1)
    names = cell.state_names
    return DiagonalTransfer(
        names.index(cell.memory),
        products.kept.reshape(shape),
        {names.index(name): a.reshape(shape) for name, a in products.exposures.items()},
    )


def _jacobians(sweep: Pass) -> Transfer:
    return DenseTransfer(sweep.jacobians())


_TRANSFERS: dict[str, Callable[[Pass], Transfer]] = {
    "gateprod": _gate_products,
    "scan": _gate_products,
    "deer": _jacobians,
}
