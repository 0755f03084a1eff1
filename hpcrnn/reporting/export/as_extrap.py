"""Times over ranks as input of Extra-P, which models how each phase scales (https://github.com/extra-p/extrap).

One file is one experiment: cases that differ in nothing but the ranks, and the batch where that varies for itself.
Read by Extra-P 4 as ``extrap --json FILE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcrnn.errors import FileError, HpcrnnError
from hpcrnn.records.record import STEP, FloatArray
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.scaling import batch_per_rank, groups_over_ranks_and_batch
from hpcrnn.reporting.describe import common_problem
from hpcrnn.reporting.units import plural, printable

SLOWEST, COST = "time", "rank-seconds"
"""Metrics, of each repetition: the slowest rank's seconds in a phase, and the sum over ranks.

Extra-P models what grows.  Of strong scaling the time falls, so that only the second can be modelled.
"""

POINTS_ADVISED = 5
"""Values of each parameter that the documentation of Extra-P asks for."""


@dataclass(frozen=True)
class ExtrapSeries:
    """The cases of one experiment.

    Attributes
    ----------
    entries : tuple of Entry
    parameters : tuple of str
        ``ranks``, and ``batch`` where it varies and does not follow from the ranks.
    notes : tuple of str
        What the file itself does not say; one line each.
    """

    entries: tuple[Entry, ...]
    parameters: tuple[str, ...]
    notes: tuple[str, ...]

    def point(self, entry: Entry) -> tuple[int, ...]:
        """Return where a case lies."""
        values = {"ranks": entry.case.n_ranks, "batch": int(entry.case.spec["problem"]["batch"])}
        return tuple(values[name] for name in self.parameters)


def find_series(entries: Sequence[Entry], number: int | None) -> ExtrapSeries:
    """Find the cases of an experiment.

    Parameters
    ----------
    entries : sequence of Entry
        Excluded ones enter none.
    number : int or None
        Which series, from 1, where there are several.

    Raises
    ------
    HpcrnnError
        There is none, or not the one asked for, or several and none is named.
    """
    groups = groups_over_ranks_and_batch([entry for entry in entries if entry.contends])
    # A point beside others: what was measured at one place scales over nothing.
    groups = tuple(group for group in groups if len({_place(entry) for entry in group}) > 1)
    if not groups:
        raise FileError(
            "no series for Extra-P: it takes cases of one problem, split in one way, on two rank counts or more"
        )
    if number is None and len(groups) > 1:
        problems = [_problem(group) for group in groups]
        alike = len(set(problems)) == 1
        named = [_way(group) + ("" if alike else f", {_problem(group)}") for group in groups]
        listed = "; ".join(f"{k}: {name}" for k, name in enumerate(named, 1))
        of_one = f" of {problems[0]}" if alike else ""
        raise HpcrnnError(
            f"these files hold {len(groups)} series{of_one}, and Extra-P takes one: give --series N ({listed})"
        )
    index = 1 if number is None else number
    if not 1 <= index <= len(groups):
        raise HpcrnnError(f"--series = {index}: allowed is an integer from 1 to {len(groups)}")
    group = groups[index - 1]
    parameters = _parameters(group)
    return ExtrapSeries(group, parameters, tuple(_notes(group, parameters)))


def extrap_input(series: ExtrapSeries) -> dict[str, Any]:
    """Make the input of Extra-P: parameters, and by call path and metric the values measured at each point.

    The step and its phases are call paths beside each other: the phases make up the step, so none of them may be
    added to it. All repetitions of all runs at a point are its values; a phase that a case does not name took none
    of its time.
    """
    phases = list(dict.fromkeys([STEP, *(phase for entry in series.entries for phase in entry.case.phases)]))
    return {
        "parameters": list(series.parameters),
        "measurements": {
            printable(phase): {
                SLOWEST: _measurements(series, phase, slowest=True),
                COST: _measurements(series, phase, slowest=False),
            }
            for phase in phases
        },
    }


def _measurements(series: ExtrapSeries, phase: str, *, slowest: bool) -> list[dict[str, Any]]:
    # Extra-P refuses a point that is there twice.
    values: dict[tuple[int, ...], list[float]] = {}
    for entry in series.entries:
        values.setdefault(series.point(entry), []).extend(_of_repetitions(entry, phase, slowest=slowest).tolist())
    return [{"point": list(point), "values": found} for point, found in sorted(values.items())]


def _of_repetitions(entry: Entry, phase: str, *, slowest: bool) -> FloatArray:
    """Seconds of a phase in each repetition (n,)."""
    case = entry.case
    if phase not in case.phases:
        return 0.0 * case.step_s()
    of_ranks = case.phase_s(phase)
    return np.asarray(of_ranks.max(axis=1) if slowest else of_ranks.sum(axis=1), dtype=np.float64)


def _place(entry: Entry) -> tuple[int, int]:
    return entry.case.n_ranks, int(entry.case.spec["problem"]["batch"])


def _parameters(group: Sequence[Entry]) -> tuple[str, ...]:
    """Name what varies; a batch that follows from the ranks, as in weak scaling, is no parameter of its own."""
    ranks, batches = ({_place(entry)[axis] for entry in group} for axis in (0, 1))
    follows = len({batch_per_rank(entry.case) for entry in group}) == 1
    if len(batches) == 1 or (follows and len(ranks) > 1):
        return ("ranks",)
    return ("ranks", "batch") if len(ranks) > 1 else ("batch",)


def _notes(group: Sequence[Entry], parameters: Sequence[str]) -> list[str]:
    found = [f"{_name(group)}: {plural(len({_place(entry) for entry in group}), 'point')}"]
    axes = {"ranks": 0, "batch": 1}
    few = [name for name in parameters if len({_place(entry)[axes[name]] for entry in group}) < POINTS_ADVISED]
    if few:
        found.append(f"Extra-P asks for {POINTS_ADVISED} values or more of a parameter: {' and '.join(few)} has fewer")
    repeated = len(group) - len({_place(entry) for entry in group})
    if repeated:
        found.append(f"{plural(repeated, 'case')} beside another at the same point: their repetitions lie together")
    return found


def _name(group: Sequence[Entry]) -> str:
    return f"{_way(group)}, {_problem(group)}"


def _way(group: Sequence[Entry]) -> str:
    case = group[-1].case
    ranks = ", ".join(map(str, sorted({entry.case.n_ranks for entry in group})))
    return f"{case.split.series_name} · {printable(case.backend)} on {ranks} ranks"


def _problem(group: Sequence[Entry]) -> str:
    return common_problem([entry.case for entry in group])
