"""The pace of ranks over the steps, where one of them became slow: when, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.onsets import Onset, find_onsets, pace_of_ranks
from hpcrnn.reporting.describe import common_problem
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Drawing,
    Sheet,
    finish,
    linear_axis,
    new_axes,
    once,
)
from hpcrnn.reporting.figures.rows import entry_labels
from hpcrnn.reporting.tables.ranks import onset_sentence
from hpcrnn.reporting.units import format_ratio

_LOOKS = ((VERMILLION, "o"), (PURPLE, "s"), (GREEN, "^"), (ORANGE, "D"))
"""Of the ranks that became slow."""


def plan_onsets(entries: Iterable[Entry]) -> Iterator[Sheet]:
    """Plan a figure for each case of which a rank became slow."""
    found = [(entry, onsets) for entry in entries if (onsets := find_onsets(entry))]
    for index, (entry, onsets) in enumerate(found, 1):
        name = "onset" if len(found) == 1 else f"onset_{index}"
        yield Sheet("onset", name, partial(draw_onsets, name, entry, onsets))


def draw_onsets(name: str, entry: Entry, onsets: tuple[Onset, ...]) -> Drawing:
    """Draw busy time over the others', step by step: a dot a rank, of the ranks that became slow in colour."""
    from matplotlib.ticker import MaxNLocator

    pace = pace_of_ranks(entry)
    if pace is None:
        raise ValueError(name)
    figure, ax = new_axes()
    steps = np.arange(len(pace))
    slow = {onset.rank: _LOOKS[k % len(_LOOKS)] for k, onset in enumerate(onsets)}
    for rank in range(entry.case.n_ranks):
        color, marker = slow.get(rank, (SKY, "o"))
        ax.plot(
            steps, pace[:, rank], marker, color=color, markersize=4.5 if rank in slow else 3.0, markeredgewidth=0,
            zorder=2 + (rank in slow), label=once(ax, f"rank {rank}" if rank in slow else "the other ranks"),
        )  # fmt: skip
    for onset in onsets:
        ax.axvline(
            onset.step - 0.5, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), label=once(ax, "the change found")
        )  # fmt: skip
        for start, stop, part in ((0, onset.step, onset.before), (onset.step, onset.n_steps, onset.after)):
            ax.plot(
                (start - 0.5, stop - 0.5), (part.median, part.median), color=BLACK, linewidth=1.4, zorder=4,
                label=once(ax, "median before, and from then on"),
            )  # fmt: skip
        ax.annotate(
            format_ratio(onset.after.median), (onset.n_steps - 0.5, onset.after.median), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8, color="#202124", annotation_clip=False,
        )  # fmt: skip
    linear_axis(ax, float(pace.max()), "×")
    ax.grid(axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    ax.set_xlim(-0.5, len(pace) - 0.5)
    leg_steps = onsets[0].leg_steps
    ax.set_xlabel("counted step" if leg_steps == 1 else f"counted leg, of {leg_steps} steps")
    (label,) = entry_labels([entry])
    title = "A rank became slow" if len(onsets) == 1 else "Ranks became slow"
    finish(figure, ax, title, f"{label} · {common_problem([entry.case])}")
    said = "; ".join(map(onset_sentence, onsets))
    caption = f"Busy time of a rank over the median of all others', in each step. {said[0].upper()}{said[1:]}."
    alt = f"One dot a step and rank, of {len(pace)} steps and {entry.case.n_ranks} ranks; {said}."
    return Drawing(name, "ranks", title, caption, alt, figure)
