"""Paper for a PDF: pages with a running foot, fonts, and lines of text that break over pages.

fpdf2 writes the file: it is pure Python and needs nothing of the machine. The fonts are the DejaVu that matplotlib
brings, so that
a report looks the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpdf import FPDF

Colour = tuple[int, int, int]

INK, SOFT, LINE, TINT = (27, 30, 35), (86, 92, 101), (205, 208, 214), (245, 246, 248)
TONES: dict[str, tuple[Colour, Colour]] = {
    "good": ((0, 102, 74), (232, 245, 240)),
    "bad": ((166, 58, 0), (253, 240, 232)),
    "mixed": ((122, 89, 0), (251, 244, 221)),
}
"""Of a standing: its colour, and the ground its words stand on; those of the HTML page."""

MARGIN, FOOT = 16.0, 18.0
"""Room at the sides and top, and below; mm."""
POINT = 25.4 / 72
"""A typographic point, mm."""
LEADING = 1.38
"""Distance of lines over the size of the type."""
UNKNOWN = "\u25a1"
"""A box, for a character the font has not."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Paper:
    """A document that is written top to bottom; all lengths are mm, sizes of type are points.

    Parameters
    ----------
    title, subject : str
    when : str
        The document's date, ISO 8601. Not that of the writing: the same report has the same bytes.
    """

    def __init__(self, title: str, subject: str, when: str) -> None:
        import matplotlib as mpl

        self.pdf = _document(title)
        fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
        for family, style, name in (
            ("sans", "", "DejaVuSans"),
            ("sans", "B", "DejaVuSans-Bold"),
            ("mono", "", "DejaVuSansMono"),
        ):
            self.pdf.add_font(family, style, fonts / f"{name}.ttf")
        known: Mapping[str, Any] = self.pdf.fonts
        self._advance: dict[str, dict[int, float]] = {key: dict(font.cw) for key, font in known.items()}
        self._known = frozenset.intersection(*(frozenset(font.cmap) for font in known.values()))
        self.pdf.set_title(title)
        self.pdf.set_subject(self.clean(subject))
        self.pdf.set_creator("hpcrnn")
        self.pdf.set_lang("en")
        self.pdf.set_creation_date(_date(when))
        self.pdf.set_margins(MARGIN, MARGIN)
        self.pdf.set_auto_page_break(False)
        self.new_page()

    @property
    def room(self) -> float:
        """What is left of the page below the pen."""
        return float(self.pdf.h - FOOT - self.pdf.get_y())

    @property
    def measure(self) -> float:
        """Width of a line."""
        return float(self.pdf.w - 2 * MARGIN)

    @property
    def height(self) -> float:
        """What a whole page has room for."""
        return float(self.pdf.h - MARGIN - FOOT)

    def new_page(self, *, landscape: bool = False) -> None:
        """Begin a page."""
        self.pdf.add_page(orientation="landscape" if landscape else "portrait", format="A4")
        self.pdf.set_y(MARGIN)

    @property
    def landscape(self) -> bool:
        """Whether this page lies on its side."""
        return bool(self.pdf.w > self.pdf.h)

    def need(self, height: float) -> None:
        """Begin a page of the same kind where this one has less room."""
        if self.room < height and self.pdf.get_y() > MARGIN:
            self.new_page(landscape=self.landscape)

    def skip(self, height: float) -> None:
        """Leave room, but not at the top of a page."""
        if self.pdf.get_y() > MARGIN:
            self.pdf.set_y(self.pdf.get_y() + height)

    def turn(self, *, landscape: bool) -> None:
        """Begin a page of the other kind where this one is not of the kind asked for."""
        if landscape == self.landscape:
            return
        self.new_page(landscape=landscape)

    def heading(self, text: str, level: int) -> None:
        """Write a heading, with an entry in the outline; what follows it must have been given room before."""
        self.skip((0.0, 8.0, 5.0)[level])
        text = self.clean(text)
        self.pdf.start_section(text, level=max(level - 1, 0))
        self.text(text, (20.0, 13.0, 10.0)[level], style="B")
        self.skip(1.5)

    def text(
        self,
        text: str,
        size: float = 9.0,
        *,
        family: str = "sans",
        style: str = "",
        colour: Colour = INK,
        ground: Colour | None = None,
        bar: Colour | None = None,
        indent: float = 0.0,
    ) -> None:
        """Write a paragraph, on a ground and with a bar at its left where they are asked for."""
        inset = 3.0 if ground else 0.0
        high = size * POINT * LEADING
        width = self.measure - indent - 2 * inset - 0.01
        for line in self.wrap(text, width, size, family, style):
            self.need(high)
            y = self.pdf.get_y()
            left = MARGIN + indent
            if ground:
                self.pdf.set_fill_color(*ground)
                self.pdf.rect(left, y, self.measure - indent, high + 0.05, style="F")
            if bar:
                self.pdf.set_fill_color(*bar)
                self.pdf.rect(left, y, 1.0, high + 0.05, style="F")
            self.put(line, left + inset, y, size, family, style, colour)
            self.pdf.set_y(y + high)

    def put(
        self, line: str, x: float, y: float, size: float, family: str = "sans", style: str = "", colour: Colour = INK
    ) -> None:
        """Write one line whose box begins at (x, y)."""
        self.pdf.set_font(family, style, size)
        self.pdf.set_text_color(*colour)
        self.pdf.text(x, y + size * POINT * (LEADING - 0.32), line)

    def wrap(self, text: str, width: float, size: float, family: str = "sans", style: str = "") -> list[str]:
        """Break text into lines of at most so much width, inside a word only where a word alone is wider."""
        lines, line, used = [], "", 0.0
        for word in re.findall(r"\S+\s*", self.clean(text)):
            bare, whole = (self.width(part, size, family, style) for part in (word.rstrip(), word))
            if used + bare <= width:
                line, used = line + word, used + whole
                continue
            if line:
                lines.append(line.rstrip())
            line, used = word, whole
            while self.width(line.rstrip(), size, family, style) > width and len(line.rstrip()) > 1:
                fitting = self._fitting(line, width, size, family, style)
                lines.append(line[:fitting])
                line = line[fitting:]
                used = self.width(line, size, family, style)
        return [*lines, line.rstrip()]

    def clean(self, text: str) -> str:
        """Put a box where the fonts have no character, and a blank for every kind of space."""
        if text.isascii() and text.isprintable():
            return text
        return "".join(c if ord(c) in self._known else " " if c.isspace() else UNKNOWN for c in text)

    def bytes(self) -> bytes:
        """Return the file."""
        return bytes(self.pdf.output())

    def width(self, text: str, size: float, family: str = "sans", style: str = "") -> float:
        """Return the width of cleaned text."""
        advance = self._advance[family + style]
        return sum([advance[ord(c)] for c in text]) * size * POINT / 1000

    def _fitting(self, word: str, width: float, size: float, family: str, style: str) -> int:
        """Return how many characters of a word fit; at least one."""
        low, high = 1, len(word)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.width(word[:middle], size, family, style) <= width else (low, middle - 1)
        return low


def _document(title: str) -> FPDF:
    """Return an empty document whose pages are numbered at their foot."""
    from fpdf import FPDF

    class Document(FPDF):
        def footer(self) -> None:
            self.set_y(-11)
            self.set_font("sans", "", 7)
            self.set_text_color(*SOFT)
            self.cell(0, 4, title)
            self.set_x(MARGIN)
            self.cell(0, 4, f"{self.page_no()} / {{nb}}", align="R")

    return Document(unit="mm", format="A4")


def _date(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return _EPOCH
    return when if when.tzinfo else when.replace(tzinfo=UTC)
