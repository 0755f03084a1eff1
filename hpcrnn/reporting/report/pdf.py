"""The report as PDF: the same content on A4, for an appendix, an e-mail or a printer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from hpcrnn.reporting.report.page import Block, Page, Picture, Run, Section, Terms
from hpcrnn.reporting.report.paper import FOOT, INK, LEADING, MARGIN, POINT, SOFT, TINT, TONES, Paper
from hpcrnn.reporting.report.paper_table import fit, put_table
from hpcrnn.reporting.tables.table import Table

MOST_OF_A_KIND = 12
"""Tables, or files, in one section: a reader of more wants the page that can be searched."""

A4_MM = (210.0, 297.0)
FIGURE_MM, WIDE_MM = 125.0, 178.0
"""Widths of figures: nearly their own, so that their type has its size."""
LEAST_FIGURE_MM = 92.0
"""Of a figure that is made smaller so that two share a page: its smallest type is then 5 points."""
HEADING_MM, SUBHEADING_MM, LEAST_MM = 17.0, 12.0, 24.0
"""Room for headings, and for as much of what follows them as must not be parted from them."""


def render_pdf(page: Page) -> bytes:
    """Render the report as a PDF file: the same bytes for the same page."""
    paper = Paper(page.title, page.subtitle, page.measured)
    _head(paper, page)
    for section in page.sections:
        heading = section.title
        for kind, blocks in section.groups:
            few = blocks if kind in ("paragraph", "pictures") else blocks[:MOST_OF_A_KIND]
            for block in few:
                _put(paper, block, section, heading)
                heading = ""
            if len(few) < len(blocks):
                what = "files" if kind == "runs" else "tables" if kind == "table" else "parts"
                paper.text(
                    f"{len(blocks) - len(few)} more {what} stand in report.html and report.md.", 7.5, colour=SOFT
                )
    return paper.bytes()


def _head(paper: Paper, page: Page) -> None:
    """Write what the report is of, how it stands, and where, when and with what it was measured."""
    paper.heading(page.title, 0)
    if page.subtitle:
        paper.text(page.subtitle, 11, colour=SOFT)
    paper.skip(4)
    colour, ground = TONES[page.standing]
    paper.text(page.verdict[0], 10, style="B", colour=colour, ground=ground, bar=colour)
    paper.text(page.verdict[1], 9, ground=ground, bar=colour)
    reasons = [f"no. {c.number}, {c.case} ({c.file}): {c.reason}" for c in page.concerns]
    for reason in filter(None, (*reasons, page.more_concerns)):
        paper.text(f"• {reason}", 8, ground=ground, bar=colour)
    paper.skip(4)
    _terms(paper, page.facts)


def _put(paper: Paper, block: Block, section: Section, heading: str) -> None:
    """Put a block under the headings it brings, never on another page than these."""
    title = block.title if isinstance(block, Table | Terms) and block.title != section.title else ""
    above = HEADING_MM * bool(heading) + SUBHEADING_MM * bool(title)
    columns = fit(paper, block) if isinstance(block, Table) else None
    layout = _layout(paper, block) if isinstance(block, Picture) else None
    paper.turn(landscape=columns is not None and columns.landscape)
    paper.need(above + (layout.height + layout.below if layout else LEAST_MM))
    if heading:
        paper.heading(heading, 1)
    if title:
        paper.heading(title, 2)
    match block:
        case str():
            paper.text(block)
            paper.skip(2)
        case Table() if columns:
            put_table(paper, block, columns)
        case Picture() if layout:
            _picture(paper, block, layout)
        case Run():
            _run(paper, block)
        case Terms():
            _terms(paper, block.rows)


@dataclass(frozen=True)
class _Layout:
    """Size of a figure, and the room its caption takes; mm."""

    width: float
    height: float
    below: float


def _layout(paper: Paper, picture: Picture) -> _Layout:
    """Choose a figure's size: its own or a little less, if two then share a page; no more than a page."""
    from PIL import Image

    with Image.open(io.BytesIO(picture.png)) as image:
        across, down = image.size
    below = 8 * POINT * LEADING * len(paper.wrap(_caption(picture), A4_MM[0] - 2 * MARGIN, 8)) + 6.5
    whole = A4_MM[1] - MARGIN - FOOT - HEADING_MM - below
    half = (A4_MM[1] - MARGIN - FOOT - HEADING_MM) / 2 - below
    width = WIDE_MM if picture.wide else FIGURE_MM
    if half * across / down >= LEAST_FIGURE_MM:
        width = min(width, half * across / down)
    width = min(width, whole * across / down)
    return _Layout(width, width * down / across, below)


def _caption(picture: Picture) -> str:
    return f"{picture.title}. {picture.caption}"


def _picture(paper: Paper, picture: Picture, layout: _Layout) -> None:
    """Put a figure, with its description for who does not see it, and its caption."""
    y, image = paper.pdf.get_y(), io.BytesIO(picture.png)
    paper.pdf.image(
        image, x=MARGIN, y=y, w=layout.width, h=layout.height, alt_text=picture.alt, title=picture.title
    )  # fmt: skip
    paper.pdf.set_y(y + layout.height + 1.0)
    paper.text(_caption(picture), 8, colour=SOFT)
    paper.skip(5)


def _run(paper: Paper, run: Run) -> None:
    paper.text(run.source, 9, style="B")
    paper.text(" · ".join(filter(None, (run.created, run.version, run.hosts, run.incomplete))), 8, colour=SOFT)
    paper.skip(1)
    paper.text(run.command, 8, family="mono", ground=TINT)
    paper.skip(3)


def _terms(paper: Paper, rows: Sequence[tuple[str, str]], indent: float = 42.0, size: float = 8.0) -> None:
    """Write terms at the left and what is said of them beside."""
    for name, text in rows:
        names = paper.wrap(name, indent - 3.0, size)
        high = 4.0 * len(names)
        paper.need(max(high, 8.0))
        y, page = paper.pdf.get_y(), paper.pdf.page
        for number, line in enumerate(names):
            paper.put(line, MARGIN, y + 4.0 * number, size, colour=SOFT)
        paper.pdf.set_y(y)
        paper.text(text, size, colour=INK, indent=indent)
        if paper.pdf.page == page:
            paper.pdf.set_y(max(paper.pdf.get_y(), y + high))
        paper.skip(0.8)
