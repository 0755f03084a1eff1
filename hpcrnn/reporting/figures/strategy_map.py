"""The strategy map: a cell a measured place, coloured by the strategy that wins, hatched where that is undecided."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcrnn.reporting.analysis.scaling import Analysis
from hpcrnn.reporting.analysis.strategy_map import (
    FOLDED,
    HOSTS,
    RANKS,
    SERIAL,
    Cell,
    Contender,
    Panel,
    StrategyMap,
    strategy_maps,
)
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ON_COLOUR,
    ORANGE,
    PURPLE,
    SILVER,
    SKY,
    VERMILLION,
    WIDE_IN,
    WIDTH_IN,
    YELLOW,
    Drawing,
    Sheet,
    legend_columns,
    pages,
    set_ticks,
)
from hpcrnn.reporting.tables.strategy_map import map_subtitle, remarks, verdict_text, way_text
from hpcrnn.reporting.units import format_ratio, format_ratio_interval, format_seconds, plural, printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "data": (BLUE, 0.58),
    "pipeline": (ORANGE, 0.5),
    "time": (GREEN, 0.42),
    "tensor": (PURPLE, 0.42),
    "hybrid": (SKY, 0.3),
    FOLDED: (YELLOW, 0.5),
    SERIAL: (GREY, 0.35),
}
"""Of the strategies, and how much of it a cell has: black text is read on it, and the blues are two."""
_HALO = "#fefefe"
"""Around text on a hatch: light on a dark page too, where white turns dark."""
_UNKNOWN = (VERMILLION, 0.4)
"""Of a strategy that this version does not know."""

AXIS_LABELS = {
    RANKS: "MPI ranks",
    "hidden": "hidden units",
    "seq": "time steps",
    "batch": "batch",
    "layers": "layers",
    HOSTS: "on",
}

_LETTERS = {"hidden": "H", "seq": "T", "batch": "B", "layers": "L"}

MOST_PANELS = 12
MOST_COLUMNS, MOST_ROWS = 6, 7
MOST_HEIGHT_IN = 9.0
"""Of what one sheet shows; the rest goes to further sheets."""

_CELL_IN = 1.38
"""Width of a cell: 23 characters of its text."""
_CHARACTERS = 23
_LINE_IN, _PADDING_IN = 0.128, 0.16
_LEFT_IN, _BELOW_IN, _ABOVE_IN, _GAP_IN = 0.72, 0.5, 0.26, 0.1
"""Room around a panel."""


@dataclass(frozen=True)
class Part:
    """As much of a panel as a sheet has room for.

    Attributes
    ----------
    panel : Panel
    columns, rows : list of int
        Values of the axes, ascending.
    """

    panel: Panel
    columns: list[int]
    rows: list[int]

    @property
    def cells(self) -> list[tuple[int, int, Cell]]:
        """Column, row and cell, by rows from below; a place that was not measured has none."""
        return [
            (i, j, self.panel.cells[x, y])
            for j, y in enumerate(self.rows)
            for i, x in enumerate(self.columns)
            if (x, y) in self.panel.cells
        ]

    @property
    def height_in(self) -> float:
        """Height of a row of it, inches: what its longest text takes."""
        return max(0.62, _PADDING_IN + _LINE_IN * max(len(cell_lines(cell)) for _, _, cell in self.cells))

    @property
    def size_in(self) -> tuple[float, float]:
        """Width and height with the room for labels, inches."""
        heading = _ABOVE_IN if self.panel.facet else 0.0
        return (
            _LEFT_IN + _CELL_IN * len(self.columns) + _GAP_IN,
            heading + self.height_in * len(self.rows) + _BELOW_IN,
        )


@dataclass(frozen=True)
class Board:
    """One sheet: parts of one map and where they lie.

    Attributes
    ----------
    of : StrategyMap
    shelves : list of list of Part
        From above, each from the left.
    """

    of: StrategyMap
    shelves: list[list[Part]]

    @property
    def parts(self) -> list[Part]:
        """All parts in order."""
        return [part for shelf in self.shelves for part in shelf]

    @property
    def cells(self) -> list[Cell]:
        """All cells in order."""
        return [cell for part in self.parts for _, _, cell in part.cells]


def plan_maps(analysis: Analysis) -> Iterator[Sheet]:
    """Plan a sheet or several for every map of at least two contests."""
    boards = [b for found in strategy_maps(analysis.included) if found.worth_drawing for b in boards_of(found)]
    return pages(boards, 1, "strategy_map", lambda name, one: draw_map(name, one[0]))


def boards_of(found: StrategyMap) -> list[Board]:
    """Place the panels of a map on sheets: from the left, then downwards, then on the next sheet."""
    boards: list[Board] = []
    shelves: list[list[Part]] = []
    for part in (part for panel in found.panels for part in _cut(panel)):
        width = part.size_in[0]
        if shelves and sum(p.size_in[0] for p in shelves[-1]) + width <= WIDE_IN:
            candidate = [*shelves[:-1], [*shelves[-1], part]]
        else:
            candidate = [*shelves, [part]]
        if shelves and (sum(map(len, candidate)) > MOST_PANELS or _height_in(candidate) > MOST_HEIGHT_IN):
            boards.append(Board(found, shelves))
            candidate = [[part]]
        shelves = candidate
    return [*boards, Board(found, shelves)]


def _height_in(shelves: Sequence[Sequence[Part]]) -> float:
    return sum(max(part.size_in[1] for part in shelf) for shelf in shelves)


def _cut(panel: Panel) -> Iterator[Part]:
    """Cut a panel that has more rows or columns than there is room for, evenly; parts without a cell are none."""
    for rows in _even(panel.rows, MOST_ROWS):
        for columns in _even(panel.columns, MOST_COLUMNS):
            part = Part(panel, columns, rows)
            if part.cells:
                yield part


def _even(values: list[int], most: int) -> list[list[int]]:
    n, parts = len(values), -(-len(values) // most)
    return [values[n * k // parts : n * (k + 1) // parts] for k in range(parts)]


def draw_map(name: str, board: Board) -> Drawing:
    """Draw one sheet of a map."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    widest = max(sum(part.size_in[0] for part in shelf) for shelf in board.shelves)
    width_in = max(WIDTH_IN, widest + 0.1)
    figure = Figure(figsize=(width_in, 4.0), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    legend = _legend(figure, board.cells, width_in)
    legend_in = legend.get_window_extent(canvas.get_renderer()).height / figure.dpi + 0.2
    lines = textwrap.wrap(map_subtitle(board.of), round(84 * width_in / WIDTH_IN))
    top_in = 0.46 + 0.165 * len(lines)
    total_in = top_in + _height_in(board.shelves) + legend_in
    figure.set_size_inches(width_in, total_in)
    legend.set_bbox_to_anchor((0.1 / width_in, 0.08 / total_in), transform=figure.transFigure)
    y = total_in - top_in
    for shelf in board.shelves:
        x = 0.0
        for part in shelf:
            wide, high = _CELL_IN * len(part.columns), part.height_in * len(part.rows)
            above = _ABOVE_IN if part.panel.facet else 0.0
            box = ((x + _LEFT_IN) / width_in, (y - above - high) / total_in, wide / width_in, high / total_in)
            _draw_part(figure.add_axes(box, label=f"{x:.2f},{y:.2f}"), board.of, part)
            x += part.size_in[0]
        y -= max(part.size_in[1] for part in shelf)
    title = "Which strategy wins where"
    left = 0.12 / width_in
    figure.text(left, 1 - 0.24 / total_in, title, fontsize=10.5, fontweight="bold", color="#202124", va="center")
    for index, line in enumerate(lines):
        figure.text(left, 1 - (0.44 + 0.165 * index) / total_in, line, fontsize=8, color=GREY, va="center")
    caption = (
        "A cell is measured; where there is none, nothing was. Colour and name: the strategy with the lowest median "
        "step. Below: its best variant, the step of the runner-up over its own, and the interval of that. Hatched, in "
        "the colour of the rival: undecided, see the table. Dashed: only one strategy was measured."
    )
    if any(cell.pays in ("no", "undecided") for cell in board.cells):
        caption += " Does not pay, may not pay: one rank alone is faster, or cannot be told from the fastest split."
    if any(cell.inexact for cell in board.cells):
        caption += " An inexact way wins nothing; one that is faster still is named."
    if any(cell.oversubscribed for cell in board.cells):
        caption += " CPUs shared: more threads than the host gave CPUs."
    return Drawing(name, "strategy_map", title, caption, _alt(board), figure, wide=width_in > WIDTH_IN)


def _draw_part(ax: Axes, found: StrategyMap, part: Part) -> None:
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlim(0, len(part.columns))
    ax.set_ylim(0, len(part.rows))
    ax.tick_params(length=0)
    set_ticks(ax.xaxis, [i + 0.5 for i in range(len(part.columns))], [str(x) for x in part.columns])
    ax.set_xlabel(AXIS_LABELS[found.x])
    named = [str(y) for y in part.rows] if found.y else [""]
    set_ticks(ax.yaxis, [j + 0.5 for j in range(len(part.rows))], named)
    if found.y:
        ax.set_ylabel(AXIS_LABELS[found.y])
    if part.panel.facet:
        heading = shorten(_heading(part.panel), int(_CHARACTERS * len(part.columns) * 0.8))
        ax.set_title(heading, loc="left", fontsize=8.5, fontweight="bold", pad=4)
    for i, j, cell in part.cells:
        _draw_cell(ax, i, j, cell)
        _write_cell(ax, (i + 0.5, j + 0.5), cell, part.height_in)


def facet_text(panel: Panel) -> str:
    """Name what a panel holds: ``time steps 64, batch 32``."""
    return ", ".join(f"{AXIS_LABELS[name]} {printable(value)}" for name, value in panel.facet if value != "")


def _heading(panel: Panel) -> str:
    """Name the same as problems are named elsewhere: ``T64 B32``."""
    values = [(_LETTERS.get(name, ""), printable(value)) for name, value in panel.facet]
    return " ".join(letter + value for letter, value in values if value)


def _draw_cell(ax: Axes, i: int, j: int, cell: Cell) -> None:
    from matplotlib.patches import Rectangle

    corner, size = (i + 0.015, j + 0.02), (0.97, 0.96)
    if not cell.contested:
        edge = _colour(cell.ranking[0].strategy if cell.ranking else "")
        ax.add_patch(Rectangle(corner, *size, facecolor="white", edgecolor=edge, linewidth=1.0, linestyle=(0, (3, 2))))
        return
    ax.add_patch(Rectangle(corner, *size, facecolor=_washed(cell.leader), linewidth=0))
    if cell.undecided:
        rival = _colour(cell.undecided[0][0])
        ax.add_patch(Rectangle(corner, *size, fill=False, hatch="////", edgecolor=rival, linewidth=0))


def _colour(strategy: str) -> str:
    """Return the full colour of a strategy."""
    return COLOURS.get(strategy, _UNKNOWN)[0]


def _washed(strategy: str) -> tuple[float, float, float]:
    """Return the colour of its cells."""
    from matplotlib.colors import to_rgb

    colour, share = COLOURS.get(strategy, _UNKNOWN)
    red, green, blue = (1.0 - share * (1.0 - part) for part in to_rgb(colour))
    return red, green, blue


def cell_lines(cell: Cell) -> list[str]:
    """Write what stands in a cell, the strategy first; no line is wider than the cell."""
    if not cell.ranking:
        return ["no exact way", *_fitted(remarks(cell))]
    first = cell.ranking[0]
    if not cell.contested:
        over = [] if cell.serial is None else [f"{format_ratio(cell.serial.ratio.median)} over serial"]
        return [_headline(first), *_fitted([*_variant(first), *over, *remarks(cell)])]
    lines = [f"best split: {way_text(first)}"] if cell.serial_leads else _variant(first)
    if cell.gain is not None:
        lines += [f"{format_ratio(cell.gain.median)} ({format_ratio_interval(cell.gain)})", f"over {cell.runner_up}"]
    rivals = [strategy for strategy, _ in cell.undecided]
    if rivals == [cell.runner_up]:
        lines[-1] += ": undecided"
    elif rivals:
        lines.append(f"undecided: {plural(len(rivals), 'rival')}")
    return [SERIAL if cell.serial_leads else _headline(first), *_fitted([*lines, *remarks(cell)])]


def _headline(contender: Contender) -> str:
    """Name the strategy with its ranks, where that is short: ``pipeline 4``, ``hybrid``."""
    split = contender.entry.case.split
    return contender.strategy if len(split.axes) != 1 else printable(split.grid_name)


def _variant(contender: Contender) -> list[str]:
    """Name what the headline does not say, and the median step: ``1f1b M4 · 412 ms``, in two lines where it is long."""
    split = contender.entry.case.split
    grid = split.grid_name if len(split.axes) > 1 else ""
    named = " · ".join(filter(None, map(printable, (grid, split.pieces, split.method_name))))
    time = format_seconds(contender.entry.step.median)
    together = f"{named} · {time}" if named else time
    return [together] if len(together) <= _CHARACTERS else [named, time]


def _fitted(lines: Sequence[str]) -> list[str]:
    """Break lines where they are wider than a cell, into two at the most."""
    fitted: list[str] = []
    for line in lines:
        first, *rest = textwrap.wrap(line, _CHARACTERS) or [""]
        parts = [first, " ".join(rest)] if rest else [first]
        fitted += [shorten(part.removesuffix(" ·").removeprefix("· "), _CHARACTERS) for part in parts]
    return fitted


def _write_cell(ax: Axes, middle: tuple[float, float], cell: Cell, height_in: float) -> None:
    """Write lines below one another around the middle of a cell, with a halo that keeps the hatch off them."""
    from matplotlib.patheffects import withStroke

    (x, y), lines = middle, cell_lines(cell)
    halo = [withStroke(linewidth=2.6, foreground=_HALO, alpha=0.9)] if cell.contested and cell.undecided else []
    for k, line in enumerate(lines):
        ax.text(
            x, y + ((len(lines) - 1) / 2 - k) * _LINE_IN / height_in, line,
            ha="center", va="center", fontsize=8 if k == 0 else 7, fontweight="bold" if k == 0 else "normal",
            color=ON_COLOUR if cell.contested else BLACK, path_effects=halo,
        )  # fmt: skip


def _legend(figure: Figure, cells: Sequence[Cell], width_in: float) -> Any:
    """Name the colours that there are, and what hatch and dashes mean."""
    from matplotlib.patches import Patch

    there = {cell.leader for cell in cells if cell.contested}
    named: dict[str, Any] = {
        strategy: Patch(facecolor=_washed(strategy), label=strategy)
        for strategy in (*COLOURS, *sorted(there - set(COLOURS)))
        if strategy in there
    }
    if any(cell.undecided for cell in cells):
        named["undecided"] = Patch(facecolor="white", hatch="////", edgecolor=GREY, linewidth=0.5)
    if any(not cell.contested for cell in cells):
        named["one strategy only"] = Patch(facecolor="white", edgecolor=SILVER, linestyle=(0, (3, 2)))
    columns = legend_columns(list(named), width_in / WIDTH_IN)
    where = (0.1 / width_in, 0.0)
    return figure.legend(list(named.values()), list(named), loc="lower left", bbox_to_anchor=where, ncols=columns)


def _alt(board: Board) -> str:
    """Name the winner of every cell."""
    found = board.of
    sentences = []
    for part in board.parts:
        if part.panel.facet:
            sentences.append(f"At {facet_text(part.panel)}:")
        for _, _, cell in part.cells:
            place = [f"{AXIS_LABELS[q]} {cell.place[q]}" for q in (found.x, found.y) if q]
            sentences.append(f"{', '.join(place)}: {'; '.join([verdict_text(cell), *remarks(cell)])}.")
    return "Map of the fastest strategy, a cell a measured place. " + " ".join(sentences)
