"""Figures with one row a case: every raw step, and where a step's time goes.

A case is a category: rows are never joined by lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcrnn.records.statistics import is_outlier
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.scaling import PhaseBreakdown
from hpcrnn.reporting.describe import case_names, common_problem, short_source
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    MORE_PHASE_STYLES,
    PHASE_STYLES,
    VERMILLION,
    Drawing,
    finish,
    log_ticks,
    new_axes,
    number,
    once,
    set_ticks,
    widest_text_in,
)
from hpcrnn.reporting.tables.samples import leg_note
from hpcrnn.reporting.units import (
    SECONDS,
    Unit,
    choose_unit,
    format_percent,
    format_seconds,
    has_bounds,
    in_two,
    plural,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS_A_FIGURE = 20
ROW_IN = 0.3
"""Height of a row, inches: one line of its label and some air."""
ROW_OF_TWO_IN = 0.38


def entry_labels(entries: Sequence[Entry], length: int = 200) -> list[str]:
    """Name cases by number, label and what sets them apart: ``3  data 2 · numpy · B128``.

    Cases on several ranks that nothing sets apart are named by their files too; serial runs are not, each file has one.
    """
    named = case_names([entry.case for entry in entries])
    files: dict[str, set[int]] = {}
    for entry, name in zip(entries, named, strict=True):
        files.setdefault(name, set()).add(entry.file)
    return [
        shorten(f"{e.number}  {name}{_file(e) if e.case.n_ranks > 1 and len(files[name]) > 1 else ''}", length)
        for e, name in zip(entries, named, strict=True)
    ]


def _file(entry: Entry) -> str:
    return f" · {short_source(entry.record).removesuffix('.gz').removesuffix('.h5')}"


def wrapped(labels: Sequence[str], length: int = 28) -> list[str]:
    """Break the labels of rows into two lines where they are long, between their parts."""
    return ["\n".join(shorten(line, length + 12) for line in in_two(label, length)) for label in labels]


def draw_steps(name: str, entries: Sequence[Entry]) -> Drawing:
    """Draw every counted repetition of every case over the case's median: how steady each one is."""
    figure, ax = new_axes()
    jitter = np.random.default_rng(0)  # where in its row a dot lies means nothing; the same each time
    ratios = [e.case.step_s() / e.step.median for e in entries]
    for row, (entry, ratio) in enumerate(zip(entries, ratios, strict=True)):
        height = row + jitter.uniform(-0.27, 0.27, ratio.size)
        out = is_outlier(ratio)
        # Thousands of vector dots would make a heavy page: dots are pixels, all else stays vector.
        dots: dict[str, Any] = {"linestyle": "none", "rasterized": True, "zorder": 2}
        ax.plot(
            ratio[~out], height[~out], marker="o", markersize=3, color=BLUE, alpha=0.45, markeredgewidth=0,
            label=once(ax, "a step"), **dots,
        )  # fmt: skip
        if out.any():
            ax.plot(
                ratio[out], height[out], marker="x", markersize=4.5, color=VERMILLION, markeredgewidth=1.1,
                label=once(ax, "an outlier, kept"), **dots,
            )  # fmt: skip
        _mark_median(ax, entry, row)
    row_axis(ax, wrapped(entry_labels(entries)), [f"{format_seconds(e.step.median)}, n = {e.step.n}" for e in entries])
    low, high = min(float(r.min()) for r in ratios), max(float(r.max()) for r in ratios)
    ticks = value_axis(ax, min(low, 0.99), max(high, 1.01), log=high > 4 * low)
    set_ticks(ax.xaxis, ticks, [f"{t:.4g}×" if high > 4 * low else _deviation(t) for t in ticks])
    ax.set_xlabel("time of a step, slowest rank, against the case's median")
    title = "Every counted step"
    alt = "One row a case, one dot a step. " + " ".join(
        f"{label}: median {format_seconds(e.step.median)}, n = {e.step.n}, {plural(e.n_outliers, 'outlier')}."
        for label, e in zip(entry_labels(entries), entries, strict=True)
    )
    caption = (
        "Raw samples, none removed; height within a row means nothing. The black line is the median, the bar "
        "its 95 % interval. Outliers lie more than three interquartile ranges beyond the quartiles."
    ) + leg_note(entries)
    finish_rows(figure, ax, title, entries)
    return Drawing(name, "steps", title, caption, alt, figure)


