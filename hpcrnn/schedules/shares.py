"""How much each rank has to do, where ranks are not equally fast.

Rows of the batch, stages of the network and steps of time are cut once each, for all ranks: the share of a rank is the
product of the shares of its positions along ``data``, ``pipeline`` and ``time``.  A step is as long as its slowest rank
takes, so with speeds v and shares r, c, q of which each sums to 1 the shares should make::

    max over ranks of  r[d] c[p] q[t] / v[d,p,t]      v[d,p,t]: of the slowest tensor rank, which the others wait for

least.  Given the others, the best shares of one axis are in proportion to what its positions bear::

    speed of data position d  =  min over p, t of  v[d,p,t] / (c[p] q[t])       and so on

which is as fast as whatever rank limits the position.  The axes are taken in turn, finest first, each given those
before it and even shares of those after: rows, then steps, then layers, so that what rows can balance the layers need
not.  Hidden units (``tensor``) are always shared evenly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np

from hpcrnn.spec import AXES, Axis, Grid

SHARED: tuple[Axis, ...] = ("data", "time", "pipeline")
"""Axes whose shares may be uneven, finest first."""


@dataclass(frozen=True)
class Speeds:
    """How fast the positions along each axis are, in any unit.

    Attributes
    ----------
    data, time, pipeline : tuple of float
        Positive, one a position; empty where all are alike.
    """

    data: tuple[float, ...] = ()
    time: tuple[float, ...] = ()
    pipeline: tuple[float, ...] = ()

    def along(self, axis: Axis, grid: Grid) -> tuple[float, ...]:
        """Speeds of the positions along an axis."""
        known: tuple[float, ...] = getattr(self, axis, ())
        return known or (1.0,) * getattr(grid, axis)


ALIKE = Speeds()
"""All ranks are equally fast."""


def speeds_of(grid: Grid, weights: Sequence[float]) -> Speeds:
    """Reduce the speeds of ranks to those of positions along the axes.

    Parameters
    ----------
    grid : Grid
    weights : sequence of float
        Speed of each rank in any unit, positive; empty where all are alike.

    Returns
    -------
    Speeds
        Of an axis along which all are alike, none.
    """
    if not weights:
        return ALIKE
    shape = [getattr(grid, axis) for axis in AXES]
    # Time that each rank takes for the whole work, and then for its shares of what has been shared out so far.
    times = 1.0 / np.asarray(weights, dtype=np.float64).reshape(shape)
    for place, axis in enumerate(AXES):
        if axis in SHARED:
            times = times / shape[place]
    found: dict[str, tuple[float, ...]] = {}
    for axis in SHARED:
        place = AXES.index(axis)
        others = tuple(k for k in range(len(AXES)) if k != place)
        speeds = 1.0 / times.max(axis=others)
        if np.ptp(speeds) <= _ROUNDING * speeds.max():
            continue
        found[axis] = tuple(float(speed) for speed in speeds)
        shares = speeds / math.fsum(speeds) * shape[place]  # fsum: the same bits on every CPU
        times = times * shares.reshape([-1 if k == place else 1 for k in range(len(AXES))])
    return Speeds(**found)


_ROUNDING = 1e-9
"""Speeds nearer to one another than this, relatively, differ by rounding only."""


def share_out(length: int, speeds: Sequence[float], least: int = 1) -> tuple[slice, ...]:
    """Cut ``range(length)`` into contiguous parts in proportion to speeds, none shorter than ``least``.

    By largest remainder (Hamilton's method), the first of equals first; who would have less than ``least`` has that,
    and the others share the rest. With equal speeds parts differ by at most one, larger ones first. In exact
    arithmetic: every rank comes to the same parts.

    ``share_out(9, (2, 1, 1))`` is ``(slice(0, 5), slice(5, 7), slice(7, 9))``.

    Parameters
    ----------
    length : int
    speeds : sequence of float
        Positive, one a part.
    least : int

    Raises
    ------
    ValueError
        There is less than ``least`` a part; a specification is checked for that before.
    """
    if length < least * len(speeds):
        msg = f"{length} in {len(speeds)} parts of {least} or more"
        raise ValueError(msg)
    exact = [Fraction(speed) for speed in speeds]
    free = list(range(len(exact)))
    while True:
        rest, whole = length - least * (len(exact) - len(free)), sum(exact[k] for k in free)
        quotas = {k: rest * exact[k] / whole for k in free}
        kept = [k for k in free if quotas[k] >= least]
        if len(kept) == len(free):
            break
        free = kept
    counts = [math.floor(quotas[k]) if k in quotas else least for k in range(len(exact))]
    by_remainder = sorted(quotas, key=lambda k: math.floor(quotas[k]) - quotas[k])
    for k in by_remainder[: length - sum(counts)]:
        counts[k] += 1
    bounds = [0, *accumulate(counts)]
    return tuple(slice(a, b) for a, b in pairwise(bounds))
