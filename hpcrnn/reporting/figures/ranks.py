"""Figures with one row a rank: what each is busy and what each waits, and who makes the others wait.

A rank is a category: rows are never joined by lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.records.bubble import busy_s
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.spread import Band, Spread, rank_spread, rows_of_ranks
from hpcrnn.reporting.analysis.stragglers import Judgement, judge_all
from hpcrnn.reporting.describe import common_problem
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILLION,
    WIDTH_IN,
    Drawing,
    Sheet,
    finish,
    new_axes,
    number,
    once,
    set_ticks,
    widest_text_in,
)
from hpcrnn.reporting.figures.rows import entry_labels, row_axis, value_axis
from hpcrnn.reporting.tables.ranks import straggler_sentence
from hpcrnn.reporting.units import format_ratio, format_seconds, has_bounds, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_A_FIGURE = 44
ROW_IN = 0.19
OFFSET = 0.14
"""What is busy lies so far above the middle of a row, what waits below it."""
HEADING_LENGTH = 62


class _Ranked:
    """A case, how its ranks differ, and which of them stand out.

    Parameters
    ----------
    judgement : Judgement
    """

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement
        self._apart = [s.ranks[0] for s in judgement.stragglers if not s.is_host]

    @property
    def n_rows(self) -> int:
        """Rows that it takes, its name with them."""
        return len(rows_of_ranks(self.entry.case.n_ranks, self._apart)) + 1

    @cached_property
    def spread(self) -> Spread:
        """What each rank is busy and waits: to be asked for when it is drawn, for it takes a while."""
        return rank_spread(self.entry.case, self._apart)

    @property
    def entry(self) -> Entry:
        return self.judgement.entry

    @property
    def slow(self) -> dict[int, float]:
        """How many times the others' busy time each rank takes that is slow, or whose host is."""
        return {rank: s.excess.median for s in self.judgement.slow for rank in s.ranks}


def plan_ranks(entries: Sequence[Entry]) -> Iterator[Sheet]:
    """Plan the figures of all cases on several ranks, as many cases on one as there is room for."""
    sheets: list[list[_Ranked]] = []
    room = 0
    for judgement in judge_all(entries):
        if busy_s(judgement.entry.case) is None:
            continue
        ranked = _Ranked(judgement)
        if ranked.n_rows > room:
            sheets.append([])
            room = ROWS_A_FIGURE
        sheets[-1].append(ranked)
        room -= ranked.n_rows
    for index, sheet in enumerate(sheets, 1):
        name = "ranks" if len(sheets) == 1 else f"ranks_{index}"
        yield Sheet("ranks", name, partial(draw_ranks, name, sheet))


def draw_ranks(name: str, ranked: Sequence[_Ranked]) -> Drawing:
    """Draw what the ranks of each case are busy and wait, over the case's median step."""
    figure, ax = new_axes()
    heights, left, right, headings = [], [], [], []
    height = 0
    for one in ranked:
        headings.append(height)
        for busy, waiting in zip(one.spread.busy, one.spread.waiting, strict=True):
            height += 1
            _draw_band(ax, busy, one.entry.step.median, height - OFFSET, BLUE, "o", "busy, median step")
            _draw_band(
                ax, waiting, one.entry.step.median, height + OFFSET, ORANGE, "D", "the rest of its step: waiting"
            )
            heights.append(height)
            left.append(f"rank {busy.first}" if busy.alone else f"ranks {busy.first}–{busy.last}")
            right.append(_right_text(busy, one.slow))
        height += 1
    row_axis(ax, left, right, heights)
    slow = [one.slow.keys() & set(range(band.first, band.last + 1)) for one in ranked for band in one.spread.busy]
    for row_texts, is_slow in zip(zip(ax.get_yticklabels(), ax.texts, strict=True), slow, strict=True):
        for text in row_texts if is_slow else ():
            text.set(color=VERMILLION, fontweight="bold")
    right_in = widest_text_in(ax) + 0.2
    for place, label in zip(headings, entry_labels([one.entry for one in ranked]), strict=True):
        ax.annotate(
            shorten(label, HEADING_LENGTH), (0.12 / WIDTH_IN, place), xycoords=("figure fraction", "data"), ha="left",
            va="center", fontsize=8, fontweight="bold", color="#202124",
        )  # fmt: skip
    highest = max(
        band.high / one.entry.step.median for one in ranked for band in (*one.spread.busy, *one.spread.waiting)
    )
    ticks = value_axis(ax, 0.0, 100 * highest, log=False)
    set_ticks(ax.xaxis, ticks, [f"{number(t)} %" for t in ticks])
    ax.set_xlabel("time of a rank, over the case's median step")
    finish(
        figure, ax, "What each rank is busy and waits", common_problem([one.entry.case for one in ranked]),
        height_in=ROW_IN * max(3, height), right_in=right_in,
    )  # fmt: skip
    return Drawing(name, "ranks", "What each rank is busy and waits", _caption(ranked), _alt(ranked), figure)


