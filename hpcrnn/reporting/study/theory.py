"""Figures that hold a study against what theory says: speedup in steps, and error against tolerance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hpcrnn.records.study import StudyTable
from hpcrnn.reporting.figures.canvas import BLACK, GREY, PALE, WIDTH_IN, Drawing, linear_axis
from hpcrnn.reporting.figures.panels import finish_panels, new_panels
from hpcrnn.reporting.study.columns import (
    FloatArray,
    facts_line,
    is_known,
    kinds_of,
    log_scale,
    numbers,
    positive_range,
    styled,
    texts,
)
from hpcrnn.reporting.units import plural, printable, scientific

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR_TOP = ("data", "axes fraction")
REFERENCE: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (2, 2)), "zorder": 1.5}


def draw_speedup(table: StudyTable) -> Drawing:
    """Draw the speedup in steps over P segments against T / (m P), beside the theory x / (1 + x).

    Columns: ``cell``, ``init``, ``direction``, ``segments``, ``T``, ``meeting``, ``critical_steps``, ``speedup_steps``.
    """
    figure, grid = new_panels(1, 1)
    ax = grid[0][0]
    segments = numbers(table, "segments")
    meeting = numbers(table, "meeting")
    share = numbers(table, "speedup_steps") / segments
    with np.errstate(divide="ignore", invalid="ignore"):
        x = numbers(table, "T") / (meeting * segments)
    met = np.isfinite(x) & np.isfinite(share) & (x > 0) & (share > 0)
    unmet = ~met & ~(meeting == 0) & np.isfinite(share) & (share > 0)
    least, most = float(x[met].min(initial=1.0)), float(x[met].max(initial=1.0))
    # Left of the border is no scale: a strip for what never met, and has no m.
    left, strip, border = least / 6, least / 3.3, least / 1.8
    curve = np.geomspace(border if unmet.any() else least / 2, most * 4, 300)
    ax.plot(curve, curve / (1 + curve), label="theory: 1 / (1 + m P / T)", **REFERENCE)
    kinds = kinds_of(table, "cell", "init")
    backward = texts(table, "direction") == "backward"
    for kind, (color, marker, _) in styled(kinds):
        mine = np.array([k == kind for k in kinds])
        for chosen, filled in ((mine & ~backward, True), (mine & backward, False)):
            _scatter(ax, x[chosen & met], share[chosen & met], color, marker, filled=filled)
            _scatter(ax, np.full((chosen & unmet).sum(), strip), share[chosen & unmet], color, marker, filled=filled)
        ax.plot([], [], marker, color=color, markersize=5.5, label=", ".join(kind))
    if backward.any():
        ax.plot([], [], "o", color=BLACK, markerfacecolor="none", markersize=5.5, label="hollow: backward")
    seen = share[met | unmet]
    log_scale(ax, "x", border if unmet.any() else least, most)
    log_scale(ax, "y", float(seen.min(initial=0.5)), 1.0)
    if unmet.any():
        ax.set_xlim(left=left)
        ax.axvspan(left, border, color=PALE, alpha=0.55, linewidth=0, zorder=0.5)
        ax.annotate("never met", (strip, 0.985), xycoords=NEAR_TOP, fontsize=7.5, color=GREY, ha="center", va="top")
    ax.set_xlabel("T / (m P): length of a segment over the meeting length")
    ax.set_ylabel("speedup in steps / segments P")
    ax.grid()
    title = "Speedup over critical-path steps, against theory"
    caption = (
        "T over the time steps that follow one another, divided by the segments P, which is the most there can be. "
        "Counted, not timed: free of noise, and of what messages cost. m is the meeting length."
    )
    if unmet.any():
        caption += " Where trajectories never met there is no m: drawn at the left."
    ratio = share[met] * (1 + x[met]) / x[met]
    spread = f" They are {ratio.min():.2f} to {ratio.max():.2f} times the theory." if met.any() else ""
    alt = f"{plural(int((met | unmet).sum()), 'point')} of {plural(len(set(kinds)), 'cell')} beside the theory.{spread}"
    finish_panels(figure, grid, title, facts_line(table), heights_in=[3.2], width_in=WIDTH_IN)
    return Drawing("time_speedup", "study", title, caption, alt, figure)


def _scatter(ax: Axes, x: FloatArray, y: FloatArray, color: str, marker: str, *, filled: bool) -> None:
    face = color if filled else "white"
    ax.plot(x, y, marker, color=color, markerfacecolor=face, markersize=5, zorder=3 if filled else 2.5)


def draw_tolerance(table: StudyTable) -> Drawing:
    """Draw the gradient's error against the tolerance, and what the tolerance costs in steps.

    Columns: ``cell``, ``tolerance``, ``gradient_error``, ``serial_error``, ``critical_steps``.
    """
    costly = is_known(table, "critical_steps")
    figure, grid = new_panels(2 if costly else 1, 1, share_x=True)
    ax = grid[0][0]
    cells, tolerance = texts(table, "cell"), numbers(table, "tolerance")
    error, serial = numbers(table, "gradient_error"), numbers(table, "serial_error")
    for cell, (color, marker, dashes) in styled(cells.tolist()):
        rows = np.flatnonzero(cells == cell)
        rows = rows[np.argsort(tolerance[rows])]
        line: dict[str, Any] = {"color": color, "marker": marker, "linestyle": dashes, "markersize": 4.5}
        ax.plot(tolerance[rows], error[rows], label=printable(cell), **line)
        if np.isfinite(serial[rows]).any():
            ax.axhline(
                float(np.nanmedian(serial[rows])), color=color, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=1.5
            )
        if costly:
            grid[1][0].plot(tolerance[rows], numbers(table, "critical_steps")[rows], **line)
    ax.plot([], [], color=BLACK, linewidth=1.0, linestyle=(0, (1, 1.5)), label="dotted: error of the serial run")
    ends = positive_range(tolerance)
    ax.plot(ends, ends, label="error = tolerance", **REFERENCE)
    every = np.concatenate([error, serial])
    log_scale(ax, "x", *ends)
    log_scale(ax, "y", *positive_range(every))
    ax.set_ylabel("relative error of the gradient")
    ax.grid()
    if costly:
        steps = numbers(table, "critical_steps")
        linear_axis(grid[1][0], float(np.nanmax(steps)))
        grid[1][0].set_ylabel("critical path\n[time steps]")
        grid[1][0].grid()
    grid[-1][0].set_xlabel("tolerance at which trajectories have met")
    title = "What the tolerance costs, and what it buys"
    caption = (
        "The worst gradient against a serial run in float64. At the dotted line a smaller tolerance buys nothing more: "
        "what is left is the rounding that the serial run has too."
    )
    said = []
    for cell in dict.fromkeys(cells.tolist()):
        rows = np.flatnonzero((cells == cell) & np.isfinite(error))
        if rows.size:
            best = rows[np.argmin(tolerance[rows])]
            said.append(
                f"{cell}: {scientific(float(error[best]))} at {scientific(float(tolerance[best]), 1)}, "
                f"serial {scientific(float(serial[best]))}."
            )
    finish_panels(
        figure, grid, title, facts_line(table), heights_in=[2.6, 0.9] if costly else [2.6], width_in=WIDTH_IN
    )  # fmt: skip
    return Drawing("time_tolerance", "study", title, caption, f"Error against tolerance. {' '.join(said)}", figure)
