"""The report as one HTML file that needs nothing else: no network, no font, no other file, no script to be whole."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter

from hpcrnn.reporting.report.page import Page, slug
from hpcrnn.reporting.report.sections import resource
from hpcrnn.reporting.tables.table import Table


def render_html(page: Page) -> str:
    """Render the page; every value is escaped by the template engine.

    Its content security policy lets it load nothing, and run nothing but the one script it carries.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["column_classes"] = _column_classes
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode("ascii")
    script = resource("report.js")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    template = environment.get_template("report.html.j2")
    return template.render(page=page, script=script, script_hash=allowed, anchors=_Anchors(page))


_SHORT = 13
"""Characters of words that no column need break."""


def _column_classes(table: Table) -> list[str]:
    """Return each column's class: words are set left, names of cases have room, short words stay on one line."""
    found = []
    for index, column in enumerate(table.columns):
        short = max(len(row[index]) for row in (table.columns, *table.rows)) <= _SHORT
        words = "text" + (" name" if column == "Case" else " short" if short else "")
        numbers = "list" if table.may_break(index) else ""
        found.append(words if index in table.text_columns else numbers)
    return found


class _Anchors:
    """A word for links to each table; two tables may have the same title."""

    def __init__(self, page: Page) -> None:
        self._by_table: dict[int, str] = {}
        self._by_title: dict[str, str] = {}
        seen: Counter[str] = Counter()
        for table in (b for section in page.sections for b in section.blocks if isinstance(b, Table)):
            word = f"table-{slug(table.title)}"
            seen[word] += 1
            anchor = word if seen[word] == 1 else f"{word}--{seen[word]}"  # no slug has two dashes
            self._by_table[id(table)] = anchor
            self._by_title.setdefault(table.title, anchor)

    def of(self, table: Table) -> str:
        return self._by_table[id(table)]

    def titled(self, title: str) -> str:
        """Return that of the first table of a title; empty where there is none."""
        return self._by_title.get(title, "")
