"""The figure of where the ranks' time goes: the serial run's part of it, and what the rest is lost to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.reporting.analysis.accounting import Account, Part, account_all
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    ORANGE,
    PALE,
    PURPLE,
    SILVER,
    VERMILLION,
    Drawing,
    Sheet,
    new_axes,
    number,
    once,
    pages,
    set_ticks,
)
from hpcrnn.reporting.figures.rows import ROWS_A_FIGURE, entry_labels, finish_rows, row_axis, value_axis, wrapped
from hpcrnn.reporting.tables.accounting import PART_NAMES, lost_text
from hpcrnn.reporting.units import format_percent, format_ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: dict[Part, tuple[str, str]] = {
    "communication": (VERMILLION, "\\\\\\\\"),
    "waiting": (SILVER, "////"),
    "work": (ORANGE, ""),
    "not_given": (PURPLE, "xxxx"),
    "other": (PALE, ""),
}
"""Colour and hatch of what time is lost to."""

FURTHEST = 150.0
"""Percent: the mark of a serial run that takes longer than this share of the ranks' time lies at the edge."""


def plan_accounts(entries: Sequence[Entry]) -> Iterator[Sheet]:
    """Plan the figures of all cases that have a serial run to stand beside."""
    yield from pages(account_all(entries), ROWS_A_FIGURE, "accounting", draw_accounts)


def draw_accounts(name: str, accounts: Sequence[Account]) -> Drawing:
    """Draw the ranks' time of each case as a bar of 100 %.

    Where the ranks need less of something than the serial run, the bar of the serial run ends as much earlier, and the
    mark of its time lies beyond it.
    """
    figure, ax = new_axes()
    rows = range(len(accounts))
    ends = np.array([100 * (a.useful + sum(min(share, 0.0) for share in a.lost.values())) for a in accounts])
    ax.barh(
        rows, ends, height=0.62, color=BLUE, edgecolor="white", linewidth=0.6, label="as in the serial run",
    )  # fmt: skip
    for part, (color, hatch) in STYLES.items():
        widths = np.array([100 * max(a.lost.get(part, 0.0), 0.0) for a in accounts])
        if widths.any():
            ax.barh(
                rows, widths, left=ends, height=0.62, color=color, hatch=hatch, edgecolor="white", linewidth=0.6,
                label=PART_NAMES[part],
            )  # fmt: skip
        ends = ends + widths
    _mark_serial(ax, [100 * account.useful for account in accounts])
    entries = [account.entry for account in accounts]
    row_axis(ax, wrapped(entry_labels(entries)), [_right_text(account) for account in accounts])
    ticks = value_axis(ax, 0.0, min(max(100.0, *(100 * a.useful for a in accounts)), FURTHEST), log=False, n_ticks=3)
    set_ticks(ax.xaxis, ticks, [f"{number(tick)} %" for tick in ticks])
    ax.set_xlabel("share of the ranks' time, ranks × step")
    title = "Where the ranks' time goes"
    alt = "Bars of the ranks' time, one row a case: what a serial run takes of it, and what the rest is lost to. "
    alt += " ".join(f"{label}: {lost_text(a)}." for label, a in zip(entry_labels(entries), accounts, strict=True))
    caption = (
        "All of a bar is ranks times the step, mean over the steps between the quartiles. Blue is what the serial run "
        "on the same hardware has of it, the rest what was lost. The black mark is the serial run's time: where it "
        "lies beyond the blue, the ranks together needed less for the same work. On the right speedup and efficiency."
    )
    finish_rows(figure, ax, title, entries)
    return Drawing(name, "accounting", title, caption, alt, figure)


def _mark_serial(ax: Axes, useful: Sequence[float]) -> None:
    """Mark the serial run's time in each row; beyond the axis, that it lies there."""
    for row, percent in enumerate(useful):
        beyond = percent > FURTHEST
        ax.plot(
            min(percent, FURTHEST), row, marker=">" if beyond else "|", markersize=6 if beyond else 15,
            markeredgewidth=1.6, color=BLACK, linestyle="none", zorder=3,
            label=once(ax, f"the serial run's time, beyond {FURTHEST:.0f} %" if beyond else "the serial run's time"),
        )  # fmt: skip


def _right_text(account: Account) -> str:
    return f"{format_ratio(account.speedup.median)}, {format_percent(account.efficiency.median)}"
