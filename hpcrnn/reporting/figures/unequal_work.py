"""Figures of sequences of unequal length: how long they are, and what that costs each way of batching them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.records.work import Work
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.unequal_work import WorkCost, work_costs
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    SILVER,
    VERMILLION,
    Drawing,
    Sheet,
    finish,
    linear_axis,
    new_axes,
    number,
    once,
    pages,
    set_ticks,
)
from hpcrnn.reporting.figures.rows import ROWS_A_FIGURE, entry_labels, finish_rows, row_axis, value_axis, wrapped
from hpcrnn.reporting.tables.unequal_work import QUANTILES, data_text, rate_text
from hpcrnn.reporting.units import format_percent, has_bounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCHINGS = ("naive", "sorted", "packed")
"""From the one that costs the most."""

BARS = 48
"""Of a histogram, at the most."""

_NAME_WIDTH = 0.2
"""Of the axis, what the name of a quantile takes."""
_PADDING_AT, _WAIT_AT, _THICK = -0.17, 0.17, 0.3
"""Where in a row its two bars lie, and how thick they are."""


def plan_unequal_work(entries: Sequence[Entry]) -> Iterator[Sheet]:
    """Plan the figures of all cases whose sequences are of unequal length."""
    costs = work_costs(entries)
    data: dict[tuple[str, bytes], WorkCost] = {}
    for cost in costs:
        data.setdefault((data_text(cost), cost.work.n_sequences.tobytes()), cost)
    yield from pages(list(data.values()), 1, "lengths", lambda name, one: draw_lengths(name, one[0]))
    several = [cost for cost in costs if cost.entry.case.n_ranks > 1]  # alone, a rank waits for nobody
    yield from pages(sorted(several or costs, key=_beside), ROWS_A_FIGURE, "unequal_work", draw_costs)


def _beside(cost: WorkCost) -> tuple[int, str, str, int]:
    """Order cases so that ways of batching the same data stand below one another."""
    problem = cost.entry.case.spec["problem"]
    batching = problem.get("batching", BATCHINGS[0])
    place = BATCHINGS.index(batching) if batching in BATCHINGS else len(BATCHINGS)
    return cost.entry.case.n_ranks, data_text(cost), str(problem.get("spread", "even")), place


def draw_lengths(name: str, cost: WorkCost) -> Drawing:
    """Draw how many sequences there are of each length, and mark the quantiles."""
    figure, ax = new_axes()
    counts = cost.work.n_sequences
    width = -(-len(counts) // BARS)
    edges = np.arange(0, len(counts) + width, width)
    shares = [100 * counts[start : start + width].sum() / counts.sum() for start in edges[:-1]]
    ax.bar(
        edges[:-1] + 0.5, shares, width=width, align="edge", color=BLUE, edgecolor="white", linewidth=0.4,
        label=f"sequences, by {width} steps" if width > 1 else "sequences",
    )  # fmt: skip
    _mark_quantiles(ax, cost.work)
    linear_axis(ax, 1.3 * max(shares), " %")
    ax.set_xlim(0, len(counts) + width)
    ax.set_xlabel("length of a sequence [time steps]")
    ax.set_ylabel("share of the sequences")
    title = "How long the sequences are"
    described = ", ".join(
        f"{100 * q:g} % are at most {n}" for q, n in zip(QUANTILES, cost.work.quantiles(QUANTILES), strict=True)
    )
    alt = f"Histogram of the lengths of {counts.sum():,} sequences: {described}, the longest {len(counts)} steps."
    caption = f"{data_text(cost)}. What is longer than {len(counts)} steps is cut and goes on as a further sequence."
    finish(figure, ax, title, f"{data_text(cost)}, {counts.sum():,} sequences")
    return Drawing(name, "unequal_work", title, caption, alt, figure)


def _mark_quantiles(ax: Axes, work: Work) -> None:
    """Draw a line at each quantile up to its name, each higher than the last, so that names cross no other line."""
    named: dict[int, list[str]] = {}
    for share, length in zip(QUANTILES, work.quantiles(QUANTILES), strict=True):
        named.setdefault(int(length), []).append(f"{100 * share:g} %")
    for row, (length, shares) in enumerate(named.items()):
        height = 0.98 - 0.07 * (len(named) - 1 - row)
        dashes = (0, (3, 2))
        ax.axvline(length, ymax=height, color=BLACK, linewidth=0.9, linestyle=dashes, label=once(ax, "quantiles"))
        left = length > _NAME_WIDTH * len(work.n_sequences)
        ax.annotate(
            f"{' and '.join(shares)}: {length}", (length, height), xycoords=("data", "axes fraction"),
            xytext=(-4 if left else 4, 0), textcoords="offset points", ha="right" if left else "left", va="top",
            fontsize=7.5, color="#3c4043",
        )  # fmt: skip


def draw_costs(name: str, costs: Sequence[WorkCost]) -> Drawing:
    """Draw for each case what share of its slots is padding, and of its ranks' time waiting for unequal work."""
    figure, ax = new_axes()
    padding = [100 * cost.work.waste for cost in costs]
    rows = np.arange(len(costs))
    ax.barh(
        rows + _PADDING_AT, padding, height=_THICK, color=SILVER, hatch="////", edgecolor="white", linewidth=0.6,
        label="padding, of the slots",
    )  # fmt: skip
    for row, cost in enumerate(costs):
        _draw_wait(ax, row + _WAIT_AT, cost)
    entries = [cost.entry for cost in costs]
    labels = entry_labels(entries)
    row_axis(ax, wrapped(labels), [f"{rate_text(cost)} tokens/s" for cost in costs])
    shown = [*padding, *(100 * _furthest(cost) for cost in costs)]
    ticks = value_axis(ax, 0.0, max(10.0, *shown), log=False)
    set_ticks(ax.xaxis, ticks, [f"{number(tick)} %" for tick in ticks])
    ax.set_xlabel("share of the slots, of the ranks' time")
    title = "What unequal lengths cost"
    alt = "Two bars a case: padding, and waiting for unequal work. " + " ".join(
        f"{label}: padding {format_percent(cost.work.waste)}{_wait_words(cost)}, {rate_text(cost)} tokens/s."
        for label, cost in zip(labels, costs, strict=True)
    )
    told = {cost.told_from for cost in costs if cost.waited}
    caption = (
        "Padding: time steps that are run and hold nothing. Waiting: the share of the ranks' time that passes while "
        "the rank with the longest work of a step is still at it"
        f"{', by ' + ' or '.join(sorted(told)) if told else ''}, with its 95 % interval. The black mark is what the "
        "slots that each rank runs let expect."
    )
    finish_rows(figure, ax, title, entries)
    return Drawing(name, "unequal_work", title, caption, alt, figure)


