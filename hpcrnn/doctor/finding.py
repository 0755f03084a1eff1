"""One thing that was looked at, and how all of them are written."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]

_MARKS: dict[Level, str] = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes
    ----------
    topic : str
    level : {"ok", "note", "problem"}
        A note is something that cannot be done here, or only slowly; a problem keeps ``hpcrnn run`` from working.
    text : str
        What was found.
    remedy : str
        The line that mends it; empty where nothing needs mending.
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""


def render(findings: Sequence[Finding], *, as_json: bool, columns: int | None = None) -> str:
    """Write findings as lines, or as JSON for programs.

    Parameters
    ----------
    findings : sequence of Finding
    as_json : bool
    columns : int, optional
        Of the terminal; by default each finding stays on one line, as programs that look for words want it.
    """
    if as_json:
        return json.dumps([asdict(f) for f in findings], indent=2) + "\n"
    topics, marks = max(len(f.topic) for f in findings), max(len(_MARKS[f.level]) for f in findings)
    indent = " " * (topics + marks + 4)
    lines = []
    for f in findings:
        texts = [f.text, *([f"mend it with: {f.remedy}"] if f.remedy else [])]
        rows = [row for text in texts for row in _rows(text, columns and max(40, columns - len(indent)))]
        lines.append(f"{f.topic:<{topics}}  {_MARKS[f.level]:<{marks}}  {rows[0]}")
        lines += [indent + row for row in rows[1:]]
    problems = sum(f.level == "problem" for f in findings)
    lines.append(f"{problems} problem(s)" if problems else "everything hpcrnn run needs is here")
    return "\n".join(lines) + "\n"


def _rows(text: str, width: int | None) -> list[str]:
    """Break a text where it is too wide; never a path, nor a flag."""
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
