"""The report as Markdown: the same content, with figures as files beside it."""

from __future__ import annotations

from hpcrnn.reporting.report.page import Page
from hpcrnn.reporting.report.sections import resource
from hpcrnn.reporting.tables.table import Table, escape_markdown, markdown_table


def render_markdown(page: Page) -> str:
    """Render the Markdown form; every value is escaped but for tables and code, which escape themselves."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),
        autoescape=False,  # noqa: S701 - Markdown has escapes of its own, which the filters below apply
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["md_table"] = _markdown_with_note
    environment.filters["fenced"] = _fenced
    return environment.get_template("report.md.j2").render(page=page)


def _markdown_with_note(table: Table) -> str:
    note = f"\n\n{escape_markdown(table.note)}" if table.note else ""
    return markdown_table(table) + note


def _fenced(text: str) -> str:
    """Put text into a code fence longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
