"""Figures of time to a target loss: when each seed got there, and what that time is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.reporting.analysis.learning import Needed, Outcome
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREY,
    VERMILLION,
    Drawing,
    finish,
    log_ticks,
    new_axes,
    number,
    once,
    set_ticks,
)
from hpcrnn.reporting.figures.goals import Part, apart, looks_of
from hpcrnn.reporting.figures.rows import entry_labels, finish_rows, row_axis, value_axis, wrapped
from hpcrnn.reporting.tables.learning import (
    finding_text,
    format_steps,
    loss_text,
    needed_text,
    reached_text,
    time_text,
)
from hpcrnn.reporting.units import MISSING, format_seconds, seconds_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADE = 12.0
"""Times that lie further apart than this need a logarithm."""


def draw_target_times(name: str, part: Part) -> Drawing:
    """Draw a row a case: when each seed reached the target, or how long it ran without."""
    figure, ax = new_axes()
    every = [float(c.time_s[-1]) for one in part.ranked for c in one.outcome.learning.curves]
    unit = seconds_unit([t for t in every if t > 0])
    high = (max(every) or 1.0) / unit.factor
    log = min(every) > 0 and max(every) > DECADE * min(every)
    right = []
    for row, one in enumerate(part.ranked):
        _draw_seeds(ax, one.outcome, row, unit.factor)
        _mark_interval(ax, one.outcome.time, row, unit.factor, high)
        right.append(f"{_short_time(one.outcome)}, {one.outcome.learning.n_reached} of {one.outcome.n_seeds}")
    bases = {one.base.entry.number: one.base for one in part.ranked if one.base}
    for base in bases.values():
        median = base.time.interval.median / unit.factor
        if base.time.median_known and (not log or median > 0):
            ax.axvline(
                median, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1.2,
                label=once(ax, "median of the base" if len(bases) == 1 else "medians of the bases"),
            )  # fmt: skip
    row_axis(ax, wrapped(entry_labels(part.entries)), right)
    low = min(every) / unit.factor if log else 0.0
    ticks = value_axis(ax, low, high * (1.0 if log else 1.04), log=log)
    ticks = apart(ticks, low, high) if log else ticks
    set_ticks(ax.xaxis, ticks, [number(tick) for tick in ticks])
    ax.set_xlabel(f"time of training [{unit.name}]")
    title = "Time to the target loss"
    finish_rows(figure, ax, title, part.entries)
    caption = (
        "A dot a seed, where it reached the target; an arrow stands where a seed was stopped without: it would have "
        "taken longer. The black mark is the median over all seeds, the bar its 95 % interval, which takes 6 of them; "
        "on the right the median, and how many seeds reached it. "
        f"Target: {loss_text(part.goal.target_loss, part.goal.unit)}."
    )
    alt = "One row a case: seconds to the target loss, one dot a seed. " + " ".join(
        f"{label}: {time_text(one.outcome)}, {reached_text(one.outcome)}"
        + (f", {finding_text(one)}." if finding_text(one) != MISSING else ".")
        for label, one in zip(entry_labels(part.entries), part.ranked, strict=True)
    )
    return Drawing(name, "target", title, caption, alt, figure)


def _short_time(outcome: Outcome) -> str:
    return "not reached" if math.isinf(outcome.time.interval.median) else time_text(outcome)


def _draw_seeds(ax: Axes, outcome: Outcome, row: int, unit: float) -> None:
    """Draw the seeds of a case beside one another in its row, in their order."""
    curves = outcome.learning.curves
    offsets = np.linspace(-0.2, 0.2, len(curves)) if len(curves) > 1 else [0.0]
    for curve, offset in zip(curves, offsets, strict=True):
        marker, size, color, label = "o", 4.0, BLUE, "a seed that reached it"
        if curve.ending == "diverged":
            marker, size, color, label = "x", 5.0, VERMILLION, "a seed that diverged"
        elif not curve.reached:
            marker, size, color, label = ">", 5.5, VERMILLION, "a seed that did not, when it ended"
        ax.plot(
            curve.time_s[-1] / unit, row + offset, marker=marker, markersize=size, color=color, linestyle="none",
            markerfacecolor=color if curve.reached else "white", label=once(ax, label), zorder=2.5,
        )  # fmt: skip


def _mark_interval(ax: Axes, needed: Needed, row: int, unit: float, high: float) -> None:
    """Draw the median where it is finite, and its interval where there is one; an open end runs to the right edge."""
    interval = needed.interval
    if not math.isnan(interval.low) and math.isfinite(interval.low):
        ends = (interval.low / unit, min(interval.high / unit, high * 1.04))
        ax.plot(
            ends, (row, row), color=BLACK, linewidth=3.2, solid_capstyle="butt", alpha=0.4, zorder=2,
            label=once(ax, "95 % interval"),
        )  # fmt: skip
    if needed.median_known:
        ax.plot(
            interval.median / unit, row, marker="|", markersize=15, markeredgewidth=1.6, color=BLACK,
            linestyle="none", zorder=3, label=once(ax, "median"),
        )  # fmt: skip


def draw_target_steps(name: str, part: Part) -> Drawing:
    """Draw steps to the target against the time of a step, both logarithmic: lines of equal time fall at 45 degrees."""
    figure, ax = new_axes()
    seen_x, seen_y = [], []
    outcomes = [one.outcome for one in part.ranked]
    unit = seconds_unit([o.step_s.median for o in outcomes if o.step_s.median > 0])
    labels = entry_labels(part.entries)
    paths: dict[str, list[tuple[int, float, float]]] = {}
    for o, label, look in zip(outcomes, labels, looks_of(part.entries), strict=True):
        reached = o.steps.median_known
        x = o.step_s.median / unit.factor
        y = o.steps.interval.median if reached else o.steps.median_at_least
        if not (x > 0 and 0 < y < math.inf):
            continue
        low, high = float(o.steps.least.min()), float(o.steps.least[np.isfinite(o.steps.least)].max())
        ax.plot((x, x), (max(low, 1.0), high), color=look.color, linewidth=1.0, zorder=2)
        ax.plot(
            x, y, color=look.color, marker=look.marker, markersize=look.size, linestyle="none", zorder=3, label=label,
            markerfacecolor=look.color if reached else "white",
        )  # fmt: skip
        if reached:
            paths.setdefault(look.color, []).append((o.entry.case.n_ranks, x, y))
        else:
            ax.annotate(
                "", (x, y), xytext=(0, 17), textcoords="offset points", zorder=2.8,
                arrowprops={"arrowstyle": "<-", "color": look.color, "linewidth": 1.1},
            )  # fmt: skip
        seen_x.append(x)
        seen_y += [y, max(low, 1.0), high]
    for color, path in paths.items():
        ax.plot([x for _, x, _ in sorted(path)], [y for _, _, y in sorted(path)], color=color, linewidth=0.8, alpha=0.6)
    _log_square(ax, seen_x or [1.0], seen_y or [1.0])
    base = next((one.base for one in part.ranked if one.base), None)
    _draw_equal_times(ax, base.time.interval.median if base else math.nan, unit.factor)
    ax.set_xlabel(f"time of a step [{unit.name}]")
    ax.set_ylabel("steps to the target")
    title = "What time to the target is made of: steps and their time"
    finish(figure, ax, title, part.problem, height_in=3.0)
    caption = (
        "Steps to the target, median and range of the seeds, against the time of a step. Along a thin line the product "
        "of both, the time to the target, is the same. Left of the base a case gains by the time of its steps, above "
        "it it loses by their number. Lines join rank counts of a method, markers grow with them. A hollow marker with "
        "an arrow: the median is further up, for half of the seeds were stopped without."
    )
    alt = "Steps to the target against the time of a step, both logarithmic. " + " ".join(
        f"{label}: {needed_text(o.steps, format_steps)} steps of {format_seconds(o.step_s.median)}."
        for label, o in zip(labels, outcomes, strict=True)
    )
    return Drawing(name, "target", title, caption, alt, figure)


def _log_square(ax: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Make both axes logarithmic with room around what is drawn, each over a factor of four at the least."""
    for values, axis, set_scale, set_limits in (
        (x, ax.xaxis, ax.set_xscale, ax.set_xlim),
        (y, ax.yaxis, ax.set_yscale, ax.set_ylim),
    ):
        low, high = min(values), max(values)
        room = max(1.35, (high / low) ** 0.12, 2.0 / (high / low) ** 0.5)
        set_scale("log")
        set_limits(low / room, high * room)
        ticks = log_ticks(low / room, high * room)
        set_ticks(axis, ticks, [number(tick) for tick in ticks])


