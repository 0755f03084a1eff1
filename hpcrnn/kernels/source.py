"""Reading kernel sources: one text a family, its includes put in place, so that a compiler needs no search path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)
_ONCE = "#pragma once\n"


def read_source(name: str, replacements: Mapping[str, str] | None = None) -> str:
    """Return a kernel family's source.

    Parameters
    ----------
    name : str
        File in this folder, e.g. ``persistent.cu``.
    replacements : mapping of str to str, optional
        Text to use instead of an included file.
    """
    folder = files("hpcrnn.kernels")
    included: set[str] = set()

    def expand(text: str) -> str:
        return _INCLUDE.sub(lambda match: include(match[1]), text)

    def include(header: str) -> str:
        if header in included:
            return ""
        included.add(header)
        text = (replacements or {}).get(header)
        return expand((folder / header).read_text("utf-8") if text is None else text).replace(_ONCE, "")

    return expand((folder / name).read_text("utf-8"))
