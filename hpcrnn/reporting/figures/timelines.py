"""The timeline of a step: ranks upwards, time to the right, every instruction where it ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcrnn.records.messages import Transfer, transfers
from hpcrnn.records.record import Case
from hpcrnn.records.timeline import BUSY_KINDS, Kind, Timeline
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import case_name, describe_problem
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    ON_COLOUR,
    ORANGE,
    PURPLE,
    SILVER,
    SKY,
    WIDE_IN,
    Drawing,
    finish,
    new_axes,
    number,
    set_ticks,
    widest_text_in,
)
from hpcrnn.reporting.figures.rows import row_axis, value_axis
from hpcrnn.reporting.units import SECONDS, choose_unit, format_percent, format_seconds, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIND_COLORS: dict[Kind, str] = {
    "forward": BLUE,
    "backward": SKY,
    "weight gradient": ORANGE,
    "update": GREEN,
    "communication": PURPLE,
}
"""Of what is drawn solid; waiting is what shows through."""

MOST_RANKS = 64
MOST_ARROWS = 60
MOST_VECTORS = 3000
"""Beyond so many bars they are drawn as pixels: a page must stay light."""
_HEIGHT = 0.74
"""Of a bar, in rows."""
_AXES_IN = WIDE_IN - 1.6
_CHARACTER_IN = 0.052
"""Of a name inside its bar."""


def draw_timeline(name: str, entry: Entry) -> Drawing:
    """Draw the timeline of a case, one row a rank.

    Raises
    ------
    ValueError
        The case has none.
    """
    case, timeline = entry.case, entry.case.timeline
    if timeline is None or not len(timeline):
        message = "a case without a timeline cannot be drawn"
        raise ValueError(message)
    figure, ax = new_axes()
    n_rows, end_s = min(case.n_ranks, MOST_RANKS), timeline.end_of_step_s
    unit = choose_unit(end_s, SECONDS)
    scale = 1.0 / unit.factor
    kinds = np.array(timeline.kinds)
    shown = timeline.rank < n_rows
    # What no work covers shows through, whether a wait or the time after a rank's last instruction.
    ax.barh(
        range(n_rows), [end_s * scale] * n_rows, height=_HEIGHT, color="#fbfbfb", hatch="//////", edgecolor=SILVER,
        linewidth=0.0, zorder=1, label="waiting or idle",
    )  # fmt: skip
    for kind, color in KIND_COLORS.items():
        _draw_bars(ax, timeline, np.flatnonzero(shown & (kinds == kind)), scale, color, kind)
    _name_bars(ax, timeline, np.flatnonzero(shown & np.isin(kinds, BUSY_KINDS)), kinds, scale)
    crossing = [t for t in transfers(timeline) if t.send is not None and t.receive_wait is not None]
    arrows = [t for t in crossing if max(t.sender, t.receiver) < n_rows]
    if 0 < len(arrows) <= MOST_ARROWS:
        _draw_arrows(ax, timeline, arrows, scale)
    ax.plot(
        [end_s * scale] * 2, [-0.5, n_rows - 0.5], color=BLACK, linewidth=1.2, linestyle=(0, (4, 2)), zorder=5,
        label=f"end of the step, {format_seconds(end_s)}",
    )  # fmt: skip
    busy = _busy_shares(timeline, kinds, case.n_ranks)
    row_axis(
        ax, [_rank_name(case, rank) for rank in range(n_rows)], [f"{format_percent(b)} busy" for b in busy[:n_rows]],
    )  # fmt: skip
    ax.set_ylim(n_rows - 0.45, -0.55)
    ticks = value_axis(ax, 0.0, end_s * scale, log=False, n_ticks=10)
    set_ticks(ax.xaxis, ticks, [number(t) for t in ticks])
    ax.set_xlabel(f"time since the common start [{unit.name}]")
    ax.grid(visible=False, axis="both")
    finish(
        figure, ax, f"Timeline of no. {entry.number}: {case_name(case)}", describe_problem(case),
        height_in=n_rows * _row_in(n_rows), right_in=widest_text_in(ax) + 0.2, width_in=WIDE_IN,
    )  # fmt: skip
    title = "Timeline of a step"
    return Drawing(name, "timelines", title, _caption(entry, timeline, arrows), _alt(entry, busy), figure, wide=True)


def _draw_bars(ax: Axes, timeline: Timeline, rows: npt.NDArray[np.int64], scale: float, color: str, label: str) -> None:
    """Draw instructions of one kind; a hair of white tells tasks apart, and is not to hide a post."""
    from matplotlib.collections import PolyCollection

    if not rows.size:
        return
    left, right = timeline.start_s[rows] * scale, timeline.end_s[rows] * scale
    below, above = timeline.rank[rows] - _HEIGHT / 2, timeline.rank[rows] + _HEIGHT / 2
    corners = np.stack([(left, below), (right, below), (right, above), (left, above)]).transpose(2, 0, 1)
    bars = PolyCollection(
        list(corners), facecolor=color, edgecolor=color if label == "communication" else "white", linewidth=0.3,
        zorder=2, label=label, rasterized=len(timeline) > MOST_VECTORS,
    )  # fmt: skip
    ax.add_collection(bars, autolim=False)


def _name_bars(
    ax: Axes, timeline: Timeline, rows: npt.NDArray[np.int64], kinds: npt.NDArray[np.str_], scale: float
) -> None:
    """Write the names of tasks into those bars that are long enough."""
    inch_s = timeline.end_of_step_s / _AXES_IN
    for row in rows.tolist():
        text = printable(timeline.instruction[row])
        duration = float(timeline.end_s[row] - timeline.start_s[row])
        if duration > inch_s * _CHARACTER_IN * (len(text) + 1):
            middle = scale * (float(timeline.start_s[row]) + duration / 2)
            ax.text(
                middle, int(timeline.rank[row]), text, fontsize=6, ha="center", va="center", zorder=4,
                color="white" if kinds[row] == "forward" else ON_COLOUR,
            )  # fmt: skip


def _draw_arrows(ax: Axes, timeline: Timeline, messages: Sequence[Transfer], scale: float) -> None:
    """Draw each message from the start of its post to the end of its receiver's wait."""
    for message in messages:
        start = scale * float(timeline.start_s[message.send])
        end = scale * float(timeline.end_s[message.receive_wait])
        side = _HEIGHT / 2 if message.receiver > message.sender else -_HEIGHT / 2
        ax.annotate(
            "", (end, message.receiver - side), (start, message.sender + side), zorder=4.5,
            arrowprops={"arrowstyle": "-|>,head_length=0.28,head_width=0.13", "linewidth": 0.7, "color": BLACK,
                        "shrinkA": 0.0, "shrinkB": 0.0},
        )  # fmt: skip
    ax.plot([], [], color=BLACK, linewidth=0.8, marker=">", markersize=3.5, label="message")


