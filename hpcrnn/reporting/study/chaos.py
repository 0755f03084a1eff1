"""The edge of chaos in a study: rounds over what lengthens memories, and segment length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.study import StudyTable
from hpcrnn.reporting.figures.canvas import VERMILLION, WIDE_IN, WIDTH_IN, Drawing, number, once, set_ticks
from hpcrnn.reporting.figures.panels import finish_panels, new_panels
from hpcrnn.reporting.study.columns import facts_line, numbers, texts
from hpcrnn.reporting.units import plural, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXIS_LABELS = {
    "forget_bias": "forget bias",
    "chrono_span": "chrono initialisation, longest dependence [time steps]",
    "gain": "gain of the recurrent weights",
}


def draw_chaos(table: StudyTable, axis: str) -> Drawing:
    """Draw rounds over forget bias, chrono span or recurrent gain, and segment length, a panel a cell and method.

    Columns: ``axis``, the axis's own (``forget_bias``, ``chrono_span`` or ``gain``), ``segment_steps``, ``rounds``,
    ``max_rounds``, ``lyapunov``, ``cell``, ``method``.

    Parameters
    ----------
    table : StudyTable
    axis : {"forget_bias", "chrono_span", "gain"}
    """
    from matplotlib.colors import LogNorm

    chosen = texts(table, "axis") == axis
    cells = list(dict.fromkeys(texts(table, "cell")[chosen].tolist()))
    methods = list(dict.fromkeys(texts(table, "method")[chosen].tolist()))
    value = numbers(table, axis)
    across = sorted(set(value[chosen].tolist()))
    upwards = sorted(set(numbers(table, "segment_steps")[chosen].astype(int).tolist()))
    figure, grid = new_panels(len(cells), len(methods))
    rounds = numbers(table, "rounds")
    scale = LogNorm(1, max(2.0, float(np.nanmax(rounds[chosen]))))
    n_chaotic = n_full = 0
    for panels, cell in zip(grid, cells, strict=True):
        for ax, method in zip(panels, methods, strict=True):
            mine = np.flatnonzero(chosen & (texts(table, "cell") == cell) & (texts(table, "method") == method))
            chaotic = np.zeros((len(upwards), len(across)), dtype=np.bool_)
            for row in mine:
                place = upwards.index(int(numbers(table, "segment_steps")[row])), across.index(value[row])
                chaotic[place] = numbers(table, "lyapunov")[row] >= 0
                full = rounds[row] >= numbers(table, "max_rounds")[row] > 1
                n_full += full
                _draw_tile(ax, place, rounds[row], scale, full=bool(full))
            n_chaotic += int(chaotic.sum())
            _outline(ax, chaotic)
            ax.set_xlim(-0.5, len(across) - 0.5)
            ax.set_ylim(-0.5, len(upwards) - 0.5)
            set_ticks(ax.xaxis, range(len(across)), [number(v) for v in across])
            set_ticks(ax.yaxis, range(len(upwards)), [str(s) for s in upwards])
            ax.tick_params(length=0)
            ax.set_title(f"{printable(cell)}, {printable(method)}", loc="left", fontsize=9)
            for side in ("left", "bottom"):
                ax.spines[side].set_visible(False)
        panels[0].set_ylabel("segment length [time steps]")
    for ax in grid[-1]:
        ax.set_xlabel(_AXIS_LABELS[axis])
    title = f"Rounds over {_AXIS_LABELS[axis].partition(' [')[0]} and segment length"
    caption = (
        "The number in a field is the rounds until all segments had met. “= P”: as many as there are segments; then "
        "the method is the chain, and gains nothing. Outlined and hatched: the largest Lyapunov exponent is 0 or more, "
        "trajectories are chaotic. An empty field was not run."
    )
    alt = (
        f"{plural(int(chosen.sum()), 'field')}, {n_chaotic} of them chaotic; in {n_full} as many rounds as segments. "
        f"Rounds from {np.nanmin(rounds[chosen]):.0f} to {np.nanmax(rounds[chosen]):.0f}."
    )
    width_in = min(WIDE_IN, max(WIDTH_IN, 1.0 + len(methods) * (0.7 + 0.52 * len(across))))
    heights = [max(1.2, 0.4 * len(upwards))] * len(cells)
    finish_panels(figure, grid, title, facts_line(table), heights_in=heights, width_in=width_in)
    name = f"time_chaos_{axis}"
    return Drawing(name, "study", title, caption, alt, figure, wide=width_in > WIDTH_IN)


def _draw_tile(ax: Axes, place: tuple[int, int], rounds: float, scale: Any, *, full: bool) -> None:
    """Draw a field: its colour, and its number, which needs no colour to be read."""
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    y, x = place
    shade = float(scale(max(rounds, 1.0)))
    face = mpl.colormaps["Blues"](0.08 + 0.8 * shade)
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1.2, zorder=1))
    text = f"{rounds:.0f}\n= P" if full else f"{rounds:.0f}"
    ax.text(
        x, y, text, ha="center", va="center", fontsize=8, color="white" if shade > 0.55 else "#202124", zorder=4,
        linespacing=0.95, bbox={"facecolor": face, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def _outline(ax: Axes, chosen: npt.NDArray[np.bool_]) -> None:
    """Draw a line around fields, and hatch them."""
    from matplotlib.patches import Rectangle

    padded = np.pad(chosen, 1)
    label = "chaotic: Lyapunov exponent ≥ 0"
    for y, x in np.argwhere(chosen):
        field: dict[str, Any] = {"fill": False, "hatch": "....", "edgecolor": VERMILLION, "linewidth": 0, "zorder": 2}
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, label=once(ax, label), **field))
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            if padded[y + 1 + dy, x + 1 + dx]:
                continue
            # The side in this direction: half a field away, and half a field to both sides of that.
            middle_x, middle_y, half_x, half_y = x + dx / 2, y + dy / 2, abs(dy) / 2, abs(dx) / 2
            ax.plot(
                (middle_x - half_x, middle_x + half_x), (middle_y - half_y, middle_y + half_y), color=VERMILLION,
                linewidth=2.2, solid_capstyle="projecting", zorder=3, clip_on=False,
            )  # fmt: skip
