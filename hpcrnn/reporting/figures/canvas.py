"""The sheet a figure is drawn on: palette, layout in inches, axes that need no second look.

Colours are Okabe and Ito's (*Color Universal Design*, 2008); marker, line style and hatch repeat what colour
says, for print and for every kind of sight.  Layout is in inches, measured from the text itself, so that
neither one case nor forty make labels overlap.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hpcrnn.reporting.units import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Item = TypeVar("Item")

BLACK, GREY, PALE = "#000000", "#5f6368", "#dfe1e5"
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW = "#E69F00", "#56B4E9", "#F0E442"
SILVER = "#c9ccd1"
ON_COLOUR = "#101010"
"""Text on a bright colour: dark on a dark page too, where black turns into light grey."""

SERIES_STYLES = (
    (BLUE, "o", "-"),
    (VERMILLION, "s", (0, (5, 1.5))),
    (GREEN, "^", (0, (1.2, 1.2))),
    (PURPLE, "D", (0, (6, 1.5, 1.2, 1.5))),
    (ORANGE, "v", "-"),
    (SKY, "P", (0, (5, 1.5))),
    (BLACK, "X", (0, (1.2, 1.2))),
    (GREY, "*", (0, (6, 1.5, 1.2, 1.5))),
)
"""Colour, marker and line style of a series. Yellow is left to bars: as a line it is lost on white."""

PHASE_STYLES = {
    "forward": (BLUE, ""),
    "backward": (SKY, "////"),
    "weight_gradient": (ORANGE, ""),
    "post": (PURPLE, ""),
    "wait_recv": (SILVER, "////"),
    "wait_send": (SILVER, "xxxx"),
    "allreduce": (VERMILLION, "\\\\\\\\"),
    "update": (GREEN, "...."),
    "other": (PALE, ""),
}
"""Colour and hatch of the phases of a step."""
MORE_PHASE_STYLES = ((YELLOW, ""), (PURPLE, "xxxx"), (YELLOW, "////"), (GREEN, ""))
"""Of phases this version does not know, in the order they first appear."""

PNG_DPI = 200
WIDTH_IN = 5.2
"""Width of a figure: at the width of a telephone its 9 pt text is still 9 px high."""
WIDE_IN = 9.4
"""Width of a figure that takes the whole page; a telephone scrolls it."""

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": "#202124",
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "#202124",
    "ytick.labelcolor": "#202124",
    "grid.color": PALE,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "legend.borderpad": 0.0,
    "legend.labelspacing": 0.45,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # no font is asked of the reader's machine
    "svg.hashsalt": "hpcrnn",  # the same record gives the same bytes
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a dollar in a path is a dollar
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure and the words around it.

    Attributes
    ----------
    name : str
        Stem of its files.
    section : str
        Where in the report it belongs: ``target``, ``strong``, ``weak``, ``accounting``, ``strategies``,
        ``strategy_map``, ``over_time``, ``unequal_work``, ``steps``, ``ranks``, ``phases``, ``roofline``,
        ``timelines`` or ``loss``.
    title, caption, alt : str
        ``alt`` says in words what the picture shows.
    figure : matplotlib.figure.Figure
    wide : bool
        Whether it takes the width of the page.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    figure: Figure
    wide: bool = False


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw and save under one style, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        # A path may hold characters the font has not: a box in the figure, no line in the batch log.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_axes() -> tuple[Figure, Axes]:
    """Return a figure and its one axes; :func:`finish` gives both their size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 4.0), dpi=100)
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0.1, 0.1, 0.8, 0.8))


