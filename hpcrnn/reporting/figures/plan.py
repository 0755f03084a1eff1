"""Which figures there are, and which of them a report draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hpcrnn.reporting.analysis.scaling import (
    Analysis,
    phase_names,
)
from hpcrnn.reporting.figures.accounting import plan_accounts
from hpcrnn.reporting.figures.canvas import (
    Drawing,
    Sheet,
    pages,
)
from hpcrnn.reporting.figures.certificates import plan_certificates
from hpcrnn.reporting.figures.curves import (
    CURVES_A_FIGURE,
    draw_loss,
    draw_strong_efficiency,
    draw_strong_speedup,
    draw_strong_time,
    draw_weak_efficiency,
    draw_weak_time,
)
from hpcrnn.reporting.figures.learning import plan_learning
from hpcrnn.reporting.figures.onsets import plan_onsets
from hpcrnn.reporting.figures.ranks import plan_ranks
from hpcrnn.reporting.figures.roofline import plan_rooflines
from hpcrnn.reporting.figures.rows import ROWS_A_FIGURE, draw_phases, draw_steps
from hpcrnn.reporting.figures.strategies import plan_contests
from hpcrnn.reporting.figures.strategy_map import plan_maps
from hpcrnn.reporting.figures.timelines import draw_timeline
from hpcrnn.reporting.figures.unequal_work import plan_unequal_work

MOST_FIGURES = 40
"""A report of more is not read, and takes minutes to draw."""


def draw_all(analysis: Analysis) -> Iterator[Drawing]:
    """Draw every figure there are numbers for, one at a time; to be used under ``drawing_style()``."""
    return (sheet.draw() for sheet in plan_all(analysis))


def choose(sheets: Iterable[Sheet], of_a_kind: int | None) -> tuple[list[Sheet], dict[str, int]]:
    """Choose what a report draws: the first figures of each kind.

    Parameters
    ----------
    sheets : iterable of Sheet
    of_a_kind : int or None
        The most of a kind; None for all where they are :data:`MOST_FIGURES` or fewer, else one.

    Returns
    -------
    (list of Sheet, dict of str to int)
        What is drawn, and how many there are of each kind of which some are left out.
    """
    kinds: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        kinds.setdefault(sheet.kind, []).append(sheet)
    if of_a_kind is None:
        of_a_kind = MOST_FIGURES if sum(map(len, kinds.values())) <= MOST_FIGURES else 1
    chosen = [sheet for members in kinds.values() for sheet in members[:of_a_kind]]
    return chosen, {kind: len(members) for kind, members in kinds.items() if len(members) > of_a_kind}


def plan_all(analysis: Analysis) -> Iterator[Sheet]:
    """Plan every figure there are numbers for; nothing is drawn yet."""
    yield from pages(analysis.strong, CURVES_A_FIGURE, "strong_time", draw_strong_time)
    based = [s for s in analysis.strong if any(p.speedup for p in s.points)]
    yield from pages(based, CURVES_A_FIGURE, "strong_speedup", draw_strong_speedup)
    yield from pages(based, CURVES_A_FIGURE, "strong_efficiency", draw_strong_efficiency)
    yield from pages(analysis.weak, CURVES_A_FIGURE, "weak_time", draw_weak_time)
    based = [s for s in analysis.weak if any(p.efficiency for p in s.points)]
    yield from pages(based, CURVES_A_FIGURE, "weak_efficiency", draw_weak_efficiency)
    yield from plan_accounts(analysis.included)
    yield from plan_unequal_work(analysis.included)
    yield from plan_contests(analysis)
    yield from plan_maps(analysis)
    yield from plan_certificates(analysis.included)
    yield from pages(analysis.included, ROWS_A_FIGURE, "steps", draw_steps)
    yield from plan_ranks(analysis.included)
    yield from plan_onsets(analysis.included)
    phases = [b for b in analysis.phases if b.seconds]
    names = phase_names(phases)
    yield from pages(phases, ROWS_A_FIGURE, "phases", lambda name, rows: draw_phases(name, rows, names))
    yield from plan_rooflines(analysis.included)
    traced = [e for e in analysis.included if e.case.timeline is not None and len(e.case.timeline)]
    traced = [e for e in traced if e.case.n_ranks > 1] or traced  # alone, a rank waits for nobody
    yield from pages(traced, 1, "timeline", lambda name, one: draw_timeline(name, one[0]))
    yield from plan_learning(analysis.included)
    for unit in {curve.unit: None for curve in analysis.losses}:
        curves = [c for c in analysis.losses if c.unit == unit]
        # Curves of one problem ought to lie on one another: they belong on one sheet.
        yield from pages(
            curves,
            CURVES_A_FIGURE,
            "loss_nats" if unit else "loss",
            draw_loss,
            lambda c: c.entry.case.problem_id,
        )
