"""What commands write to: a terminal, or standard output for a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Make the terminal that tables are shown on."""
    from rich.console import Console

    return Console()


def json_text(plain: object) -> str:
    """Write plain values as JSON: strict, for every reader."""
    import json

    return json.dumps(plain, indent=1, allow_nan=False) + "\n"
