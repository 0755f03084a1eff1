"""Figures as files, and as the SVG of a page that is read in light and in dark."""

from __future__ import annotations

import io
import re
from pathlib import Path

from hpcrnn.reporting.figures import canvas
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SILVER,
    SKY,
    VERMILLION,
    YELLOW,
    Drawing,
)

DARK_PLATE = "#1b1e23"
"""What a figure stands on in the dark, where it is white else."""

DARK = {
    "#ffffff": DARK_PLATE,
    "#fbfbfb": "#20242a",
    PALE: "#363b43",
    SILVER: "#666d78",
    GREY: "#a7aeb8",
    "#3c4043": "#cdd1d7",
    "#202124": "#e8eaed",
    BLACK: "#f1f3f4",
    BLUE: "#3f97d6",
    VERMILLION: "#f0783a",
    GREEN: "#2abf93",
    PURPLE: "#da93bc",
    ORANGE: ORANGE,
    SKY: "#9bd8fb",
    YELLOW: YELLOW,
}
"""What each colour of a figure is in the dark. A colour that is not here is the same in both: that of a colour map,
and of text that stands on a colour."""


def save(drawing: Drawing, stem: Path) -> None:
    """Write a figure as ``.png`` and ``.pdf``: the same bytes whatever the time of day."""
    figure = drawing.figure
    figure.savefig(stem.with_suffix(".png"), dpi=canvas.PNG_DPI, metadata={"Software": None})
    figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})


def svg_text(drawing: Drawing) -> str:
    """Return a figure as SVG that follows the reader's colour scheme, and asks nothing of the reader's machine."""
    drawn = io.StringIO()
    drawing.figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    head, tag, body = drawn.getvalue().partition("<svg ")
    del head  # the XML declaration and a document type that names an address
    opening, _, body = body.partition(">")
    return f"{tag}{opening}>{_STYLE}{_with_variables(body)}"


_NUMBERS = {colour.lower(): number for number, colour in enumerate(DARK)}
_STYLE = "<style>@media (prefers-color-scheme: dark) {{ :root {{ fill: {}; {} }} }}</style>".format(
    DARK[BLACK],  # matplotlib names no colour where it is black
    " ".join(f"--c{number}: {DARK[colour]};" for number, colour in enumerate(DARK)),
)


def _with_variables(svg: str) -> str:
    """Let every colour of the palette be a variable that has this colour unless it is set."""

    def variable(found: re.Match[str]) -> str:
        colour = found[0].lower()
        return f"var(--c{_NUMBERS[colour]}, {colour})" if colour in _NUMBERS else colour

    # The ground of a hatch is an attribute, where no variable can stand.
    svg = re.sub(r' fill="(#[0-9a-fA-F]{6})"', r' style="fill: \1"', svg)
    # Only where a style says so: an address inside the picture may look like a colour.
    return re.sub(r"(?<=: )#[0-9a-fA-F]{6}\b", variable, svg)
