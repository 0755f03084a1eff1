"""The roofline: attained rates over intensity, below what the same ranks measured of themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.roofline import Ceilings, Reached, rooflines
from hpcrnn.reporting.describe import common_problem, shortfalls
from hpcrnn.reporting.figures.canvas import (
    GREY,
    PALE,
    SERIES_STYLES,
    Drawing,
    Sheet,
    finish,
    log_ticks,
    new_axes,
    number,
    pages,
    set_ticks,
)
from hpcrnn.reporting.figures.curves import INTERVAL_NOTE, SHORTFALL_NOTE
from hpcrnn.reporting.figures.rows import entry_labels
from hpcrnn.reporting.tables.roofline import IN_CACHE_NOTE, INTENSITY_NOTE, bound_words, spread
from hpcrnn.reporting.units import GIGA, has_bounds, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CASES_A_SHEET = len(SERIES_STYLES)

CEILING_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
"""Of the ceilings of a sheet: two backends, each on one rank and on all."""


def plan_rooflines(entries: Sequence[Entry]) -> Iterator[Sheet]:
    """Plan a sheet for the cases of each file, or several where they are many: ceilings of two runs never share one."""
    sheets: list[Sequence[Reached]] = []
    for members in rooflines(entries).by_record():
        n_parts = math.ceil(len(members) / CASES_A_SHEET)
        sheets += [members[len(members) * k // n_parts : len(members) * (k + 1) // n_parts] for k in range(n_parts)]
    yield from pages(sheets, 1, "roofline", lambda name, one: draw_roofline(name, one[0]))


def draw_roofline(name: str, reached: Sequence[Reached]) -> Drawing:
    """Draw cases of one file below the ceilings of their own ranks, per rank, both axes logarithmic.

    Parameters
    ----------
    name : str
    reached : sequence of Reached
        At most :data:`CASES_A_SHEET`.
    """
    figure, ax = new_axes()
    entries = [one.entry for one in reached]
    labels = entry_labels(entries)
    ceilings = list({one.ceilings: None for one in reached})
    _scale(ax, reached, ceilings)
    for index, together in enumerate(ceilings):
        _draw_ceilings(ax, together, CEILING_DASHES[index % len(CEILING_DASHES)])
    for (color, marker, _), one, label in zip(SERIES_STYLES, reached, labels, strict=False):
        _draw_case(ax, one, color, marker, label)
    ax.set_xlabel("intensity: matrix-product operations / compulsory bytes [FLOP/byte]")
    ax.set_ylabel("GFLOP/s a rank")
    ax.grid()
    title = "Roofline: attained rates below measured ceilings"
    caption = (
        f"Ceilings were measured on all ranks of a case at once, before its steps; the shade is from the least to the "
        f"most of them. {INTENSITY_NOTE} The bar to the left of a marker spans these. {INTERVAL_NOTE}"
    )
    caption += f" {IN_CACHE_NOTE}" * any(one.in_cache for one in ceilings)
    caption += SHORTFALL_NOTE * any(shortfalls(entry.case) for entry in entries)
    alt = "Attained operations a second and rank over operations a byte, both logarithmic. " + " ".join(
        f"{label}: {bound_words(one)}." for label, one in zip(labels, reached, strict=True)
    )
    finish(figure, ax, title, common_problem([entry.case for entry in entries]), height_in=3.0)
    return Drawing(name, "roofline", title, caption, alt, figure)


def _scale(ax: Axes, reached: Sequence[Reached], ceilings: Sequence[Ceilings]) -> None:
    """Make both axes logarithmic around all that must be seen: every point, every ridge and every flat ceiling."""
    xs = [x for one in reached for x in (one.streamed, one.cached)] + [one.ridge for one in ceilings]
    rates = [per_rank(one)[0] for one in reached]
    tops = [max(one.flop_per_s) / GIGA for one in ceilings]
    x_low, x_high = min(xs) / 2, max(xs) * 3
    y_low, y_high = min([*rates, *tops]) / 2.5, max([*rates, *tops]) * 1.6
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(x_low, x_high)
    ax.set_ylim(y_low, y_high)
    for axis, low, high in ((ax.xaxis, x_low, x_high), (ax.yaxis, y_low, y_high)):
        ticks = log_ticks(low, high)
        set_ticks(axis, ticks, [number(tick) for tick in ticks])


def _draw_ceilings(ax: Axes, ceilings: Ceilings, dashes: Any) -> None:
    """Draw what a rank could do on average, and shade from the least of the ranks to the most."""
    left, right = ax.get_xlim()
    n = ceilings.n_ranks
    mean = (sum(ceilings.flop_per_s) / n / GIGA, sum(ceilings.bytes_per_s) / n / GIGA)
    least = (min(ceilings.flop_per_s) / GIGA, min(ceilings.bytes_per_s) / GIGA)
    most = (max(ceilings.flop_per_s) / GIGA, max(ceilings.bytes_per_s) / GIGA)
    corners = sorted({left, right, *(f / m for f, m in (mean, least, most))})
    corners = [x for x in corners if left <= x <= right]

    def roof(rates: tuple[float, float]) -> list[float]:
        return [min(rates[0], x * rates[1]) for x in corners]

    if n > 1:
        ax.fill_between(corners, roof(least), roof(most), color=PALE, alpha=0.7, linewidth=0, zorder=0.8)
    label = (
        f"ceiling: {ceilings.backend}, {plural(n, 'rank')}, {spread(ceilings.flop_per_s)} GFLOP/s and "
        f"{spread(ceilings.bytes_per_s)} GB/s a rank"
    )
    ax.plot(corners, roof(mean), color=GREY, linestyle=dashes, linewidth=1.3, zorder=1.5, label=label)


def _draw_case(ax: Axes, one: Reached, color: str, marker: str, label: str) -> None:
    """Draw a case at its cached intensity, with a bar to the streamed one and the interval of its rate."""
    rate, low, high = per_rank(one)
    bounded = has_bounds(one.rate)
    if one.streamed < one.cached:
        ax.plot(
            [one.streamed, one.cached], [rate, rate], color=color, linewidth=1.2, marker="|", markevery=[0],
            markersize=7, zorder=2.5,
        )  # fmt: skip
    ax.errorbar(
        one.cached, rate, yerr=[[rate - low], [high - rate]] if bounded else None, color=color, marker=marker,
        markerfacecolor=color if bounded else "white", linestyle="none", capsize=3.5, capthick=1.1, elinewidth=1.1,
        fillstyle="left" if shortfalls(one.entry.case) else "full", markerfacecoloralt="white", zorder=3, label=label,
    )  # fmt: skip


def per_rank(one: Reached) -> tuple[float, float, float]:
    """Return what a case attained a rank, GFLOP/s: median, low, high."""
    scale = one.entry.case.n_ranks * GIGA
    return one.rate.median / scale, one.rate.low / scale, one.rate.high / scale