def finish(
    figure: Figure,
    ax: Axes,
    title: str,
    subtitle: str,
    *,
    height_in: float = 2.6,
    right_in: float = 0.22,
    width_in: float = WIDTH_IN,
) -> Figure:
    """Lay a figure out: title above, legend below, the axes between with the room their labels take.

    Parameters
    ----------
    figure, ax
        As :func:`new_axes` returned them, drawn on. The legend is made of the labelled artists.
    title, subtitle : str
    height_in : float
        Height of the axes, inches.
    right_in : float
        Room right of the axes, inches.
    width_in : float
        Width of the whole, inches.
    """
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    wider = width_in / WIDTH_IN
    handles, labels = ax.get_legend_handles_labels()
    legend_in = 0.0
    if handles:
        labels = [textwrap.fill(label, round(80 * wider)) for label in labels]
        columns = legend_columns(labels, wider)
        legend = figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0.1 / width_in, 0.0), ncols=columns)
        legend_in = legend.get_window_extent(renderer).height / figure.dpi + 0.12
    lines = textwrap.wrap(subtitle, round(84 * wider))
    top_in = 0.42 + 0.165 * len(lines)
    left_in = _extent(ax.yaxis, renderer).width / figure.dpi + 0.2
    below_in = _extent(ax.xaxis, renderer).height / figure.dpi + 0.16
    total_in = top_in + height_in + below_in + legend_in
    figure.set_size_inches(width_in, total_in)

    def place(right_in: float) -> None:
        wide, high = 1 - (left_in + right_in) / width_in, height_in / total_in
        ax.set_position((left_in / width_in, (below_in + legend_in) / total_in, wide, high))

    place(right_in)
    # A number beside the last marker may be longer than the room there.
    ends = [text.get_window_extent(renderer).x1 for text in ax.texts]
    beyond_in = max(ends, default=0.0) / figure.dpi - width_in
    if beyond_in > 0:
        place(right_in + beyond_in + 0.04)
    # Under narrow axes a label is wider than these: it grows to the left, where the names of the rows are.
    if ax.xaxis.label.get_window_extent(renderer).x1 / figure.dpi > width_in:
        ax.set_xlabel(ax.get_xlabel(), loc="right")
    if handles:
        legend.set_bbox_to_anchor((0.1 / width_in, 0.08 / total_in), transform=figure.transFigure)
    x, y = 0.12 / width_in, 1 - 0.24 / total_in
    figure.text(x, y, title, fontsize=10.5, fontweight="bold", color="#202124", va="center")
    for index, line in enumerate(lines):
        below = 1 - (0.44 + 0.165 * index) / total_in
        figure.text(x, below, line, fontsize=8, color=GREY, va="center")
    return figure


def _extent(axis: Any, renderer: Any) -> Any:
    """Return what an axis takes with its ticks and labels, in dots."""
    return axis.get_tightbbox(renderer)


def widest_text_in(ax: Axes) -> float:
    """Return the width of the widest annotation of the axes, inches."""
    canvas: Any = ax.figure.canvas
    renderer = canvas.get_renderer()
    widths = [text.get_window_extent(renderer).width for text in ax.texts]
    return float(max(widths, default=0.0)) / float(ax.figure.dpi)


