"""The laws of scaling that were fitted, what they say, and whether the points bear them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hpcrnn.reporting.analysis.cores import cores_of
from hpcrnn.reporting.analysis.fits import AMDAHL, GUSTAFSON, UNIVERSAL, Estimate, Fit, Law, Refusal, fit_series
from hpcrnn.reporting.analysis.scaling import Series
from hpcrnn.reporting.tables.series import series_names
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import MISSING, TOO_FEW, format_ratio, plural, scientific, significant

MEANING = {
    AMDAHL: "Amdahl: S = P / (1 + f (P − 1)), f the serial share.",
    UNIVERSAL: (
        "Universal scalability law (Gunther): S = P / (1 + σ (P − 1) + κ P (P − 1)), σ contention, κ coherency, which "
        "makes a peak at √((1 − σ) / κ) ranks."
    ),
    GUSTAFSON: (
        "Gustafson: with the same work a rank S = P − f (P − 1), f the serial share of a rank's time; it has no limit."
    ),
}
SHORT_NAMES = {UNIVERSAL: "USL"}


def fit_table(scaling: Sequence[Series]) -> Table | None:
    """List the fits of series, all strong or all weak, a row a law, and why others were not made; None without any."""
    rows, fits = list[list[str]](), list[Fit]()
    refused: dict[tuple[str, str], list[tuple[str, Series]]] = {}
    cores: dict[int, None] = {}
    for name, series in zip(series_names(scaling), scaling, strict=True):
        found = fit_series(series)
        made = [one for one in found if isinstance(one, Fit)]
        not_made = [one for one in found if isinstance(one, Refusal)]
        rows += [[_numbers([series]), name, *_fit_cells(fit)] for fit in made]
        fits += made
        if not_made:
            # What the least demanding law lacks the others lack too.
            laws = ", ".join(short_name(one.law) for one in not_made)
            refused.setdefault((laws, not_made[0].reason), []).append((name, series))
        if made:
            shared = (p.entry for p in series.points if p.n_ranks in made[0].shared)
            cores |= dict.fromkeys(filter(None, map(cores_of, shared)))
    for (laws, reason), members in refused.items():
        which = members[0][0] if len(members) == 1 else f"{len(members)} series"
        numbers = _numbers([series for _, series in members])
        rows.append([numbers, which, laws, *[MISSING] * 4, f"not made: {reason}"])
    if not rows:
        return None
    columns = ["No.", "Series", "Law", "Ranks", "Parameters", "Limit by the fit", "Worst point", "Finding"]
    title = f"Laws fitted to {'weak' if scaling[0].batch_per_rank else 'strong'} scaling"
    return Table(title, columns, rows, text_columns=tuple(range(1, 8)), note=_note(fits, sorted(cores)))


def short_name(law: Law) -> str:
    """Name a law in a cell or a legend."""
    return SHORT_NAMES.get(law, law.name)


def parameters_text(fit: Fit) -> str:
    """State what a fit found: ``σ 0.0172, κ 8.71e-5``, ``serial share 5.25 %``."""
    return ", ".join(f"{name} {write(e.value)}" for name, e, write in _parameters(fit))


def _parameters(fit: Fit) -> list[tuple[str, Estimate, Callable[[float], str]]]:
    """Return name, estimate and way of writing of each parameter: a share alone is per cent."""
    write = _percent if len(fit.parameters) == 1 else _small
    return [(name, e, write) for name, e in zip(fit.law.parameters, fit.parameters, strict=True)]


def _fit_cells(fit: Fit) -> list[str]:
    worst = fit.worst
    return [
        short_name(fit.law),
        ", ".join(map(str, sorted({r.n_ranks for r in fit.residuals} | {1}))),
        ", ".join(f"{name} {_with_interval(e, write)}" for name, e, write in _parameters(fit)),
        _limit(fit),
        f"{100 * worst.error:+.1f} % on {plural(worst.n_ranks, 'rank')}",
        "; ".join([_judgement(fit), *_remarks(fit)]),
    ]


def _limit(fit: Fit) -> str:
    """State the largest speedup and the ranks it is on, with the intervals of both."""
    most, peak = fit.most_speedup, fit.peak_ranks
    if math.isinf(most.value) and not most.low < math.inf:
        return "none"
    speedup = _with_interval(most, format_ratio)
    if math.isfinite(peak.value):
        return f"{speedup} on {_with_interval(peak, _ranks)} {'rank' if round(peak.value) == 1 else 'ranks'}"
    return f"{speedup}; no peak ({_ranks(peak.low)} to ∞ ranks)" if math.isfinite(peak.low) else speedup


def _with_interval(estimate: Estimate, write: Callable[[float], str]) -> str:
    """Write a number and its interval: ``10.9× (10.8× to 11.0×)``."""
    low, high = write(estimate.low), write(estimate.high)
    bounds = TOO_FEW if math.isnan(estimate.low) else low if low == high else f"{low} to {high}"
    return f"{write(estimate.value)} ({bounds})"


def _small(value: float) -> str:
    return scientific(value, 3) if 0 < value < 1e-3 else significant(value)


def _percent(value: float) -> str:
    return f"{significant(100 * value)} %"


def _ranks(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else significant(value)


def _judgement(fit: Fit) -> str:
    """Say whether the points bear the law out."""
    if fit.holds is None:
        return "undecided: n too small"
    if fit.holds:
        return "within every interval"
    missed = _listed([r.n_ranks for r in fit.residuals if r.missed])
    return f"does not fit: outside the interval on {missed}"


def _remarks(fit: Fit) -> list[str]:
    """Say what else must be known of a fit."""
    remarks = []
    if fit.superlinear:
        remarks.append(f"super-linear on {_listed(fit.superlinear)}, which the law cannot be")
    for name, value in zip(fit.law.parameters, fit.values, strict=True):
        if value == 0.0 or (value == 1.0 and name != "κ"):
            remarks.append(f"{name} on its bound {value:.0f}")
    if fit.shared:
        remarks.append(f"ranks share cores on {_listed(fit.shared)}")
    return remarks


def _listed(counts: Sequence[int]) -> str:
    """Write rank counts in words, many by their ends: ``2, 4 ranks``."""
    distinct = sorted(set(counts))
    if len(distinct) > 4:
        return f"{len(distinct)} counts of {distinct[0]} to {distinct[-1]} ranks"
    return plural(distinct[0], "rank") if len(distinct) == 1 else f"{', '.join(map(str, distinct))} ranks"


def _numbers(members: Sequence[Series]) -> str:
    """Number the parallel cases: serial ones are in most series, the base of all files among them."""
    return spans(sorted({p.entry.number for s in members for p in s.points if p.n_ranks > 1}))


def _note(fits: Sequence[Fit], cores: Sequence[int]) -> str:
    """Explain the laws that were fitted, and what their numbers are worth."""
    if not fits:
        return ""
    laws = [text for law, text in MEANING.items() if any(fit.law is law for fit in fits)]
    models = (
        "Fits are models, not measurements. Each takes all points of its series, against their base, with equal "
        "relative errors. In brackets the 95 % interval: it comes from drawing the repetitions of points and base "
        "again, and says nothing of whether the law is right; the finding does."
    )
    said = [models, *laws, "Worst point: speedup of the fit over that measured, less 1."]
    if any(not fit.law.weak for fit in fits):
        said.append(
            "Limit: the largest speedup and, where there is a peak, on how many ranks; extrapolated by the fit, not "
            "measured."
        )
    if any(fit.shared for fit in fits):
        there = " or ".join(map(str, cores))
        said.append(f"Where ranks are more than cores ({there}) they share them, and the fit describes the sharing.")
    return " ".join(said)
