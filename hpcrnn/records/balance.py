"""The weights by which a stored case shared its work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpcrnn.records.record import Case
from hpcrnn.spec.unequal import parse_weights


def weights_of(case: Case, environment: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the weight of each rank of a case; none where shares are even, or the file does not say by what.

    Parameters
    ----------
    case : Case
    environment : mapping
        Of its record: what was measured before the run is there.
    """
    balance = str(case.spec["parallel"].get("balance", "even"))
    if balance == "measured":
        section = environment.get("balance")
        stored = section.get("weights") if isinstance(section, Mapping) else ()
        weights = tuple(w for w in stored if _is_weight(w)) if isinstance(stored, list | tuple) else ()
    else:
        weights = parse_weights(balance)
    return weights if len(weights) == case.n_ranks > 1 else ()


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
