"""How segments of time met as training went on: meeting lengths and rounds of every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.certificate import QUANTILES, Certificate
from hpcrnn.recurrence import CORRECTED
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import case_name, describe_problem
from hpcrnn.reporting.figures.canvas import (
    GREY,
    SERIES_STYLES,
    VERMILLION,
    Drawing,
    Sheet,
    finish,
    linear_axis,
    lower_panel,
    new_axes,
    once,
    pages,
    set_ticks,
    step_axis,
)
from hpcrnn.reporting.tables.certificates import summarise
from hpcrnn.reporting.units import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {"forward": SERIES_STYLES[0], "backward": SERIES_STYLES[1]}
LOWEST, MEDIAN, HIGHEST = QUANTILES.index(0.0), QUANTILES.index(0.5), QUANTILES.index(1.0)
MOST_MARKERS = 24


def draw_certificates(entries: Sequence[Entry]) -> Iterator[Drawing]:
    """Draw what :func:`plan_certificates` plans."""
    return (sheet.draw() for sheet in plan_certificates(entries))


def plan_certificates(entries: Sequence[Entry]) -> Iterator[Sheet]:
    """Draw the certificate of every case in which segments had to meet, a figure a case."""
    yield from pages([e for e in entries if _has_met(e.case.certificate)], 1, "over_time", _draw_one)


def _has_met(certificate: Certificate | None) -> bool:
    return certificate is not None and bool(np.isfinite(certificate.meeting_quantiles).any())


def _draw_one(name: str, one: Sequence[Entry]) -> Drawing:
    (entry,) = one
    if entry.case.certificate is None:
        message = "a case without a certificate cannot be drawn"
        raise ValueError(message)
    return draw_meetings(name, entry, entry.case.certificate)


def draw_meetings(name: str, entry: Entry, certificate: Certificate) -> Drawing:
    """Draw meeting lengths and, below, rounds of every training step; one line a direction."""
    case = entry.case
    figure, ax = new_axes()
    n_steps = len(certificate.rounds)
    steps = np.arange(1, n_steps + 1)
    every = max(1, math.ceil(n_steps / MOST_MARKERS))
    for k, direction in enumerate(certificate.directions):
        color, marker, dashes = STYLES[direction]
        low, middle, high = _meetings(certificate.meeting_quantiles[:, :, k])
        ax.fill_between(steps, low, high, color=color, alpha=0.16, linewidth=0)
        for bound in (low, high):  # a band of one step, or of no width, is still seen
            ax.plot(steps, bound, color=color, linewidth=0.6, alpha=0.6)
        ax.plot(
            steps, middle, color=color, linestyle=dashes, marker=marker, markevery=every, markersize=4,
            label=f"{direction}: median, band from least to most",
        )  # fmt: skip
    segment = case.spec["problem"].get("seq", 0) / max(1, certificate.n_segments)
    top = float(np.nanmax(certificate.meeting_quantiles))
    if segment and segment <= 1.6 * top:
        ax.axhline(segment, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), label="length of a segment")
        top = max(top, segment)
    n_bad = certificate.n_unconverged
    if n_bad and case.method in CORRECTED:
        ax.plot([], [], "x", color=VERMILLION, markeredgewidth=1.4, label="did not converge")
    linear_axis(ax, top)
    ax.set_ylabel("meeting length [steps]")
    step_axis(ax, n_steps)
    ax.grid(axis="y")
    title = "Rounds and meeting length as training proceeds"
    subtitle = f"no. {entry.number}: {case_name(case)}; {describe_problem(case)}"
    finish(figure, ax, title, subtitle, height_in=3.1)
    panel = lower_panel(figure, ax, 0.85)
    _draw_rounds(panel, steps, certificate, marked=case.method in CORRECTED)
    figure.align_ylabels([ax, panel])
    caption = (
        "Time steps that a corrected trajectory took to meet the old one, over segments, samples and layers; below, "
        "passes over the segments of the layer with the most. Segments that never had to be re-run, or never met, are "
        "in no meeting length."
    )
    if n_bad and case.method in CORRECTED:
        caption += f" It did not converge in {n_bad} of {plural(n_steps, 'step')}."
    return Drawing(name, "over_time", title, caption, _alt(entry, certificate), figure)


def _meetings(quantiles: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Least, median and most of each step over layers; NaN where none met. Shape of each: (n_steps,)."""
    pairs: list[tuple[int, Callable[..., Any]]] = [(LOWEST, np.min), (MEDIAN, np.median), (HIGHEST, np.max)]
    found = []
    for index, statistic in pairs:
        values = quantiles[:, :, index]
        found.append(np.array([statistic(row[known]) if (known := ~np.isnan(row)).any() else np.nan for row in values]))
    return found


def _draw_rounds(panel: Axes, steps: npt.NDArray[np.int64], certificate: Certificate, *, marked: bool) -> None:
    rounds = certificate.rounds.max(axis=1)
    for k, direction in enumerate(certificate.directions):
        color, marker, dashes = STYLES[direction]
        panel.plot(
            steps, rounds[:, k], color=color, linestyle=dashes, drawstyle="steps-mid", marker=marker, markersize=3,
            markevery=max(1, math.ceil(len(steps) / MOST_MARKERS)),
        )  # fmt: skip
        bad = ~certificate.converged[:, :, k].all(axis=1)
        if marked and bad.any():
            panel.plot(
                steps[bad], rounds[bad, k], "x", color=VERMILLION, markersize=6, markeredgewidth=1.4, zorder=4,
                label=once(panel, "did not converge"),
            )  # fmt: skip
    most = max(2, int(rounds.max()))
    ticks = range(0, most + 1, math.ceil(most / 4))
    set_ticks(panel.yaxis, ticks, [str(tick) for tick in ticks])
    panel.set_ylim(0, most * 1.25)
    panel.set_ylabel("rounds")
    panel.grid(axis="y")


def _alt(entry: Entry, certificate: Certificate) -> str:
    said = " ".join(
        f"{p.direction}: median {p.met_after:.0f}, at most {p.worst_met_after:.0f} time steps, "
        f"{plural(p.rounds, 'round')}, at most {p.most_rounds}."
        for p in summarise(entry.case, certificate)
    )
    return f"Meeting lengths and rounds of each training step of {case_name(entry.case)}. {said}"
