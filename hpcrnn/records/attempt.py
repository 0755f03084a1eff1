"""Facts are collected unasked: what cannot be found out is ``unknown``, never an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"


def attempt(find: Callable[[], Any]) -> Any:
    """Return what is found, or ``unknown``: for None, for an empty text and for any failure."""
    try:
        found = find()
    except Exception:  # noqa: BLE001 - a fact about the machine must not end a run on it
        return UNKNOWN
    return UNKNOWN if found is None or found == "" else found


def attempts(facts: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Find several facts, each for itself."""
    return {name: attempt(find) for name, find in facts.items()}


def text_of(path: Path, n_characters: int = -1) -> str:
    """Read a small file of the kernel's, without the white space around it.

    Raises
    ------
    OSError
        It is not there, or not for everybody's eyes.
    """
    with path.open(errors="replace") as stream:
        return stream.read(n_characters).strip()
