"""What figures of learning have in common: which cases share a sheet, how each is drawn, ticks that do not touch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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


def parts_of(found: Sequence[Goal], most: int, *, with_base: bool = False) -> list[Part]:
    """Cut goals into parts of at most so many cases, as even as can be, the fastest first."""
    return [part for goal in found for part in _parts_of_goal(goal, most, with_base=with_base)]


def _parts_of_goal(goal: Goal, most: int, *, with_base: bool) -> Iterator[Part]:
    numbers = {one.base.entry.number for one in goal.ranked[:1] if one.base} if with_base else set()
    bases = tuple(one for one in goal.ranked if one.entry.number in numbers)
    others = [one for one in goal.ranked if one.entry.number not in numbers]
    n_parts = max(1, math.ceil(len(others) / (most - len(bases))))
    for k in range(n_parts):
        yield Part(goal, (*bases, *others[len(others) * k // n_parts : len(others) * (k + 1) // n_parts]))


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