def _draw_wait(ax: Axes, height: float, cost: WorkCost) -> None:
    """Draw the bar of waiting, its interval, and the mark of what was predicted."""
    waited = cost.waited
    if waited is None:
        return
    ax.barh(
        height, 100 * waited.median, height=_THICK, color=VERMILLION, edgecolor="white", linewidth=0.6,
        label=once(ax, "waiting for unequal work, of the ranks' time"),
    )  # fmt: skip
    if has_bounds(waited):
        ends = (100 * waited.low, 100 * waited.high)
        ax.plot(ends, (height, height), color=BLACK, linewidth=1.2, label=once(ax, "95 % interval"), zorder=3)
    ax.plot(
        100 * cost.work.slot_imbalance, height, marker="|", markersize=9, markeredgewidth=1.8, color=BLACK,
        linestyle="none", label=once(ax, "predicted from slots"), zorder=4,
    )  # fmt: skip


def _furthest(cost: WorkCost) -> float:
    """The largest share that is drawn of a case's waiting."""
    waited = cost.waited
    if waited is None:
        return 0.0
    return max(waited.high if has_bounds(waited) else waited.median, cost.work.slot_imbalance)


def _wait_words(cost: WorkCost) -> str:
    if cost.waited is None:
        return ""
    return f", waiting {format_percent(cost.waited.median)}, {format_percent(cost.work.slot_imbalance)} predicted"
