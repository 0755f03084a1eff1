"""Figures that compare the ways of splitting one problem: speedup, bubble and memory, grouped by ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.contest import Contender, Contest, contests
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.scaling import Analysis, describe_bases
from hpcrnn.reporting.describe import common_problem, shortfalls
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREY,
    SILVER,
    SKY,
    VERMILLION,
    Drawing,
    Sheet,
    finish,
    new_axes,
    number,
    once,
    pages,
    set_ticks,
    widest_text_in,
)
from hpcrnn.reporting.figures.rows import (
    ROW_IN,
    ROW_OF_TWO_IN,
    ROWS_A_FIGURE,
    entry_labels,
    row_axis,
    value_axis,
    wrapped,
)
from hpcrnn.reporting.units import (
    BYTES,
    MISSING,
    Unit,
    choose_unit,
    format_bytes,
    format_percent,
    format_ratio,
    has_bounds,
    plural,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DOTS = 64
"""Up to so many ranks, each is a dot of its own."""

Group = tuple[str, list[Entry]]
"""A heading and the cases below it."""


def draw_contests(analysis: Analysis) -> Iterator[Drawing]:
    """Draw what :func:`plan_contests` plans."""
    return (sheet.draw() for sheet in plan_contests(analysis))


def plan_contests(analysis: Analysis) -> Iterator[Sheet]:
    """Plan the ways of splitting each problem, their bubbles and their memory; at most so many rows a figure."""
    found = [sheet for contest in contests(analysis.included) for sheet in _sheets(contest)]
    yield from pages(found, 1, "strategies", lambda name, one: draw_strategies(name, one[0]))
    bound = [c for c in found if any(math.isfinite(x.bubble_bound) for x in c.contenders)]
    yield from pages(bound, 1, "bubble", lambda name, one: draw_bubbles(name, one[0]))
    weighed = [c for c in found if any(x.entry.case.memory_known for x in c.contenders)]
    yield from pages(weighed, 1, "memory", lambda name, one: draw_memory(name, one[0]))


def _sheets(contest: Contest) -> list[Contest]:
    """Cut a contest of many into sheets of about the same length."""
    n, n_sheets = len(contest.contenders), math.ceil(len(contest.contenders) / ROWS_A_FIGURE)
    return [Contest(contest.contenders[n * k // n_sheets : n * (k + 1) // n_sheets]) for k in range(n_sheets)]


def draw_strategies(name: str, contest: Contest) -> Drawing:
    """Draw the speedup of every way of splitting a problem, beside the ideal and the bubble bound."""
    figure, ax = new_axes()
    rows = [c for c in contest.contenders if c.point.speedup]
    rows = rows or list(contest.contenders)
    groups = _by_ranks([c.entry for c in rows])
    heights = _heights(groups)
    for row, y in zip(rows, heights, strict=True):
        if row.point.speedup and shortfalls(row.entry.case):
            ax.barh(
                y, row.point.speedup.median, height=0.56, color="white", hatch="////", edgecolor=SKY, linewidth=1.0,
                label=once(ax, "measured, but not the serial result: see its name"),
            )  # fmt: skip
        elif row.point.speedup:
            ax.barh(y, row.point.speedup.median, height=0.56, color=SKY, label=once(ax, "measured"))
        if row.point.speedup:
            _draw_interval(ax, row.point.speedup, y)
        if math.isfinite(row.bubble_bound):
            ax.plot(
                [row.speedup_bound] * 2, [y - 0.38, y + 0.38], color=VERMILLION, linewidth=2.0, zorder=3,
                label=once(ax, "bubble bound: ranks × (1 − bound)"),
            )  # fmt: skip
        ax.plot(
            [row.point.n_ranks] * 2, [y - 0.5, y + 0.5], color=GREY, linewidth=1.2, linestyle=(0, (2, 2)),
            label=once(ax, "ideal: ranks"),
        )  # fmt: skip
    texts = [format_ratio(r.point.speedup.median) if r.point.speedup else MISSING for r in rows]
    _group_axis(ax, groups, texts)
    highest = max(max(r.point.n_ranks, _top(r.point.speedup)) for r in rows)
    ticks = value_axis(ax, 0.0, float(highest), log=False)
    set_ticks(ax.xaxis, ticks, [f"{number(t)}×" for t in ticks])
    ax.set_xlabel("speedup over the best serial run")
    title = "Ways of splitting one problem"
    alt = "Speedup over the best serial run, one bar a way of splitting, grouped by ranks. " + _sentences(
        [r.entry for r in rows],
        [
            (text if r.entry.case.fold > 1 else f"{text} of an ideal {r.point.n_ranks}×")
            + (f", bubble bound {format_ratio(r.speedup_bound)}" if math.isfinite(r.bubble_bound) else "")
            for r, text in zip(rows, texts, strict=True)
        ],
    )
    caption = (
        "One problem on equal ranks, split in different ways; the largest speedup of each group first. The bubble "
        "bound is the speedup left when ranks idle no more than their schedule must. Bars in black are the 95 % "
        "interval."
    )
    if any(r.entry.case.fold > 1 for r in rows):
        caption += " Segments of time that are computed together make each rank itself faster: more than the ranks."
    _finish(figure, ax, title, rows, groups, f"; {describe_bases(contest.points)}")
    return Drawing(name, "strategies", title, caption, alt, figure)


def draw_bubbles(name: str, contest: Contest) -> Drawing:
    """Draw the measured bubble of every case beside the one its schedule cannot avoid."""
    figure, ax = new_axes()
    rows = [c for c in contest.contenders if math.isfinite(c.bubble_bound)]
    groups = _by_ranks([c.entry for c in rows])
    for row, y in zip(rows, _heights(groups), strict=True):
        measured = Interval(row.bubble.n, *(100 * v for v in (row.bubble.median, row.bubble.low, row.bubble.high)))
        if math.isfinite(measured.median):
            ax.barh(y - 0.18, measured.median, height=0.34, color=BLUE, label=once(ax, "measured"))
            _draw_interval(ax, measured, y - 0.18)
        ax.barh(
            y + 0.18, 100 * row.bubble_bound, height=0.34, color=SILVER, hatch="////", edgecolor="white", linewidth=0,
            label=once(ax, "bound: what the schedule must idle"),
        )  # fmt: skip
        if row.bubble_bound < 0.002:  # a bar of no length is still an answer
            ax.plot([0, 0], [y + 0.02, y + 0.34], color=GREY, linewidth=2.0, zorder=3, clip_on=False)
    texts = [f"{format_percent(r.bubble.median)}\n{format_percent(r.bubble_bound)}" for r in rows]
    _group_axis(ax, groups, texts)
    highest = max(max(_top(r.bubble), r.bubble_bound) for r in rows)
    ticks = value_axis(ax, 0.0, max(100 * highest, 1.0), log=False)
    set_ticks(ax.xaxis, ticks, [f"{number(t)} %" for t in ticks])
    ax.set_xlabel("share of the ranks' time that is no work")
    title = "Bubble: measured, and what the schedule must idle"
    alt = "A pair of bars a case: the measured bubble and its bound. " + _sentences(
        [r.entry for r in rows],
        [f"measured {format_percent(r.bubble.median)}, bound {format_percent(r.bubble_bound)}" for r in rows],
    )
    caption = (
        "Measured: 1 − (forward + backward + weight gradient + update) / step, mean over ranks, median over "
        "repetitions with its 95 % interval; communication counts as bubble, but for what a tensor split exchanges "
        "inside its tasks. Bound: the idle share of the same schedule when messages are free and every task takes "
        "exactly its operations' share."
    )
    _finish(figure, ax, title, rows, groups)
    return Drawing(name, "strategies", title, caption, alt, figure)


def draw_memory(name: str, contest: Contest) -> Drawing:
    """Draw what the engines of the ranks allocated, the largest as a bar and each rank as a dot."""
    figure, ax = new_axes()
    rows = [c for c in contest.contenders if c.entry.case.memory_known]
    serial = contest.weighed_base
    groups: list[Group] = _by_ranks([c.entry for c in rows])
    if serial is not None and rows[0].point.n_ranks == 1:
        groups[0][1].insert(0, serial)
    elif serial is not None:
        groups.insert(0, ("1 rank", [serial]))
    entries = [e for _, members in groups for e in members]
    unit = choose_unit(max(float(e.case.memory_bytes.max()) for e in entries), BYTES)
    for entry, y in zip(entries, _heights(groups), strict=True):
        sizes = entry.case.memory_bytes / unit.factor
        ax.barh(y, sizes.max(), height=0.56, color=SKY, label=once(ax, "rank with the most"))
        if 1 < sizes.size <= MOST_DOTS:
            ax.plot(
                sizes, [y] * sizes.size, marker="|", markersize=9, markeredgewidth=1.2, color=BLACK,
                linestyle="none", label=once(ax, "each rank"), zorder=3,
            )  # fmt: skip
    if serial is not None:
        whole = serial.case.memory_bytes.max() / unit.factor
        ax.axvline(whole, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1.5, label="the serial run")
    texts = [format_bytes(float(e.case.memory_bytes.max())) for e in entries]
    _group_axis(ax, groups, texts)
    _size_axis(ax, max(float(e.case.memory_bytes.max()) for e in entries), unit)
    title = "Memory of a rank"
    alt = "Memory that each rank's engine allocated, one bar a way of splitting, grouped by ranks. " + _sentences(
        entries, [f"at most {text} a rank" for text in texts]
    )
    on_gpu = ", on its GPU where it has one" if any(e.case.on_gpu for e in entries) else ""
    caption = (
        f"What a rank's engine allocated{on_gpu}: parameters, gradients, optimizer, activations and buffers; neither "
        "Python, the libraries nor the data."
    )
    _finish(figure, ax, title, rows, groups)
    return Drawing(name, "strategies", title, caption, alt, figure)


def _size_axis(ax: Axes, high: float, unit: Unit) -> None:
    ticks = value_axis(ax, 0.0, high / unit.factor, log=False)
    set_ticks(ax.xaxis, ticks, [number(t) for t in ticks])
    ax.set_xlabel(f"memory [{unit.name}]")


def _by_ranks(entries: Sequence[Entry]) -> list[Group]:
    groups = groupby(entries, key=lambda e: e.case.n_ranks)
    return [(plural(n_ranks, "rank"), list(members)) for n_ranks, members in groups]


HEADING = 0.7
"""Height of a heading, in rows."""


def _heights(groups: Sequence[Group]) -> list[float]:
    """Return where each case's row lies, headings between."""
    heights, y = [], 0.0
    for _, members in groups:
        heights += [y + HEADING + k for k in range(len(members))]
        y += HEADING + len(members)
    return heights


