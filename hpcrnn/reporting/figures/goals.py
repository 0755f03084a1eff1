"""What figures of learning have in common: which cases share a sheet, how each is drawn, ticks that do not touch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import Goal, Ranked
from hpcrnn.reporting.describe import common_problem
from hpcrnn.reporting.figures.canvas import SERIES_STYLES

CURVES_A_FIGURE = len(SERIES_STYLES)
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
"""Of the rank counts of a figure, fewest first; further ones begin again."""


@dataclass(frozen=True)
class Part:
    """Cases of a goal that share a sheet."""

    goal: Goal
    ranked: tuple[Ranked, ...]

    @property
    def entries(self) -> list[Entry]:
        return [one.entry for one in self.ranked]

    @property
    def problem(self) -> str:
        """What all cases have in common."""
        return common_problem([entry.case for entry in self.entries])


def parts_of(found: Sequence[Goal], most: int, *, by_number: bool = False) -> list[Part]:
    """Cut goals into parts of at most so many cases, as even as can be, the fastest first or by their numbers."""
    parts = []
    for goal in found:
        ranked = sorted(goal.ranked, key=lambda one: one.entry.number) if by_number else goal.ranked
        n_parts = math.ceil(len(ranked) / most)
        parts += [
            Part(goal, tuple(ranked[len(ranked) * k // n_parts : len(ranked) * (k + 1) // n_parts]))
            for k in range(n_parts)
        ]
    return parts


class Look(NamedTuple):
    """How a case is drawn: colour and marker tell methods apart, dashes and the size of the marker ranks."""

    color: str
    marker: str
    dashes: Any
    size: float


def looks_of(entries: Sequence[Entry]) -> list[Look]:
    """Return how each case is drawn; where cases of a method agree in ranks too, each has a colour of its own."""
    ways = [(e.case.split.series_name, e.case.backend, e.case.how["parallel"].get("data_method")) for e in entries]
    ranks = [e.case.n_ranks for e in entries]
    told_apart = len(set(zip(ways, ranks, strict=True))) == len(entries)
    keys: list[Any] = ways if told_apart else list(range(len(entries)))
    order, counts = list(dict.fromkeys(keys)), sorted(set(ranks))
    return [
        Look(*SERIES_STYLES[order.index(key)][:2], DASHES[counts.index(n) % len(DASHES)], 5.0 + 1.2 * counts.index(n))
        for key, n in zip(keys, ranks, strict=True)
    ]


def apart(ticks: Sequence[float], low: float, high: float, most: int = 5) -> list[float]:
    """Leave out ticks of a logarithmic axis that stand so close that their numbers would touch."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) >= math.log(high / low) / most:
            kept.append(tick)
    return kept
