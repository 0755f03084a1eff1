"""Samples as a line of text: how steady they were, at a glance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hpcrnn.records.statistics import is_outlier

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*#"
ABOVE, BELOW = "▲", "▼"
"""Stand for outliers, which the scale leaves out: else one late step would flatten all others."""
ASCII_ABOVE, ASCII_BELOW = "^", "v"
LEAST_SPAN = 0.1
"""Share of the median that the scale spans at the least: samples that hardly differ look as if they hardly did."""


def sparkline(samples: npt.ArrayLike, width: int, *, ascii_only: bool = False, mark_outliers: bool = True) -> str:
    """Draw samples in the order they were taken, from the smallest to the largest that is no outlier.

    Parameters
    ----------
    samples : array_like (n,)
    width : int
        Characters at the most. Of more samples a character shows the median of several neighbours, or that there is
        an outlier among them.
    ascii_only : bool
        For a terminal without Unicode.
    mark_outliers : bool
        Of a curve that falls there are none: it begins far from where it ends.

    Returns
    -------
    str
        ``▁▂▁▃▁▲▁``; empty without samples; ``?`` stands for what is no finite number.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    bars, above, below = (ASCII_BARS, ASCII_ABOVE, ASCII_BELOW) if ascii_only else (BARS, ABOVE, BELOW)
    finite = np.isfinite(values)
    if not finite.any() or width < 1:
        return "?" * min(width, values.size)
    middle = float(np.median(values[finite]))
    outlier = np.zeros(values.shape, dtype=np.bool_)
    outlier[finite] = is_outlier(values[finite]) & mark_outliers
    usual = values[finite & ~outlier]
    low, span = float(usual.min()), max(float(np.ptp(usual)), LEAST_SPAN * abs(middle))

    def mark(part: npt.NDArray[np.intp]) -> str:
        if not finite[part].all():
            return "?"
        if outlier[part].any():
            worst = part[np.abs(values[part] - middle).argmax()]
            return above if values[worst] > middle else below
        level = (float(np.median(values[part])) - low) / span if span else 0.0
        return bars[min(int(level * len(bars)), len(bars) - 1)]

    return "".join(mark(part) for part in np.array_split(np.arange(values.size), min(width, values.size)))