def _draw_band(ax: Axes, band: Band, step_s: float, height: float, color: str, marker: str, label: str) -> None:
    """Draw one row's mark: what it ranges over, its interval, its median, its outliers."""
    scale = 100 / step_s
    middle = band.middle
    ends = (band.low * scale, band.high * scale)
    if band.alone:
        ax.plot(
            ends, (height, height), color=GREY, linewidth=0.8, zorder=1,
            label=once(ax, "smallest to largest step"),
        )  # fmt: skip
    else:
        ax.plot(
            ends, (height, height), color=color, linewidth=3.4, alpha=0.35, solid_capstyle="butt", zorder=1,
            label=once(ax, "p10 to p90 of these ranks"),
        )  # fmt: skip
    if has_bounds(middle):
        bounds = (middle.low * scale, middle.high * scale)
        ax.plot(
            bounds, (height, height), color=BLACK, linewidth=2.6, alpha=0.55, solid_capstyle="butt", zorder=2,
            label=once(ax, "95 % interval"),
        )  # fmt: skip
    ax.plot(
        middle.median * scale, height, marker=marker, markersize=4, color=color, linestyle="none",
        markeredgewidth=0, zorder=3, label=once(ax, label),
    )  # fmt: skip
    if band.outliers.size:
        ax.plot(
            band.outliers * scale, np.full(band.outliers.size, height), marker="x", markersize=4, color=VERMILLION,
            markeredgewidth=1.0, linestyle="none", zorder=3, label=once(ax, "an outlier, kept"),
        )  # fmt: skip


def _right_text(busy: Band, slow: dict[int, float]) -> str:
    """Write what a rank is busy, and that it is slow."""
    shown = format_seconds(busy.middle.median)
    ratios = [slow[rank] for rank in range(busy.first, busy.last + 1) if rank in slow]
    return f"{shown}, slow: {format_ratio(max(ratios))}" if ratios else shown


def _caption(ranked: Sequence[_Ranked]) -> str:
    said = [straggler_sentence(s) for one in ranked for s in one.judgement.slow]
    caption = (
        "Busy: forward, backward, weight gradient and update, in seconds on the right; the rest of a rank's step is "
        "mostly waiting for others. A rank that is busy for longer makes the others wait."
    )
    more = f"; {len(said) - 5} more in the table" if len(said) > 5 else ""
    return f"{caption} Stragglers: {'; '.join(said[:5])}{more}." if said else caption


def _alt(ranked: Sequence[_Ranked]) -> str:
    rows = []
    for one, label in zip(ranked, entry_labels([one.entry for one in ranked]), strict=True):
        medians = [band.middle.median for band in one.spread.busy]
        waits = [band.middle.median for band in one.spread.waiting]
        rows.append(
            f"{label}: busy {format_seconds(min(medians))} to {format_seconds(max(medians))}, "
            f"waiting {format_seconds(min(waits))} to {format_seconds(max(waits))}."
        )
    return "One row a rank, busy and waiting time of a step beside one another. " + " ".join(rows)
