"""The specification a case was stored with: whether it is one, before anything is made of its values."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import msgspec

from hpcrnn.errors import shorten
from hpcrnn.records.layout_fields import MalformedError, parse_json
from hpcrnn.records.older_words import in_todays_words
from hpcrnn.spec import Option, describe, options

SECTIONS = ("model", "problem", "training", "parallel", "machine")
"""Sections of a specification that make the identity of a case; ``recurrence`` is there from version 3 on."""


def parse_spec(text: str, where: str) -> dict[str, Any]:
    """Read a stored specification.

    Keys that this version does not know are kept as they are: a later one may have written them. Known ones have
    the values that a run could be given, but for those an old file lacks; what was renamed has its name of today.

    Raises
    ------
    MalformedError
        A section is missing, or a key has a value that no run had.
    """
    spec = parse_json(text, where)
    if not isinstance(spec, dict) or not all(isinstance(spec.get(name), dict) for name in SECTIONS):
        raise MalformedError(where, f"has a params_json without the sections {', '.join(SECTIONS)}")
    if not isinstance(spec.get("recurrence", {}), dict):
        raise MalformedError(where, "has a params_json whose recurrence is no section")
    if "threads" not in spec["machine"]:
        raise MalformedError(where, "has a params_json without machine.threads")
    try:
        spec["parallel"] = in_todays_words(spec["parallel"])
    except ValueError as error:
        raise MalformedError(where, f"has a params_json with {shorten(str(error))[1:-1]}") from None
    for name in (*SECTIONS, "recurrence"):
        for key, value in spec.get(name, {}).items():
            if (leaf := _leaves().get((name, key))) is not None:
                _check(leaf, value, where)
    return spec


@cache
def _leaves() -> dict[tuple[str, str], Option]:
    return {(leaf.section, leaf.name): leaf for leaf in options()}


def _check(leaf: Option, value: object, where: str) -> None:
    try:
        msgspec.convert(value, leaf.annotation)
        wrong = isinstance(value, float) and not math.isfinite(value)
    except (msgspec.ValidationError, UnicodeEncodeError):
        wrong = True
    if wrong:
        what = f"has a params_json with {leaf.key} = {shorten(value)}: allowed is {describe(leaf.annotation)}"
        raise MalformedError(where, what)
