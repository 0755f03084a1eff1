"""Learning curves, and what they came to, for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from hpcrnn.records.learning import COLUMNS, COUNTED, Curve
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import Needed, Outcome, Ranked, outcome_of
from hpcrnn.reporting.analysis.standing import finite
from hpcrnn.reporting.units import printable

Cell = str | int | float | bool | None


def curve_rows(entry: Entry) -> Iterator[dict[str, Cell]]:
    """Make a row of every evaluation of a case, seed by seed; none of a case that was not trained to a target."""
    learning = entry.case.learning
    for curve in learning.curves if learning else ():
        for k in range(len(curve.step)):
            yield {
                "target_loss": learning.target_loss if learning else None,
                "loss_unit": printable(learning.unit) if learning else None,
                "seed": curve.seed,
                "ending": curve.ending,
                "evaluation": k,
                **{name: _value(curve, name, k) for name in COLUMNS},
            }


def _value(curve: Curve, name: str, k: int) -> Cell:
    value = getattr(curve, name)[k]
    return int(value) if name in COUNTED else finite(value)


def learning_plain(entry: Entry, ranked: Ranked | None) -> dict[str, Any] | None:
    """Return what a case learned as plain values; None of a case that was not trained to a target.

    Parameters
    ----------
    entry : Entry
    ranked : Ranked, optional
        The case beside the base of its goal.
    """
    learning = entry.case.learning
    if learning is None:
        return None
    outcome = outcome_of(entry)
    return {
        "target_loss": learning.target_loss,
        "unit": learning.unit,
        "held_out": learning.held_out,
        "n_reached": learning.n_reached,
        "to_target": _to_target(outcome) if outcome else None,
        "base": _beside(ranked) if ranked and ranked.base else None,
        "restarts": learning.restarts,
        "curves": [
            {"seed": c.seed, "ending": c.ending, **{name: getattr(c, name) for name in COLUMNS}}
            for c in learning.curves
        ],
    }


def _to_target(outcome: Outcome) -> dict[str, Any]:
    columns = {"time_s": outcome.time, "steps": outcome.steps, "sent_bytes": outcome.sent, "energy_j": outcome.energy}
    return {name: _needed(needed) for name, needed in columns.items()} | {
        "step_s": dataclasses.asdict(outcome.step_s),
    }


def _needed(needed: Needed) -> dict[str, Any]:
    return dataclasses.asdict(needed.interval) | {"median_at_least": needed.median_at_least}


def _beside(ranked: Ranked) -> dict[str, Any]:
    return {
        "number": ranked.base.entry.number if ranked.base else None,
        "finding": ranked.finding,
        "speedup": dataclasses.asdict(ranked.speedup),
        "by_steps": ranked.by_steps,
        "by_step_time": ranked.by_step_time,
    }
