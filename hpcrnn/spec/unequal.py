"""The texts that say that ranks are unequal: their weights, and handicaps put on them.

Patterns admit nothing that could not be meant; what hangs on the number of ranks is checked with the grid.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from hpcrnn.errors import SpecError

WEIGHTS = "weights:"
_WEIGHT = r"(?!0+(\.0+)?(,|\Z))[0-9]{1,9}(\.[0-9]{1,9})?"
BALANCE_PATTERN = rf"\A(even|measured|{WEIGHTS}{_WEIGHT}(,{_WEIGHT})*)\Z"

_HANDICAP = r"[0-9]{1,7}:0\.(0[1-9]|[1-9])[0-9]{0,3}(@[0-9]{1,7})?"
HANDICAP_PATTERN = rf"\A{_HANDICAP}(,{_HANDICAP})*\Z"


class Handicap(NamedTuple):
    """What slows a rank down on purpose.

    Attributes
    ----------
    speed : float
        In (0, 1): what is left of its speed.
    from_step : int
        Counted step from which on, counted from 0; warm-up steps are slowed down with step 0.
    """

    speed: float
    from_step: int = 0


def parse_weights(balance: str) -> tuple[float, ...]:
    """Read the speeds of ``weights:2,1,1``; none where the text gives none."""
    return tuple(map(float, balance.removeprefix(WEIGHTS).split(","))) if balance.startswith(WEIGHTS) else ()


def parse_handicap(text: str | None) -> dict[int, Handicap]:
    """Read ``1:0.5@40,2:0.8``: by rank.

    Raises
    ------
    SpecError
        A rank is there twice.
    """
    found: dict[int, Handicap] = {}
    for rank, speed, _, step in re.findall(r"([0-9]+):([0-9.]+)(@([0-9]+))?", text or ""):
        if int(rank) in found:
            raise SpecError("machine.handicap", text, "each rank once")
        found[int(rank)] = Handicap(float(speed), int(step or 0))
    return found
