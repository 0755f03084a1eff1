"""Words and tables in a terminal: what a pipe or a terminal without Unicode gets instead is decided here."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ASCII = str.maketrans(
    {
        "×": "x", "·": "|", "–": "-", "—": "-", "→": ">", "µ": "u", "…": "~", "“": '"', "”": '"', "∞": "inf",
        "≤": "<=", "≥": ">=", "−": "-", "\xa0": " ",
    }
)  # fmt: skip
"""For a terminal that cannot show them."""


def say(console: Console, text: str, style: str = "", *, wrap: bool = True) -> None:
    """Print a line as it is: no markup, no emoji, no highlighting."""
    from rich.text import Text

    console.print(Text(fit(text, console), style=style), soft_wrap=not wrap, highlight=False)


_BEFORE_UNIT = re.compile(r"(?<=[0-9]) (?=(?:[nµm]?s|[KMGT]?i?B|%)(?![^\W\d_]))")


def wrap(text: str, width: int) -> list[str]:
    """Break a line between words, never between a number and its unit."""
    lines = textwrap.wrap(_BEFORE_UNIT.sub("\xa0", text), width, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def is_ascii(console: Console) -> bool:
    """Whether the console shows nothing but ASCII."""
    return not console.encoding.lower().startswith("utf")


def fit(text: str, console: Console) -> str:
    """Return text the console's encoding can hold."""
    return text.translate(ASCII).encode("ascii", "replace").decode() if is_ascii(console) else text


def plain_table(console: Console) -> Table:
    """Make a table: a rule under the headings in a terminal, plain columns elsewhere; two blanks between columns."""
    from rich import box
    from rich.table import Table

    ruled = console.is_terminal and not is_ascii(console)
    # The box brings a blank of its own.
    return Table(
        box=box.SIMPLE_HEAD if ruled else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1 if ruled else 2, 0, 0),
    )


def print_rows(
    console: Console,
    columns: Sequence[tuple[str, bool]],
    rows: Sequence[tuple[Sequence[str], Sequence[str]]],
) -> None:
    """Print a table.

    Parameters
    ----------
    console : rich.console.Console
    columns : sequence of (str, bool)
        Heading, and whether the column holds text rather than numbers.
    rows : sequence of (sequence of str, sequence of str)
        The cells of a row, and the style of each.
    """
    from rich.text import Text

    table = plain_table(console)
    for heading, is_text in columns:
        table.add_column(fit(heading, console), justify="left" if is_text else "right", no_wrap=True)
    for cells, styles in rows:
        table.add_row(*(Text(fit(c, console), style=s) for c, s in zip(cells, styles, strict=True)))
    console.print(table)
