"""A sheet of several panels in rows and columns, laid out in inches as :mod:`.canvas` does for one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcrnn.reporting.figures.canvas import GREY, WIDE_IN, WIDTH_IN, legend_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Grid = list[list["Axes"]]

_LINE_IN = 0.165
_HEADING_IN = 0.24
"""Room above a panel that has a heading."""


def new_panels(n_rows: int, n_columns: int, *, share_x: bool = False) -> tuple[Figure, Grid]:
    """Return a figure and its axes by row and column; :func:`finish_panels` gives all their size.

    Parameters
    ----------
    n_rows, n_columns : int
    share_x : bool
        Whether the panels of a column have one x axis, named below the lowest.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE_IN, 4.0), dpi=100)
    FigureCanvasAgg(figure)
    grid: Grid = []
    for row in range(n_rows):
        shared = [grid[0][k] if share_x and row else None for k in range(n_columns)]
        grid.append([figure.add_axes((0.1, 0.1, 0.3, 0.3), label=f"{row},{k}", sharex=s) for k, s in enumerate(shared)])
        if share_x and row < n_rows - 1:
            for ax in grid[-1]:
                ax.tick_params(axis="x", labelbottom=False)
    return figure, grid


def finish_panels(
    figure: Figure,
    grid: Grid,
    title: str,
    subtitle: str,
    *,
    heights_in: Sequence[float],
    width_in: float = WIDE_IN,
    right_in: float = 0.2,
    gap_in: float = 0.14,
) -> Figure:
    """Lay a sheet out: title above, one legend below, panels between with the room their labels take.

    Parameters
    ----------
    figure, grid
        As :func:`new_panels` returned them, drawn on. The legend is made of the labelled artists, each label once.
    title, subtitle : str
    heights_in : sequence of float
        Of the panels of each row, inches.
    width_in : float
        Of the whole, inches.
    right_in, gap_in : float
        Room right of each panel and below each, inches, beside what labels take.
    """
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    wider = width_in / WIDTH_IN
    legend, legend_in = _legend(figure, grid, width_in, renderer)
    lines = textwrap.wrap(subtitle, round(84 * wider))
    n_columns = len(grid[0])
    left_in = [max(_size_in(row[k].yaxis, renderer)[0] for row in grid) + 0.16 for k in range(n_columns)]
    below_in = [max(_size_in(ax.xaxis, renderer)[1] for ax in row) + gap_in for row in grid]
    above_in = [_HEADING_IN if any(ax.get_title(loc="left") for ax in row) else 0.0 for row in grid]
    panel_in = (width_in - sum(left_in) - right_in * n_columns) / n_columns
    top_in = 0.46 + _LINE_IN * len(lines)
    total_in = top_in + sum(above_in) + sum(heights_in) + sum(below_in) + legend_in
    figure.set_size_inches(width_in, total_in)
    y = total_in - top_in
    for row, height, above, below in zip(grid, heights_in, above_in, below_in, strict=True):
        y -= above + height
        x = 0.0
        for ax, left in zip(row, left_in, strict=True):
            x += left
            ax.set_position((x / width_in, y / total_in, panel_in / width_in, height / total_in))
            x += panel_in + right_in
        y -= below
    if legend is not None:
        legend.set_bbox_to_anchor((0.1 / width_in, 0.08 / total_in), transform=figure.transFigure)
    for k in range(n_columns):
        figure.align_ylabels([row[k] for row in grid])
    left = 0.12 / width_in
    figure.text(left, 1 - 0.24 / total_in, title, fontsize=10.5, fontweight="bold", color="#202124", va="center")
    for index, line in enumerate(lines):
        below = 1 - (0.44 + _LINE_IN * index) / total_in
        figure.text(left, below, line, fontsize=8, color=GREY, va="center")
    return figure


def _legend(figure: Figure, grid: Grid, width_in: float, renderer: Any) -> tuple[Any, float]:
    """Make one legend of all panels; returns it and the height it takes, inches."""
    named: dict[str, Any] = {}
    for row in grid:
        for ax in row:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                named.setdefault(label, handle)
    if not named:
        return None, 0.0
    columns = legend_columns(list(named), width_in / WIDTH_IN)
    where = (0.1 / width_in, 0.0)
    legend = figure.legend(list(named.values()), list(named), loc="lower left", bbox_to_anchor=where, ncols=columns)
    return legend, legend.get_window_extent(renderer).height / figure.dpi + 0.14


def _size_in(axis: Any, renderer: Any) -> tuple[float, float]:
    """Return width and height of what an axis takes with its ticks and labels, inches."""
    box, dpi = axis.get_tightbbox(renderer), float(axis.axes.figure.dpi)
    return (box.width / dpi, box.height / dpi) if box is not None else (0.0, 0.0)