def _group_axis(ax: Axes, groups: Sequence[Group], right: Sequence[str]) -> None:
    """Name the rows, with a heading above each group, and write a number right of each."""
    heights = _heights(groups)
    labels = wrapped(entry_labels([e for _, members in groups for e in members]))
    row_axis(ax, labels, right, heights)
    first = 0
    for heading, members in groups:
        ax.annotate(
            heading, (0.0, heights[first] - 0.45 - HEADING / 2), xycoords=("axes fraction", "data"), xytext=(-5, -1),
            textcoords="offset points", ha="right", va="center", fontsize=8.5, fontweight="bold", color="#202124",
        )  # fmt: skip
        first += len(members)


def _draw_interval(ax: Axes, interval: Interval, y: float) -> None:
    if has_bounds(interval):
        ax.errorbar(
            interval.median, y, xerr=[[interval.median - interval.low], [interval.high - interval.median]],
            color=BLACK, capsize=2.5, capthick=1.0, elinewidth=1.0, linestyle="none", zorder=4,
        )  # fmt: skip


def _top(interval: Interval | None) -> float:
    """Return how far an interval reaches; 0 where there is nothing to draw."""
    ends = (interval.median, interval.high) if interval else ()
    return max((end for end in ends if math.isfinite(end)), default=0.0)


def _sentences(entries: Sequence[Entry], words: Sequence[str]) -> str:
    return " ".join(f"{label}: {text}." for label, text in zip(entry_labels(entries), words, strict=True))


def _finish(
    figure: Figure, ax: Axes, title: str, rows: Sequence[Contender], groups: Sequence[Group], more: str = ""
) -> None:
    two_lines = any("\n" in text.get_text() for text in (*ax.get_yticklabels(), *ax.texts))
    n_rows = sum(HEADING + len(members) for _, members in groups)
    finish(
        figure, ax, title, common_problem([r.entry.case for r in rows]) + more,
        height_in=(ROW_OF_TWO_IN if two_lines else ROW_IN) * max(2.0, n_rows), right_in=widest_text_in(ax) + 0.2,
    )  # fmt: skip