def _busy_shares(timeline: Timeline, kinds: npt.NDArray[np.str_], n_ranks: int) -> list[float]:
    """Return the share of the step that each rank works."""
    work = np.where(np.isin(kinds, BUSY_KINDS), timeline.end_s - timeline.start_s, 0.0)
    seconds = np.bincount(timeline.rank, weights=work, minlength=n_ranks)
    return [float(s) for s in seconds / (timeline.end_of_step_s or np.nan)]


def _rank_name(case: Case, rank: int) -> str:
    """Name a rank, with its place in a grid of several axes."""
    axes, place = [axis for axis, _ in case.split.axes], case.split.place(rank)
    where = ", ".join(str(place[axis]) for axis in axes)
    return f"rank {rank} ({where})" if len(axes) > 1 else f"rank {rank}"


def _row_in(n_rows: int) -> float:
    """Return the height of a row, inches: less where there are many."""
    return 0.42 if n_rows <= 4 else max(0.2, 0.5 - 0.02 * n_rows)


def _caption(entry: Entry, timeline: Timeline, arrows: Sequence[Transfer]) -> str:
    case = entry.case
    what = "A simulated step" if case.simulated else "The counted step nearest to the median"
    left_out = f" The first {MOST_RANKS} of {case.n_ranks} ranks are drawn." if case.n_ranks > MOST_RANKS else ""
    n_arrows = len(arrows)
    if n_arrows > MOST_ARROWS:
        messages = f" Its {n_arrows} messages are too many to draw."
    elif n_arrows:
        messages = " An arrow runs from where a message is posted to the end of its receiver's wait."
    else:
        messages = ""
    axes = [axis for axis, _ in case.split.axes]
    places = f" In brackets a rank's place along {', '.join(axes)}." if len(axes) > 1 else ""
    measured = "" if case.simulated else f", repetition {timeline.repetition + 1} of {len(case.time_s)}"
    return (
        f"{what}{measured}. Hatched is the bubble: what no work and no post covers.{messages}{left_out} "
        f"On the right, each rank's share of the step that is work.{places}"
    )


def _alt(entry: Entry, busy: Sequence[float]) -> str:
    shares = ", ".join(f"rank {rank} {format_percent(share)}" for rank, share in enumerate(busy[:MOST_RANKS]))
    return f"Timeline of one step of {case_name(entry.case)}, one row a rank. Busy: {shares}."
