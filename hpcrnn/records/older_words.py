"""Words that specifications had before: read as those of today, and kept where ids are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALLREDUCE = "allreduce"
"""The key of the parallel section that ``data_method`` replaced; it knew two methods."""
OF_DATA_METHOD = {"allreduce_bucketed": "bucketed", "allreduce_flat": "flat"}
"""What it called them."""


def in_todays_words(parallel: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored parallel section with the keys of today.

    Raises
    ------
    ValueError
        A key of before has no value that it could have, or its successor is there too; the text says which.
    """
    found = dict(parallel)
    if ALLREDUCE not in found:
        return found
    value, methods = found.pop(ALLREDUCE), {word: method for method, word in OF_DATA_METHOD.items()}
    if not isinstance(value, str) or value not in methods:
        raise ValueError(f"parallel.allreduce = {value!r}: allowed is {' or '.join(methods)}")
    if "data_method" in found:
        raise ValueError(f"parallel.allreduce = {value!r} beside parallel.data_method: allowed is one of the two")
    return found | {"data_method": methods[value]}


def in_first_words(parallel: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parallel section in the words its methods were first stored with: ids that were given once stay."""
    found = dict(parallel)
    if (method := found.get("data_method")) in OF_DATA_METHOD:
        del found["data_method"]
        found[ALLREDUCE] = OF_DATA_METHOD[method]
    return found
