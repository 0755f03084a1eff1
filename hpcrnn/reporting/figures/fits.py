"""Fitted laws among measured curves: thin lines, dotted where nothing was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcrnn.records.record import FloatArray
from hpcrnn.reporting.analysis.fits import Fit, fit_series
from hpcrnn.reporting.analysis.scaling import Series
from hpcrnn.reporting.figures.canvas import BLACK
from hpcrnn.reporting.tables.fits import SHORT_NAMES, parameters_text, short_name
from hpcrnn.reporting.tables.series import series_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_FITTED = 3
"""Series of a figure with a fit drawn: more lines than these hide the points."""
BEYOND = 2.0
"""A fit is drawn as far as this, times the most ranks measured."""

THIN: dict[str, Any] = {"color": BLACK, "linewidth": 0.8, "zorder": 2.6}
DASHES = ("-", (0, (9, 2, 1.5, 2)), (0, (7, 3)))
"""By which the fits of a figure are told apart: in a colour of its own none would be seen on the curve it fits."""
DOTTED = (0, (1, 2.5))


class FitLines(NamedTuple):
    """What became of the fits of a figure; empty where none was made.

    Attributes
    ----------
    values : list of float
        What the axis must hold.
    caption, alt : str
        To follow the figure's own, with a space before.
    """

    values: list[float]
    caption: str
    alt: str


def draw_fits(ax: Axes, series: Sequence[Series], value: Callable[[Fit, FloatArray], FloatArray]) -> FitLines:
    """Draw the fits of a few series; of a lone one every law, of several the one with the most parameters.

    Parameters
    ----------
    ax
    series : sequence of Series
        As drawn, in the order of their styles.
    value : callable
        From a fit and ranks (n,) to what the axis shows (n,).
    """
    names = series_names(series)
    made = [[fit for fit in fit_series(s) if isinstance(fit, Fit)] for s in series]
    fitted = [k for k, fits in enumerate(made) if fits]
    if not fitted:
        return FitLines([], "", "")
    # On the most rank counts a fit says the most.
    chosen = sorted(sorted(fitted, key=lambda k: -len(series[k].line))[:MOST_FITTED])
    values: list[float] = []
    labels: list[str] = []
    lone = len(series) == 1
    drawn = [(fit, k) for k in chosen for fit in (made[k] if lone else made[k][-1:])]
    for (fit, k), dashes in zip(drawn, DASHES, strict=False):
        labels.append(_label(fit, "" if lone else f" to {names[k]}"))
        most = series[k].widest.n_ranks
        for low, high, style, label in ((1, most, dashes, labels[-1]), (most, BEYOND * most, DOTTED, None)):
            ranks = np.geomspace(low, high, 80)
            values += value(fit, ranks).tolist()
            ax.plot(ranks, value(fit, ranks), linestyle=style, label=label, **THIN)
    ax.plot([], [], linestyle=DOTTED, label="fit beyond the measured ranks", **THIN)
    caption = _caption([fit for fit, _ in drawn], len(chosen), len(fitted), len(series))
    return FitLines(values, caption, f" Thin lines: {'; '.join(labels)}.")


def widen_rank_axis(ax: Axes) -> None:
    """Give fits their room right of the last measured rank count, which keeps the last tick."""
    ends = [float(np.max(line.get_xdata())) for line in ax.lines if np.size(line.get_xdata())]
    left, right = ax.get_xlim()
    ax.set_xlim(left, max(right, 1.04 * max(ends)))


def _label(fit: Fit, of: str) -> str:
    verdict = " (does not fit)" if fit.holds is False else ""
    return f"fit{of}: {short_name(fit.law)}, {parameters_text(fit)}{verdict}"


def _caption(drawn: Sequence[Fit], n_shown: int, n_fitted: int, n_series: int) -> str:
    """Say which lines were not measured, and which series have none."""
    which = ""
    if n_shown < n_fitted:
        which = f" Of {n_fitted} series with a fit, {n_shown} on the most rank counts show it."
    elif n_fitted < n_series:
        which = f" A fit was made of {n_fitted} of the {n_series} series."
    spelt = "".join(f" {short}: {law.name}." for law, short in SHORT_NAMES.items() if any(f.law is law for f in drawn))
    if any(fit.shared for fit in drawn):
        which += " Some go through ranks that share cores, and describe the sharing."
    return (
        f" Thin lines are fits, not measurements, dotted beyond the measured ranks.{spelt} Their intervals, and "
        f"whether they fit, are in the table of fits.{which}"
    )
