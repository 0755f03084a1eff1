"""One thing that was looked at, and how all of them are written."""

from __future__ import annotations

import json
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


def render(findings: Sequence[Finding], *, as_json: bool) -> str:
    """Write findings as lines, or as JSON for programs."""
    if as_json:
        return json.dumps([asdict(f) for f in findings], indent=2) + "\n"
    topics, marks = max(len(f.topic) for f in findings), max(len(_MARKS[f.level]) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.topic:<{topics}}  {_MARKS[f.level]:<{marks}}  {f.text}")
        if f.remedy:
            lines.append(f"{'':<{topics + marks + 4}}mend it with: {f.remedy}")
    problems = sum(f.level == "problem" for f in findings)
    lines.append(f"{problems} problem(s)" if problems else "everything hpcrnn run needs is here")
    return "\n".join(lines) + "\n"