def legend_columns(labels: Sequence[str], wider: float = 1.0) -> int:
    """Return how many columns a legend may have: as many as the longest label leaves room for."""
    longest = max(max(len(line) for line in label.splitlines() or [""]) for label in labels)
    return max(1, min(round(4 * wider), len(labels), int(79 * wider) // (longest + 9)))


def rank_axis(ax: Axes, counts: Sequence[int]) -> None:
    """Make the x axis ranks, base 2, with a tick at each count that was measured, as far as there is room."""
    low, high = min(counts), max(counts)
    ax.set_xscale("log", base=2)
    # The right end has room for a number beside the last marker.
    left, right = max(1.18, (high / low) ** 0.04), max(1.18, (high / low) ** 0.07)
    ax.set_xlim(low / left, high * right)
    room = math.log(max(high / low, 2)) / 9
    ticks: list[int] = []
    # From the right: the largest count is the one that must be named.
    for count in sorted(set(counts), reverse=True):
        if not ticks or math.log(ticks[-1] / count) >= room:
            ticks.append(count)
    set_ticks(ax.xaxis, ticks, [str(t) for t in ticks])
    ax.set_xlabel("MPI ranks")


def linear_axis(ax: Axes, high: float, suffix: str = "") -> None:
    """Make the y axis run from zero, with numbers that carry their unit."""
    from matplotlib.ticker import MaxNLocator

    ax.set_ylim(0, high * 1.12)
    ticks = [t for t in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, high * 1.12) if t <= high * 1.12]
    set_ticks(ax.yaxis, ticks, [number(t) + suffix for t in ticks])


def step_axis(ax: Axes, n_steps: int) -> None:
    """Make the x axis training steps, from 1."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("training step, warm-up included")
    ax.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    ax.set_xlim(*((0.5, n_steps + 0.5) if n_steps > 1 else (0, 2)))


def lower_panel(figure: Figure, ax: Axes, height_in: float, gap_in: float = 0.16) -> Axes:
    """Cut a strip off the bottom of finished axes: a second panel over the same x axis, with its label.

    Parameters
    ----------
    figure, ax
        As :func:`finish` left them.
    height_in, gap_in : float
        Of the strip and above it, inches.
    """
    box, total_in = ax.get_position(), figure.get_size_inches()[1]
    height, gap = height_in / total_in, gap_in / total_in
    ax.set_position((box.x0, box.y0 + height + gap, box.width, box.height - height - gap))
    panel = figure.add_axes((box.x0, box.y0, box.width, height), sharex=ax)
    panel.set_xlabel(ax.get_xlabel())
    ax.set_xlabel("")
    ax.tick_params(axis="x", labelbottom=False)
    return panel


def log_axis(ax: Axes, low: float, high: float, suffix: str = "") -> None:
    """Make the y axis logarithmic, base 2, with plain numbers on it.

    Parameters
    ----------
    ax
    low, high : float
        What must be seen, in the shown unit; some room is left on both sides.
    suffix : str
        After each number, e.g. ``×``.
    """
    room = max(1.15, (high / low) ** 0.09)
    low, high = low / room, high * room
    ax.set_yscale("log", base=2)
    ax.set_ylim(low, high)
    ticks = log_ticks(low, high)
    set_ticks(ax.yaxis, ticks, [number(t) + suffix for t in ticks])


def log_ticks(low: float, high: float) -> list[float]:
    """Return three to eight round numbers in a range: powers of two, of ten, 1-2-5, else even steps."""
    powers = [2.0**k for k in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    # Below a quarter a power of two is no round number: nobody reads 0.015625.
    if len(powers) >= 3 and powers[0] >= 0.25:
        return powers[:: math.ceil(len(powers) / 8)]
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    multiples = (1,) if high > 1000 * low else (1, 2, 5)
    rounded = [m * 10.0**k for k in exponents for m in multiples if low <= m * 10.0**k <= high]
    if len(rounded) >= 3:
        return rounded
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= next((m for m in (5, 2.5, 2, 1) if (high - low) / (m * step) >= 3), 1)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def number(value: float) -> str:
    """Write a tick: no more digits than it needs."""
    return f"{value:.6g}" if 1e-4 <= abs(value) < 1e6 or value == 0 else significant(value)


def set_ticks(axis: Any, ticks: Sequence[float], labels: Sequence[str]) -> None:
    """Fix an axis's ticks and take the minor ones away."""
    from matplotlib.ticker import NullLocator

    axis.set_ticks(list(ticks), labels=list(labels))
    axis.set_minor_locator(NullLocator())


def once(ax: Axes, label: str) -> str:
    """Return the label for the first artist that bears it, else one the legend leaves out."""
    return "_" + label if label in ax.get_legend_handles_labels()[1] else label


@dataclass(frozen=True)
class Sheet:
    """A figure that is still to be drawn.

    Attributes
    ----------
    kind, name : str
        ``steps`` and, of several of the kind, ``steps_2``.
    draw : callable
        To be called under :func:`drawing_style`.
    """

    kind: str
    name: str
    draw: Callable[[], Drawing]


def pages(
    items: Sequence[Item],
    most: int,
    name: str,
    draw: Callable[[str, Sequence[Item]], Drawing],
    together: Callable[[Item], object] = lambda _: None,
) -> Iterator[Sheet]:
    """Plan figures of at most so many items; items ``together`` calls equal share a sheet where they fit."""
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(together(item), []).append(item)
    sheets: list[list[Item]] = []
    for group in groups.values():
        # Spread evenly: thirteen at eight a sheet are 6 and 7, not 8 and 5.
        n_parts = math.ceil(len(group) / most)
        for k in range(n_parts):
            part = group[len(group) * k // n_parts : len(group) * (k + 1) // n_parts]
            if sheets and len(sheets[-1]) + len(part) <= most:
                sheets[-1] += part
            else:
                sheets.append(part)
    for index, sheet in enumerate(sheets, 1):
        own = name if len(sheets) == 1 else f"{name}_{index}"
        yield Sheet(name, own, partial(draw, own, sheet))