def draw_phases(name: str, breakdowns: Sequence[PhaseBreakdown], phase_names: Sequence[str]) -> Drawing:
    """Draw the phases of a step as stacked bars, one row a case.

    Parameters
    ----------
    name : str
    breakdowns : sequence of PhaseBreakdown
    phase_names : sequence of str
        All phases of the report, so that each has one colour on every page.
    """
    figure, ax = new_axes()
    entries = [b.entry for b in breakdowns]
    tops = [max(sum(b.seconds.values()), b.entry.step.median) for b in breakdowns]
    # A bar a twelfth as long as another shows nothing: then each is drawn over its own step.
    shares = max(tops) > 12 * min(tops)
    unit = Unit(0.01, "%") if shares else choose_unit(max(tops), SECONDS)
    wholes = [b.mean_step_s if shares else 1.0 for b in breakdowns]
    lefts = np.zeros(len(breakdowns))
    for phase, color, hatch in _phase_styles(breakdowns, phase_names):
        seconds = [b.seconds.get(phase, 0.0) / whole for b, whole in zip(breakdowns, wholes, strict=True)]
        widths = np.array(seconds) / unit.factor
        ax.barh(
            range(len(breakdowns)), widths, left=lefts, height=0.62, color=color, hatch=hatch,
            edgecolor="white", linewidth=0.6, label=shorten(phase.replace("_", " "), 30),
        )  # fmt: skip
        lefts += widths
    ends = [e.step.median / whole / unit.factor for e, whole in zip(entries, wholes, strict=True)]
    ax.plot(
        ends, range(len(ends)), marker="|", markersize=15, markeredgewidth=1.6, color=BLACK, linestyle="none",
        label="slowest rank", zorder=3,
    )  # fmt: skip
    row_axis(ax, wrapped(entry_labels(entries)), [format_seconds(e.step.median) for e in entries])
    ticks = value_axis(ax, 0.0, max(*ends, *lefts), log=False)
    set_ticks(ax.xaxis, ticks, [number(t) for t in ticks])
    ax.set_xlabel("share of the mean rank's step [%]" if shares else f"time [{unit.name}]")
    title = "Where a step's time goes"
    alt = "Stacked bars of the phases of a step, one row a case. " + " ".join(
        f"{label}: {', '.join(f'{p} {format_percent(s)}' for p, s in b.shares.items())}."
        for label, b in zip(entry_labels(entries), breakdowns, strict=True)
    )
    caption = (
        "Each phase: median over repetitions of the mean over ranks. The black mark is the median step of "
        "the slowest rank; what lies between bar and mark is imbalance."
    )
    finish_rows(figure, ax, title, entries)
    return Drawing(name, "phases", title, caption, alt, figure)


def finish_rows(figure: Figure, ax: Axes, title: str, entries: Sequence[Entry]) -> None:
    """Finish a figure that has a row a case and text to the right of its axes."""
    two_lines = any("\n" in tick.get_text() for tick in ax.get_yticklabels())
    height_in = (ROW_OF_TWO_IN if two_lines else ROW_IN) * max(2, len(entries))
    finish(
        figure, ax, title, common_problem([e.case for e in entries]), height_in=height_in,
        right_in=widest_text_in(ax) + 0.2,
    )  # fmt: skip


def _phase_styles(breakdowns: Sequence[PhaseBreakdown], phase_names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Give each phase that is present its colour and hatch, what no phase accounts for last."""
    present = {name for b in breakdowns for name, seconds in b.seconds.items() if seconds > 0}
    unknown = [name for name in phase_names if name not in PHASE_STYLES]
    styles = {name: MORE_PHASE_STYLES[k % len(MORE_PHASE_STYLES)] for k, name in enumerate(unknown)}
    for name in phase_names:
        if name in present:
            yield name, *(PHASE_STYLES | styles)[name]


def _mark_median(ax: Axes, entry: Entry, row: int) -> None:
    median = entry.step.median
    if has_bounds(entry.step):
        ends = (entry.step.low / median, entry.step.high / median)
        ax.plot(
            ends, (row, row), color=BLACK, linewidth=3.2, solid_capstyle="butt", alpha=0.55, zorder=3,
            label=once(ax, "95 % interval"),
        )  # fmt: skip
    ax.plot(
        1.0, row, marker="|", markersize=14, markeredgewidth=1.6, color=BLACK, linestyle="none", zorder=4,
        label=once(ax, "median"),
    )  # fmt: skip


def _deviation(ratio: float) -> str:
    """Write a tick of how far from the median: ``+5 %``."""
    percent = round(100.0 * (ratio - 1.0), 6)
    return f"{percent:+.3g} %".replace("-", "−") if percent else "0"


def row_axis(ax: Axes, left: Sequence[str], right: Sequence[str], heights: Sequence[float] | None = None) -> None:
    """Name the rows, first on top, and write a number right of each.

    Parameters
    ----------
    ax
    left, right : sequence of str
    heights : sequence of float, optional
        Where the rows lie; by default at 0, 1, 2, ...
    """
    if heights is None:
        heights = range(len(left))
        ax.set_ylim(max(2, len(left)) - 0.45 if len(left) > 1 else 0.95, -0.55 if len(left) > 1 else -0.95)
    else:
        ax.set_ylim(heights[-1] + 0.5, -0.5)
    set_ticks(ax.yaxis, heights, left)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    for row, text in zip(heights, right, strict=True):
        ax.annotate(
            text, (1.0, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            ha="left", va="center", fontsize=7.5, color="#3c4043",
        )  # fmt: skip


def value_axis(ax: Axes, low: float, high: float, *, log: bool, n_ticks: int = 5) -> list[float]:
    """Scale the x axis around what it must show; returns its ticks, about so many."""
    from matplotlib.ticker import MaxNLocator

    if log:
        ax.set_xscale("log", base=2)
        ax.set_xlim(low / 1.05, high * 1.05)
        return log_ticks(low / 1.05, high)
    spread = (high - low) or abs(high) or 1.0
    ax.set_xlim(low - (0.03 * spread if low else 0), high + 0.03 * spread)
    ticks = MaxNLocator(n_ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(t) for t in ticks if low <= t <= high * 1.0001]
