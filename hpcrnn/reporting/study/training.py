"""What training does to the meeting length: a figure of a study, a column of panels for each workload."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.study import StudyTable
from hpcrnn.reporting.figures.canvas import BLACK, VERMILLION, Drawing, linear_axis
from hpcrnn.reporting.figures.panels import finish_panels, new_panels
from hpcrnn.reporting.study.columns import facts_line, is_known, log_scale, numbers, styled, texts
from hpcrnn.reporting.units import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAINING_ROWS = (
    ("meeting length\n[time steps]", ("meeting_forward", "meeting_backward"), 1.7),
    ("rounds", ("rounds_forward", "rounds_backward"), 0.7),
    ("Lyapunov\n[1 / step]", ("lyapunov",), 0.9),
    ("gradient\nerror", ("gradient_error", "serial_error"), 0.9),
    ("loss", ("loss",), 0.9),
)
"""Label, columns and height of each panel; a row without numbers is left out."""

_DASHED = ("meeting_backward", "rounds_backward", "serial_error")
_MOST_MARKERS = 14


def draw_training(table: StudyTable) -> Drawing:
    """Draw what training does to the meeting length, a column of panels for each workload.

    Columns: ``workload``, ``cell``, ``step``, ``meeting_forward``, ``meeting_backward``, ``rounds_forward``,
    ``rounds_backward``, ``lyapunov``, ``gradient_error``, ``serial_error``, ``loss``.
    """
    workloads = list(dict.fromkeys(texts(table, "workload").tolist()))
    cells = texts(table, "cell")
    rows = [row for row in _TRAINING_ROWS if any(is_known(table, column) for column in row[1])]
    figure, grid = new_panels(len(rows), len(workloads), share_x=True)
    for k, workload in enumerate(workloads):
        here = texts(table, "workload") == workload
        for cell, style in styled(cells.tolist()):
            mine = np.flatnonzero(here & (cells == cell))
            mine = mine[np.argsort(numbers(table, "step")[mine], kind="stable")]
            for panels, (_, columns, _) in zip(grid, rows, strict=True):
                for column in (c for c in columns if is_known(table, c)):
                    _draw_course(panels[k], table, column, mine, style)
            if mine.size:
                color, marker, _ = style
                grid[0][k].plot([], [], color=color, marker=marker, markersize=4, label=printable(cell))
        grid[0][k].set_title(f"trained on {printable(workload)}", loc="left", fontsize=9)
        grid[-1][k].set_xlabel("training step")
    for panels, (label, columns, _) in zip(grid, rows, strict=True):
        panels[0].set_ylabel(label)
        for ax in panels:
            _scale_course(ax, columns[0])
    grid[0][0].plot([], [], color=BLACK, label="forward, and error of the run")
    grid[0][0].plot([], [], color=BLACK, linestyle=(0, (4, 1.5)), label="backward, and error of a serial run")
    title = "Meeting length as training proceeds"
    caption = (
        "Trained networks remember longer: then segments take longer to meet. A largest Lyapunov exponent from 0 on, "
        "shaded, is chaos: trajectories that differ never meet. Errors are relative, against float64."
    )
    alt = " ".join(_course_in_words(table, workload) for workload in workloads)
    heights = [height for _, _, height in rows]
    finish_panels(figure, grid, title, facts_line(table), heights_in=heights)
    return Drawing("time_training", "study", title, caption, alt, figure, wide=True)


def _draw_course(ax: Axes, table: StudyTable, column: str, rows: npt.NDArray[np.intp], style: tuple[Any, ...]) -> None:
    color, marker, _ = style
    dashed = column in _DASHED
    every = max(1, math.ceil(rows.size / _MOST_MARKERS))
    ax.plot(
        numbers(table, "step")[rows], numbers(table, column)[rows], color=color, marker=marker, markersize=3.5,
        markevery=(every // 2 if dashed else 0, every), linewidth=1.2 if dashed else 1.5,
        linestyle=(0, (4, 1.5)) if dashed else "-", markerfacecolor="white" if dashed else color,
    )  # fmt: skip


def _scale_course(ax: Axes, column: str) -> None:
    """Scale the y axis by what it shows: lengths and rounds from 0, exponents around 0, errors by powers."""
    from matplotlib.ticker import MaxNLocator

    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    ax.grid(axis="y")
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    if column == "lyapunov":
        spread = max(high, 0.0) - min(low, 0.0) or 1.0
        ax.set_ylim(min(low, 0.0) - 0.12 * spread, max(high, 0.0) + 0.3 * spread)
        ax.axhspan(0.0, ax.get_ylim()[1], color=VERMILLION, alpha=0.13, linewidth=0)
        ax.axhline(0.0, color=VERMILLION, linewidth=0.9)
        ax.yaxis.set_major_locator(MaxNLocator(3))
    elif low > 0 and (column == "gradient_error" or high > 12 * low):
        log_scale(ax, "y", low / 1.6, high * 1.6, most=4)
    elif column.startswith(("meeting", "rounds")):
        linear_axis(ax, high)
        if column.startswith("rounds"):
            ax.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(3))


def _course_in_words(table: StudyTable, workload: str) -> str:
    here = texts(table, "workload") == workload
    said = []
    for cell in dict.fromkeys(texts(table, "cell")[here].tolist()):
        rows = np.flatnonzero(here & (texts(table, "cell") == cell))
        rows = rows[np.argsort(numbers(table, "step")[rows], kind="stable")]
        values = numbers(table, "meeting_forward")[rows]
        known = values[np.isfinite(values)]
        if known.size:
            said.append(f"{cell} from {known[0]:.0f} to {known[-1]:.0f} time steps forward")
    return f"Meeting length while trained on {workload}: {', '.join(said) or 'none met'}."
