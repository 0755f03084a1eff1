"""Curves: scaling over ranks, and learning over steps.

A figure draws what :mod:`hpcrnn.reporting.analysis.scaling` derived and computes nothing itself.  Error bars are the
95 % interval of the median; where n is too small there is none and the marker is hollow.  Lines join points
along a quantity (ranks, training steps), never along categories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcrnn.records.record import Case
from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.scaling import (
    LossCurve,
    Point,
    Series,
    bases_of,
    describe_bases,
    scaled,
)
from hpcrnn.reporting.describe import common_problem, shortfalls
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    GREY,
    SERIES_STYLES,
    Drawing,
    finish,
    linear_axis,
    log_axis,
    new_axes,
    once,
    rank_axis,
    step_axis,
)
from hpcrnn.reporting.figures.fits import draw_fits, widen_rank_axis
from hpcrnn.reporting.figures.rows import entry_labels
from hpcrnn.reporting.tables.series import series_names, series_shortfalls
from hpcrnn.reporting.units import (
    format_percent,
    format_ratio,
    format_seconds,
    has_bounds,
    plural,
    seconds_unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_A_FIGURE = len(SERIES_STYLES)
INTERVAL_NOTE = "Bars are the 95 % interval of the median; a hollow marker has none (n too small)."
SHORTFALL_NOTE = " A half-filled marker is not the serial result; the name of the curve says why."
IDEAL: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": (0, (2, 2)), "zorder": 1.5}


def draw_strong_time(name: str, series: Sequence[Series]) -> Drawing:
    """Draw time per step against ranks, both base 2, with the ideal line of each base."""
    figure, ax = new_axes()
    unit = seconds_unit(p.time.median for s in series for p in s.points)
    labels, subtitle = _labels_and_base(series)
    seen = _draw_curves(ax, series, labels, lambda p: scaled(p.time, 1 / unit.factor))
    _name_values(ax, series, lambda p: (p.time.median / unit.factor, format_seconds(p.time.median)), RIGHT_ABOVE)
    most = max(p.n_ranks for s in series for p in s.points)
    bases = bases_of(p for s in series for p in s.points)
    for base in bases:
        time = base.entry.step.median / unit.factor
        ax.plot([1, most], [time, time / most], label=once(ax, "ideal: base / ranks"), **IDEAL)
        ax.plot(1, time, "o", label=once(ax, "base"), **_RING)
        seen += [time, time / most]
    rank_axis(ax, [p.n_ranks for s in series for p in s.points] + [1] * bool(bases))
    log_axis(ax, min(seen), max(seen))
    ax.set_ylabel(f"time per step [{unit.name}]")
    ax.grid(axis="y")
    title = "Strong scaling: time per step"
    alt = "Time per step against MPI ranks, both logarithmic. " + _sentences(
        series, lambda p: f"{format_seconds(p.time.median)} on {plural(p.n_ranks, 'rank')}"
    )
    caption = f"Median step of the slowest rank; one problem, more ranks. {INTERVAL_NOTE}{_notes(series)}"
    finish(figure, ax, title, subtitle)
    return Drawing(name, "strong", title, caption, alt, figure)


def draw_strong_speedup(name: str, series: Sequence[Series]) -> Drawing:
    """Draw the speedup over the named base against ranks, both base 2, with the ideal line."""
    figure, ax = new_axes()
    labels, subtitle = _labels_and_base(series)
    seen = _draw_curves(ax, series, labels, lambda p: p.speedup)
    _name_values(
        ax,
        series,
        lambda p: (p.speedup.median, format_ratio(p.speedup.median)) if p.speedup else None,
        RIGHT_BELOW,
    )
    most = max(p.n_ranks for s in series for p in s.points)
    ax.plot([1, most], [1, most], label="ideal: speedup = ranks", **IDEAL)
    fits = draw_fits(ax, series, lambda fit, ranks: ranks * fit.efficiency(ranks))
    seen += fits.values
    rank_axis(ax, [p.n_ranks for s in series for p in s.points] + [1])
    widen_rank_axis(ax)
    log_axis(ax, min([1.0, *seen]), max([float(most), *seen]), suffix="×")
    ax.set_ylabel("speedup over the base")
    ax.grid(axis="y")
    title = "Strong scaling: speedup"
    alt = "Speedup over the best serial run against MPI ranks, both logarithmic. " + _sentences(
        series,
        lambda p: f"{format_ratio(p.speedup.median)} on {plural(p.n_ranks, 'rank')}" if p.speedup else "",
    )
    caption = (
        "Time of the base over time of the case. The base is the best VALID serial run of the same problem. "
        f"{INTERVAL_NOTE}{_notes(series)}{fits.caption}"
    )
    finish(figure, ax, title, subtitle)
    return Drawing(name, "strong", title, caption, alt + fits.alt, figure)


def draw_strong_efficiency(name: str, series: Sequence[Series]) -> Drawing:
    """Draw speedup over ranks, in per cent, against ranks."""
    return _draw_efficiency(name, "strong", series, "Speedup over the base, divided by the ranks.")


def draw_weak_efficiency(name: str, series: Sequence[Series]) -> Drawing:
    """Draw ``t(1) / t(P)`` at constant work a rank, in per cent, against ranks."""
    return _draw_efficiency(name, "weak", series, "t(1) / t(P), with the same sequences a rank.")


def _draw_efficiency(name: str, kind: str, series: Sequence[Series], meaning: str) -> Drawing:
    figure, ax, weak = *new_axes(), kind == "weak"
    labels, subtitle = _labels_and_base(series)
    seen = _draw_curves(ax, series, labels, lambda p: p.efficiency and scaled(p.efficiency, 100.0))
    _name_values(
        ax,
        series,
        lambda p: (100 * p.efficiency.median, format_percent(p.efficiency.median)) if p.efficiency else None,
        BELOW,
    )
    ax.axhline(100.0, label="ideal: 100 %", **IDEAL)
    # Strong ones are drawn with the speedup, of which the laws are.
    fits = draw_fits(ax, series if weak else (), lambda fit, ranks: 100 * fit.efficiency(ranks))
    seen += fits.values
    rank_axis(ax, [p.n_ranks for s in series for p in s.points])
    widen_rank_axis(ax)
    linear_axis(ax, max([100.0, *seen]), " %")
    ax.set_ylabel("efficiency")
    ax.grid(axis="y")
    title = f"{kind.capitalize()} scaling: efficiency"
    alt = "Efficiency in per cent against MPI ranks. " + _sentences(
        series,
        lambda p: f"{format_percent(p.efficiency.median)} on {plural(p.n_ranks, 'rank')}" if p.efficiency else "",
    )
    finish(figure, ax, title, subtitle, height_in=2.3)
    caption = f"{meaning} {INTERVAL_NOTE}{_notes(series)}{fits.caption}"
    return Drawing(name, kind, title, caption, alt + fits.alt, figure)


def draw_weak_time(name: str, series: Sequence[Series]) -> Drawing:
    """Draw time per step against ranks at constant work a rank: ideal is flat."""
    figure, ax = new_axes()
    unit = seconds_unit(p.time.median for s in series for p in s.points)
    labels, subtitle = _labels_and_base(series)
    seen = _draw_curves(ax, series, labels, lambda p: scaled(p.time, 1 / unit.factor))
    _name_values(ax, series, lambda p: (p.time.median / unit.factor, format_seconds(p.time.median)), BELOW)
    for base in bases_of(p for s in series for p in s.points):
        ax.axhline(base.entry.step.median / unit.factor, label=once(ax, "ideal: flat at t(1)"), **IDEAL)
    rank_axis(ax, [p.n_ranks for s in series for p in s.points])
    # From zero, flat looks flat; only curves an order apart need a logarithm.
    if max(seen) > 12 * min(seen):
        log_axis(ax, min(seen), max(seen))
    else:
        linear_axis(ax, max(seen))
    ax.set_ylabel(f"time per step [{unit.name}]")
    ax.grid(axis="y")
    title = "Weak scaling: time per step"
    alt = "Time per step against MPI ranks at constant work a rank. " + _sentences(
        series, lambda p: f"{format_seconds(p.time.median)} on {plural(p.n_ranks, 'rank')}"
    )
    notes = INTERVAL_NOTE + _notes(series)
    caption = f"Median step of the slowest rank; the batch grows with the ranks. {notes}"
    finish(figure, ax, title, subtitle)
    return Drawing(name, "weak", title, caption, alt, figure)


def draw_loss(name: str, curves: Sequence[LossCurve]) -> Drawing:
    """Draw the loss of every training step, warm-up included."""
    figure, ax = new_axes()
    labels = entry_labels([c.entry for c in curves])
    longest = max(c.loss.size for c in curves)
    for index, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        color, marker, dashes = SERIES_STYLES[index]
        steps = np.arange(1, curve.loss.size + 1)
        every = max(1, longest // 8)
        # Markers are staggered: curves that coincide, as those of one problem must, all stay visible.
        offset = min(index * every // max(1, len(curves)), curve.loss.size - 1)
        ax.plot(
            steps,
            curve.loss,
            color=color,
            linestyle=dashes,
            marker=marker,
            markevery=(offset, every),
            label=label,
            linewidth=1.3,
        )
    unit = curves[0].unit
    ax.set_ylabel(f"loss [{unit}]" if unit else "loss")
    step_axis(ax, longest)
    ax.grid(axis="y")
    title = "Loss against training step"
    cases = [c.entry.case for c in curves]
    alt = "Loss of each training step. " + " ".join(
        f"{label}: from {c.loss[0]:.4g} to {c.loss[-1]:.4g} over {plural(c.loss.size, 'step')}."
        for label, c in zip(labels, curves, strict=True)
    )
    caption = (
        "Every step is drawn, those before counting began too. Runs of one problem are expected to follow one curve."
    )
    finish(figure, ax, title, common_problem(cases))
    return Drawing(name, "loss", title, caption, alt, figure)


_RING: dict[str, Any] = {
    "markersize": 10,
    "fillstyle": "none",
    "color": BLACK,
    "markeredgewidth": 1.0,
    "linestyle": "none",
    "clip_on": False,
}


def _draw_curves(
    ax: Axes, series: Sequence[Series], labels: Sequence[str], value: Callable[[Point], Interval | None]
) -> list[float]:
    """Draw each series with its intervals; returns every value the axis must hold."""
    seen: list[float] = []
    for (color, marker, dashes), one, label in zip(SERIES_STYLES, series, labels, strict=False):
        line = [(p.n_ranks, v.median) for p in one.line if (v := value(p))]
        ax.plot(*zip(*line, strict=True), color=color, linestyle=dashes, marker=marker, markersize=0)
        for point in one.points:
            interval = value(point)
            if interval is None:
                continue
            bounded = has_bounds(interval)
            ends = (interval.low, interval.high) if bounded else (interval.median,) * 2
            ax.errorbar(
                point.n_ranks, interval.median,
                yerr=[[interval.median - ends[0]], [ends[1] - interval.median]],
                color=color, marker=marker, markerfacecolor=color if bounded else "white",
                fillstyle="left" if shortfalls(point.entry.case) else "full", markerfacecoloralt="white",
                capsize=3.5, capthick=1.1, elinewidth=1.1, linestyle="none", zorder=3,
            )  # fmt: skip
            seen += [interval.median, *ends]
        ax.plot(
            [], [], color=color, linestyle=dashes, marker=marker, label=label,
            fillstyle="left" if series_shortfalls(one) else "full", markerfacecoloralt="white",
        )  # fmt: skip
    return seen


RIGHT_ABOVE, RIGHT_BELOW, BELOW = (6, 7), (6, -13), (0, -16)
"""Where a number stands by its marker, points: away from the line, which falls, rises or runs level."""


def _name_values(
    ax: Axes,
    series: Sequence[Series],
    value: Callable[[Point], tuple[float, str] | None],
    offset: tuple[int, int],
) -> None:
    """Write the numbers beside the markers of a lone curve with few points: more would be in the way."""
    from matplotlib.patheffects import withStroke

    if len(series) > 1 or len(series[0].line) > 8:
        return
    for point in series[0].line:
        if shown := value(point):
            ax.annotate(
                shown[1], (point.n_ranks, shown[0]), xytext=offset, textcoords="offset points", fontsize=8,
                color="#3c4043", ha="left" if offset[0] else "center", zorder=5,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip


def _labels_and_base(series: Sequence[Series]) -> tuple[list[str], str]:
    """Name each curve with its base, and say what all have in common; a base they share is said once."""
    labels, problem = series_names(series), common_problem(_cases(series))
    bases = [describe_bases(s.points) for s in series]
    if len(series) > 1 and len(set(bases)) == 1:
        return labels, f"{problem}; {bases[0]}"
    return [f"{label}; {base}" for label, base in zip(labels, bases, strict=True)], problem


def _cases(series: Sequence[Series]) -> list[Case]:
    return [p.entry.case for s in series for p in s.points]


def _sentences(series: Sequence[Series], words: Callable[[Point], str]) -> str:
    return " ".join(
        f"{label}: {', '.join(filter(None, map(words, one.line)))}."
        for label, one in zip(series_names(series), series, strict=True)
    )


def _notes(series: Sequence[Series]) -> str:
    """Say which points a line joins where a rank count was measured more than once, and what is not exact."""
    repeated = " Every measurement is drawn; the line joins the middle one of each rank count."
    return repeated * any(s.repeated for s in series) + SHORTFALL_NOTE * any(map(series_shortfalls, series))
