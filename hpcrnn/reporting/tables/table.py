"""A table of text, and its Markdown form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from hpcrnn.reporting.units import printable


@dataclass(frozen=True)
class Table:
    """Cells of text with a heading each.

    Attributes
    ----------
    title : str
    columns : list of str
    rows : list of list of str
    text_columns : tuple of int
        Columns that are words, set left; the others are numbers, set right.
    note : str
        What must be known to read it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    text_columns: tuple[int, ...] = (0,)
    note: str = ""

    def may_break(self, index: int) -> bool:
        """Whether cells of a column may take several lines: words may, and a list of numbers, but not a number."""
        return index in self.text_columns or any(len(row[index]) > LONGEST_NUMBER for row in self.rows)


LONGEST_NUMBER = 24
"""Characters of a number with its unit and interval; what is longer is a list: ``1–37, 39–40, 42``."""


def spans(values: Sequence[int]) -> str:
    """Write ascending integers in spans: ``0–3, 8``."""
    spans = []
    for _, group in groupby(enumerate(values), key=lambda pair: pair[1] - pair[0]):
        run = [value for _, value in group]
        spans.append(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}")
    return ", ".join(spans)


def escape_markdown(value: object) -> str:
    """Escape text so that Markdown, and the HTML inside it, shows it as it is, on one line."""
    text = printable(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def markdown_table(table: Table) -> str:
    """Render a table as GitHub's Markdown has it: numbers set right."""
    rule = ["---" if i in table.text_columns else "---:" for i in range(len(table.columns))]
    body = [[escape_markdown(cell) for cell in row] for row in (table.columns, *table.rows)]
    lines = [body[0], rule, *body[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
