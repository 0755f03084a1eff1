"""Figures of learning: how losses on held-out data came down, and how old gradients were."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import Band, band, goals
from hpcrnn.reporting.figures.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Drawing,
    Sheet,
    log_ticks,
    new_axes,
    number,
    pages,
    set_ticks,
)
from hpcrnn.reporting.figures.goals import CURVES_A_FIGURE, Part, apart, looks_of, parts_of
from hpcrnn.reporting.figures.panels import finish_panels, new_panels
from hpcrnn.reporting.figures.rows import ROWS_A_FIGURE, entry_labels, finish_rows, row_axis, value_axis, wrapped
from hpcrnn.reporting.figures.target_time import DECADE, draw_target_steps, draw_target_times
from hpcrnn.reporting.tables.learning import (
    age_names,
    endings_text,
    loss_text,
    reached_text,
    staleness_shares,
    time_text,
)
from hpcrnn.reporting.units import BYTES, choose_unit, format_percent, printable, seconds_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AGE_STYLES = (
    (BLUE, ""),
    (SKY, "////"),
    (GREEN, ""),
    (YELLOW, "...."),
    (ORANGE, ""),
    (VERMILLION, "\\\\\\\\"),
    (PURPLE, ""),
    (PALE, "xxxx"),
)
"""Colour and hatch of gradients that were 0, 1, 2, ... updates old."""


STEEP = 0.4
"""Where less than this part of the way down is left after the first evaluation, the frame begins there."""


def plan_learning(included: Sequence[Entry]) -> Iterator[Sheet]:
    """Plan the figures of all cases that were trained to a target; those of one goal share sheets."""
    found = goals(included)
    yield from pages(
        parts_of(found, ROWS_A_FIGURE), 1, "target_time", lambda name, one: draw_target_times(name, one[0])
    )
    few = parts_of(found, CURVES_A_FIGURE, with_base=True)
    yield from pages(few, 1, "target_steps", lambda name, one: draw_target_steps(name, one[0]))
    yield from pages(few, 1, "learning", lambda name, one: draw_learning(name, one[0]))
    stale = [e for e in included if staleness_shares(e.case)]
    yield from pages(stale, ROWS_A_FIGURE, "staleness", draw_staleness, lambda e: e.case.problem_id)


def draw_learning(name: str, part: Part) -> Drawing:
    """Draw the held-out loss against time, steps and bytes, side by side."""
    outcomes = [one.outcome for one in part.ranked]
    bands = {column: [band(o.learning, column) for o in outcomes] for column in ("time_s", "step", "sent_bytes")}
    shown = [column for column, of_cases in bands.items() if any(of_cases)] or ["step"]
    figure, grid = new_panels(1, len(shown))
    labels = entry_labels(part.entries)
    drawn = [b for column in shown for b in bands[column] if b]
    low = min([part.goal.target_loss, *(float(b.low.min()) for b in drawn)])
    high = max([part.goal.target_loss, *(float(b.high.max()) for b in drawn)])
    # Most of the way down is often one evaluation long, and what methods differ in lies below.
    seconds = [float(c.held_out_loss[1]) for o in outcomes for c in o.learning.curves if len(c.held_out_loss) > 1]
    first = max([part.goal.target_loss, *filter(math.isfinite, seconds)])
    cut = 0 < first - low < STEEP * (high - low)
    untrained, high = high, first + 0.25 * (first - low) if cut else high
    for column, ax in zip(shown, grid[0], strict=True):
        _draw_bands(ax, column, bands[column], labels, part)
        _loss_axis(ax, low, high, named=ax is grid[0][0])
        ax.axhline(
            part.goal.target_loss, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1.5,
            label=f"target: {loss_text(part.goal.target_loss, part.goal.unit)}",
        )  # fmt: skip
        ax.grid(axis="y")
    unit = f" [{printable(part.goal.unit)}]" if part.goal.unit else ""
    grid[0][0].set_ylabel(f"loss on held-out data{unit}")
    title = "Held-out loss: against time, steps and bytes"
    finish_panels(figure, grid, title, part.problem, heights_in=[2.7])
    caption = (
        "Lowest loss on held-out data so far, straight between evaluations: median of the seeds, and a band from the "
        "lowest to the highest of them. A seed that reached the target stays there, so that the median is of all seeds "
        "at every point; where it reaches the target the line ends in a full marker. A line and band that end where a "
        "seed was stopped without it end in a hollow one. Time is that of training, without evaluations."
    )
    if cut:
        caption += f" Untrained models, at up to {loss_text(untrained, part.goal.unit)}, lie above the frame."
    if "sent_bytes" in shown and not all(bands["sent_bytes"]):
        caption += " What sends nothing is not drawn against bytes."
    alt = "Loss on held-out data against seconds, steps and bytes sent. " + " ".join(
        f"{label}: {reached_text(o)} reached the target, {endings_text(o.learning)}; time {time_text(o)}."
        for label, o in zip(labels, outcomes, strict=True)
    )
    return Drawing(name, "loss", title, caption, alt, figure, wide=True)


def _loss_axis(ax: Axes, low: float, high: float, *, named: bool) -> None:
    """Make the y axis of a panel hold these losses, with numbers on the first panel alone."""
    from matplotlib.ticker import MaxNLocator

    room = 0.06 * (high - low or 1.0)
    ax.set_ylim(low - room, high + room)
    ticks = [t for t in MaxNLocator(6).tick_values(low, high) if low - room <= t <= high + room]
    set_ticks(ax.yaxis, ticks, [number(tick) for tick in ticks] if named else [""] * len(ticks))


def _draw_bands(ax: Axes, column: str, bands: Sequence[Band | None], labels: Sequence[str], part: Part) -> None:
    """Draw one panel; every case is in its legend, whether it is in the panel or not."""
    unit, name = _unit_of(column, [float(b.x[-1]) for b in bands if b])
    ends = [float(b.x[-1]) / unit for b in bands if b]
    log = bool(ends) and max(ends) > DECADE * min(ends)
    first = min((float(b.x[b.x > 0][0]) / unit for b in bands if b), default=0.0)
    for b, label, look in zip(bands, labels, looks_of(part.entries), strict=True):
        ax.plot([], [], label=label, color=look.color, marker=look.marker, linestyle=look.dashes, linewidth=1.4)
        if b is None:
            continue
        x, there = b.x / unit, b.x > 0 if log else b.x >= 0  # a logarithm begins at the first evaluation
        if b.n > 1:
            ax.fill_between(x[there], b.low[there], b.high[there], color=look.color, alpha=0.15, linewidth=0)
        known = np.flatnonzero(there & ~np.isnan(b.middle))
        ax.plot(x[known], b.middle[known], color=look.color, linestyle=look.dashes, linewidth=1.4, zorder=2.5)
        ax.plot(
            x[known[-1:]], b.middle[known[-1:]], marker=look.marker, color=look.color, linestyle="none", zorder=3,
            markerfacecolor=look.color if b.reached else "white", markersize=6, clip_on=False,
        )  # fmt: skip
    if log:
        ax.set_xscale("log")
        ax.set_xlim(first / 1.1, max(ends) * 1.15)
        ticks = apart(log_ticks(first / 1.1, max(ends)), first, max(ends))
    else:
        ticks = value_axis(ax, 0.0, max(ends, default=1.0), log=False, n_ticks=4)
    set_ticks(ax.xaxis, ticks, [number(tick) for tick in ticks])
    ax.set_xlabel(name)


def _unit_of(column: str, ends: Sequence[float]) -> tuple[float, str]:
    """Return the unit of a panel's x axis, in SI, and its name."""
    if column == "step":
        return 1.0, "optimizer steps"
    if column == "time_s":
        unit = seconds_unit(ends)
        return unit.factor, f"time of training [{unit.name}]"
    unit = choose_unit(max(ends, default=0.0), BYTES)
    return unit.factor, f"sent by all ranks [{unit.name}]"