def _draw_equal_times(ax: Axes, base_s: float, unit: float) -> None:
    """Draw lines of equal time to the target, one through the base, each with its time at its upper end."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    middle = math.sqrt(left * right * bottom * top) * unit
    through = base_s if math.isfinite(base_s) and base_s > 0 else middle
    corners = sorted((left * bottom * unit, right * top * unit))
    exponents = range(math.ceil(math.log2(corners[0] / through)), math.floor(math.log2(corners[1] / through)) + 1)
    every = max(1, math.ceil(len(exponents) / 6))
    for k in exponents:
        if k % every:
            continue
        seconds = through * 2.0**k
        is_base = k == 0 and through == base_s
        label = "as long as the base" if is_base else "half, twice, ... as long" if through == base_s else "equal time"
        x = np.array([left, right])
        ax.plot(
            x, seconds / unit / x, color=GREY, linewidth=1.1 if is_base else 0.6, zorder=1.2, label=once(ax, label),
            linestyle=(0, (2, 2)) if is_base else "-",
        )  # fmt: skip
        # Where the line leaves the axes: at the top, or on the left.
        x_top = seconds / unit / top
        at, offset = ((x_top, top), (11, -1)) if x_top > left else ((left, seconds / unit / left), (4, 3))
        if at[0] < right * 0.86 and at[1] > bottom * 1.06:
            ax.annotate(
                format_seconds(seconds), at, xytext=offset, textcoords="offset points", fontsize=7, color=GREY,
                ha="left", va="top" if at[1] == top else "bottom", rotation=0, zorder=1.3,
            )  # fmt: skip
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
