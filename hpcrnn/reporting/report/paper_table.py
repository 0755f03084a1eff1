"""Tables on paper: columns as wide as their words need, the head again on every page, wide ones on landscape pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcrnn.reporting.report.paper import INK, LEADING, LINE, MARGIN, POINT, SOFT, TONES, Colour, Paper
from hpcrnn.reporting.tables.table import Table

MOST_ROWS = 120
"""Of one table: paper cannot be searched or sorted, and a PDF of ten thousand rows takes minutes."""

SIZES = (7.5, 7.0, 6.5, 6.0)
"""Sizes of type, points, the first at which a table fits."""
SMALLEST = 4.5
PAD = 1.6
"""Room between columns, mm."""
UPRIGHT_MM, LANDSCAPE_MM = 210.0, 297.0
MOST_LINES = 3.0
"""Of a cell, upright, if its words filled its lines: beyond it they are a column of crumbs."""

_COLOURS: dict[str, Colour] = {"VALID": TONES["good"][0], "INVALID": TONES["bad"][0], "APPROXIMATE": TONES["mixed"][0]}


@dataclass(frozen=True)
class Columns:
    """How wide the columns of a table are, mm, at which size of type, and how the page lies."""

    size: float
    widths: tuple[float, ...]
    landscape: bool = False


def put_table(paper: Paper, table: Table, columns: Columns) -> None:
    """Write a table as :func:`fit` laid it out; of one that is long the first rows, and how many are missing."""
    shown = table.rows[:MOST_ROWS]
    _Writer(paper, table, columns).rows(shown)
    missing = len(table.rows) - len(shown)
    more = f"{missing} more rows stand in report.html and report.md." if missing else ""
    for note in filter(None, (more, table.note)):
        paper.skip(1.0)
        paper.text(note, 7.5, colour=SOFT)
    paper.skip(3.0)


def fit(paper: Paper, table: Table) -> Columns:
    """Choose size and orientation: the largest type that breaks no word, upright before landscape."""
    rows = table.rows[:MOST_ROWS]
    between = PAD * (len(table.columns) - 1)
    least_pt, full_pt = _widths(paper, table, rows)
    for landscape in (False, True):
        room = (LANDSCAPE_MM if landscape else UPRIGHT_MM) - 2 * MARGIN - between
        for size in SIZES:
            least, full = ([size * width + 0.1 for width in widths] for widths in (least_pt, full_pt))
            if sum(least) > room:
                continue
            shares = _share(least, full, room)
            if landscape or max(whole / share for whole, share in zip(full, shares, strict=True)) <= MOST_LINES:
                return Columns(size, shares, landscape)
    return Columns(
        SMALLEST,
        _cut([SMALLEST * width + 0.1 for width in least_pt], LANDSCAPE_MM - 2 * MARGIN - between),
        landscape=True,
    )


def _widths(paper: Paper, table: Table, rows: Sequence[Sequence[str]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what each column takes at 1 point: at least, its longest word, and unfolded; a number is not broken."""
    least, full = [], []
    for index, heading in enumerate(table.columns):
        words = table.may_break(index)
        cells = {paper.clean(row[index]) for row in rows}
        whole = max([paper.width(cell, 1) for cell in cells], default=0.0)
        parts = {word for cell in cells for word in cell.split()}
        folded = max([paper.width(part, 1) for part in parts], default=0.0) if words else whole
        head = paper.clean(heading)
        head_folded = max([paper.width(part, 1, "sans", "B") for part in head.split()], default=0.0)
        head_whole = paper.width(head, 1, "sans", "B") if words else head_folded
        least.append(max(folded, head_folded))
        full.append(max(whole, head_whole))
    return tuple(least), tuple(full)


def _share(least: Sequence[float], full: Sequence[float], room: float) -> tuple[float, ...]:
    """Give each column its full width where all fit, else its least and of the rest what it wants in proportion."""
    if sum(full) <= room:
        return tuple(full)
    wanted = sum(full) - sum(least)
    rest = room - sum(least)
    return tuple(low + rest * (high - low) / wanted for low, high in zip(least, full, strict=True))


def _cut(least: Sequence[float], room: float) -> tuple[float, ...]:
    """Cut the widest columns down to one width until all fit: their words will be broken."""
    low, high = 0.0, max(least)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(min(w, middle) for w in least) <= room else (low, middle)
    return tuple(min(w, low) for w in least)


class _Writer:
    """Writes rows, and the head again wherever a page begins."""

    def __init__(self, paper: Paper, table: Table, columns: Columns) -> None:
        self.paper, self.table, self.columns = paper, table, columns
        self.high = columns.size * POINT * LEADING
        self.left = [MARGIN + sum(columns.widths[:k]) + k * PAD for k in range(len(columns.widths))]
        self.right = self.left[-1] + columns.widths[-1]

    def rows(self, rows: Sequence[Sequence[str]]) -> None:
        self._head()
        for row in rows:
            lines = self._wrapped(row, "")
            n_lines = max(map(len, lines))
            # A row stays on one page; only one that no page has room for is cut.
            most = int((self.paper.height - 30.0) / self.high)
            for first in range(0, n_lines, most):
                part = [cell[first : first + most] for cell in lines]
                self._row(part, row)

    def _head(self) -> None:
        lines = self._wrapped(self.table.columns, "B")
        self._lines(lines, ["B"] * len(lines), [SOFT] * len(lines), bottom=True)
        self._rule(0.35)

    def _row(self, lines: list[list[str]], row: Sequence[str]) -> None:
        if self.paper.room < max(map(len, lines)) * self.high + 1.4:
            self.paper.new_page(landscape=self.columns.landscape)
            self._head()
        weights = ["B" if cell in _COLOURS else "" for cell in row]
        self._lines(lines, weights, [_COLOURS.get(cell, INK) for cell in row])
        self._rule(0.1)

    def _wrapped(self, cells: Sequence[str], style: str) -> list[list[str]]:
        pairs = zip(cells, self.columns.widths, strict=True)
        return [self.paper.wrap(cell, width, self.columns.size, "sans", style) for cell, width in pairs]

    def _lines(
        self, lines: list[list[str]], styles: Sequence[str], colours: Sequence[Colour], *, bottom: bool = False
    ) -> None:
        """Write the cells of a row beside one another: words set left, numbers right."""
        top, most = self.paper.pdf.get_y() + 0.5, max(map(len, lines))
        for index, cell in enumerate(lines):
            down = (most - len(cell)) * self.high if bottom else 0.0
            for number, line in enumerate(filter(None, cell)):
                x = self.left[index]
                if index not in self.table.text_columns:
                    x += self.columns.widths[index] - self.paper.width(line, self.columns.size, "sans", styles[index])
                y = top + down + number * self.high
                self.paper.put(line, x, y, self.columns.size, "sans", styles[index], colours[index])
        self.paper.pdf.set_y(top + most * self.high + 0.5)

    def _rule(self, width: float) -> None:
        pdf, y = self.paper.pdf, self.paper.pdf.get_y()
        pdf.set_draw_color(*LINE)
        pdf.set_line_width(width)
        pdf.line(MARGIN, y, self.right, y)