def draw_staleness(name: str, entries: Sequence[Entry]) -> Drawing:
    """Draw how old gradients were when the server applied them: a bar of 100 % a case."""
    figure, ax = new_axes()
    shares = [staleness_shares(e.case) for e in entries]
    most = max(map(len, shares))
    table = np.array([[*one, *[0.0] * (most - len(one))] for one in shares]) * 100
    lefts = np.zeros(len(entries))
    for age, (color, hatch) in zip(range(most), AGE_STYLES, strict=False):
        ax.barh(
            range(len(entries)), table[:, age], left=lefts, height=0.62, color=color, hatch=hatch, edgecolor="white",
            linewidth=0.6, label=f"{age_names(most)[age]} updates old" if age != 1 else "1 update old",
        )  # fmt: skip
        lefts += table[:, age]
    right = [f"{format_percent(one[0])} up to date" for one in shares]
    row_axis(ax, wrapped(entry_labels(entries)), right)
    ticks = value_axis(ax, 0.0, 100.0, log=False, n_ticks=2)
    set_ticks(ax.xaxis, ticks, [f"{number(tick)} %" for tick in ticks])
    ax.set_xlabel("share of the gradients that were applied")
    title = "How old gradients were"
    caption = (
        "Updates that others made between a worker's read of the parameters and the use of its gradient; all seeds. "
        "The older they are, the more steps it may take to the target."
    )
    alt = "Bars of 100 % a case, by how many updates old gradients were. " + " ".join(
        f"{label}: {', '.join(f'{age} {format_percent(s)}' for age, s in zip(age_names(len(one)), one, strict=True))}."
        for label, one in zip(entry_labels(entries), shares, strict=True)
    )
    finish_rows(figure, ax, title, entries)
    return Drawing(name, "loss", title, caption, alt, figure)
