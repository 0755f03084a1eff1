"""What a report is made of, before it is HTML, Markdown or PDF: text, tables and pictures, nothing left to compute."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from hpcrnn.reporting.tables.table import Table


@dataclass(frozen=True)
class Picture:
    """A figure as a page shows it.

    Attributes
    ----------
    name, section, title, caption, alt : str
        As in :class:`~hpcrnn.reporting.figures.canvas.Drawing`.
    svg : str
        The vector form, for the page that must need no other file.
    png : bytes
        The raster form, for the page that cannot hold the vector one.
    wide : bool
        As in :class:`~hpcrnn.reporting.figures.canvas.Drawing`.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes
    wide: bool = False


@dataclass(frozen=True)
class Run:
    """A file that the report draws on: what wrote it, when, where, and the exact command."""

    source: str
    created: str
    version: str
    hosts: str
    command: str
    incomplete: str = ""


@dataclass(frozen=True)
class Terms:
    """Terms and what is said of each, under a title that may be empty."""

    title: str
    rows: Sequence[tuple[str, str]]


Block = str | Table | Picture | Run | Terms
"""A part of a section; a string is a paragraph."""

_KINDS = {str: "paragraph", Table: "table", Picture: "pictures", Run: "runs", Terms: "terms"}


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes
    ----------
    key : str
        A word for links to it.
    title : str
    blocks : sequence of Block
    data : str
        Title of the table that holds what its pictures show, in this section or another; empty where none does.
    """

    key: str
    title: str
    blocks: Sequence[Block]
    data: str = ""

    @property
    def groups(self) -> Iterator[tuple[str, list[Block]]]:
        """Neighbours of a kind together; the kinds: ``paragraph``, ``table``, ``pictures``, ``runs``, ``terms``."""
        for kind, group in groupby(self.blocks, lambda block: _KINDS[type(block)]):
            yield kind, list(group)


@dataclass(frozen=True)
class Concern:
    """A case that is excluded, or shown with a mark, and why."""

    number: int
    case: str
    file: str
    reason: str


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes
    ----------
    title, subtitle : str
    measured : str
        When the newest file was written, ISO 8601.
    facts : sequence of (str, str)
        What a reader looks for first: where, when, with what.
    standing : str
        How the cases stand as a whole: ``good``, ``mixed`` or ``bad``.
    verdict : (str, str)
        The same as a word, and as a sentence.
    concerns : sequence of Concern
        The first cases that are excluded or marked.
    more_concerns : str
        What is said of those beyond them; empty where there are none.
    sections : sequence of Section
        In their order.
    """

    title: str
    subtitle: str
    measured: str
    facts: Sequence[tuple[str, str]]
    standing: str
    verdict: tuple[str, str]
    concerns: Sequence[Concern]
    more_concerns: str
    sections: Sequence[Section]


def slug(text: str) -> str:
    """Turn a title into a word for links: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
