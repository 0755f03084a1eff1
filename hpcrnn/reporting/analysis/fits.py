"""Laws of scaling fitted to series: models of what was measured, never measurements.

With S the speedup over the named base on P ranks::

    Amdahl      P / S = 1 + f (P - 1)                            strong; f: share of the base's time that stays serial
    Gunther     P / S = 1 + sigma (P - 1) + kappa P (P - 1)      strong; contention, coherency: each rank with each
    Gustafson   S / P = 1 - f (P - 1) / P                        weak; f: serial share of a rank's time

Each is linear in its parameters, so that its least squares have a closed form, bounds included: 0 <= f, sigma <= 1
and kappa >= 0.  What is minimised is the sum of *relative* errors squared, every point counting the same: timing
errors grow with the time, and absolute ones of P / S would leave the fit to the points on the most ranks.  Widths of
intervals are no weights, for few repetitions make them wide, or make none.  The base is S(1) = 1, exactly.

Intervals are percentiles of a bootstrap: the repetitions of every point and of the base are drawn again, the medians
taken and the law fitted anew.  Nothing is assumed normal; points that share a base share its replicates.  The
repetitions of a run know nothing of how runs differ from day to day, and neither do these intervals.  Where a
parameter lies on its bound the interval has one side only.

A fit is made where it can say something: on more rank counts (beside 1) than it has parameters, and of exact cases
that run one time step after another, as their base does.  Of simulated cases it describes the simulated machine.

Sources: Amdahl, AFIPS 1967; Gustafson, CACM 31 (1988) 532; Gunther, *Guerrilla Capacity Planning* (2007), ch. 4-6;
Davison and Hinkley, *Bootstrap Methods and their Application* (1997), ch. 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpcrnn.records.record import FloatArray
from hpcrnn.records.split import CHAIN
from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.cores import oversubscribed
from hpcrnn.reporting.analysis.scaling import Base, Point, Series
from hpcrnn.reporting.describe import shortfalls
from hpcrnn.reporting.units import has_bounds

REPLICATES = 1999
"""Of the bootstrap: the 50th and the 1950th of them in order are the ends of a 95 % interval, nothing between them."""
_TAIL = 50
_SEED = 20_250_417


@dataclass(frozen=True)
class Law:
    """A model of speedup over ranks, linear in its parameters.

    Attributes
    ----------
    name : str
    parameters : tuple of str
    weak : bool
        Whether the work grows with the ranks. The linear ratio then is S / P, else P / S.
    columns : callable
        From ranks (n,) to what each parameter adds to the ratio, (n_parameters, n).
    """

    name: str
    parameters: tuple[str, ...]
    weak: bool
    columns: Callable[[FloatArray], FloatArray]

    @property
    def needs(self) -> int:
        """Rank counts beside 1 without which the law reproduces its points and says nothing."""
        return len(self.parameters) + 1

    def efficiency(self, n_ranks: FloatArray, parameters: Sequence[float] | FloatArray) -> FloatArray:
        """Return S / P by the law, of shape (n,)."""
        ratio = 1.0 + np.asarray(parameters) @ self.columns(n_ranks)
        return np.asarray(ratio if self.weak else 1.0 / ratio)


AMDAHL = Law("Amdahl", ("serial share",), weak=False, columns=lambda p: np.stack([p - 1]))
UNIVERSAL = Law("universal scalability law", ("σ", "κ"), weak=False, columns=lambda p: np.stack([p - 1, p * (p - 1)]))
GUSTAFSON = Law("Gustafson", ("serial share",), weak=True, columns=lambda p: np.stack([1 / p - 1]))
LAWS = (AMDAHL, UNIVERSAL, GUSTAFSON)


@dataclass(frozen=True)
class Estimate:
    """A number a fit gives, and the 95 % interval of its bootstrap: NaN where there are too few repetitions."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Residual:
    """How far a fit is from a point.

    Attributes
    ----------
    n_ranks : int
    error : float
        Speedup of the fit over that measured, less 1.
    missed : bool or None
        Whether the fit lies outside of the point's 95 % interval; None where there is none.
    """

    n_ranks: int
    error: float
    missed: bool | None


@dataclass(frozen=True)
class Fit:
    """A law fitted to a series.

    Attributes
    ----------
    law : Law
    parameters : tuple of Estimate
        As ``law.parameters``.
    most_speedup, peak_ranks : Estimate
        The largest speedup that the law allows, and on how many ranks; infinite where it has no limit, no peak.
    residuals : tuple of Residual
        Of every point but the base.
    superlinear, shared : tuple of int
        Ranks where the speedup is above the ranks, interval and all; ranks that shared cores.
    """

    law: Law
    parameters: tuple[Estimate, ...]
    most_speedup: Estimate
    peak_ranks: Estimate
    residuals: tuple[Residual, ...]
    superlinear: tuple[int, ...]
    shared: tuple[int, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The parameters without their intervals."""
        return tuple(parameter.value for parameter in self.parameters)

    @property
    def worst(self) -> Residual:
        """The point furthest from the fit."""
        return max(self.residuals, key=lambda r: abs(r.error))

    @property
    def holds(self) -> bool | None:
        """Whether the fit lies in every point's interval; None where some have none, and the others do not say no."""
        if any(r.missed for r in self.residuals):
            return False
        return None if any(r.missed is None for r in self.residuals) else True

    def efficiency(self, n_ranks: FloatArray) -> FloatArray:
        """Return speedup over ranks as the law has it, of shape (n,)."""
        return self.law.efficiency(n_ranks, self.values)


@dataclass(frozen=True)
class Refusal:
    """A law that was not fitted, and why."""

    law: Law
    reason: str


def fit_series(series: Series) -> tuple[Fit | Refusal, ...]:
    """Fit every law of a series' kind, strong or weak, or say why not."""
    laws = [law for law in LAWS if law.weak == (series.batch_per_rank is not None)]
    reasons = [_refusal(law, series) for law in laws]
    if all(reasons):
        return tuple(Refusal(law, reason) for law, reason in zip(laws, reasons, strict=True))
    based = [(p, p.base) for p in series.points if p.n_ranks > 1 and p.base]
    n_ranks = np.array([float(p.n_ranks) for p, _ in based])
    measured = np.array([p.efficiency.median for p, _ in based if p.efficiency])
    replicates = _resampled(based, weak=series.batch_per_rank is not None)
    return tuple(
        Refusal(law, reason) if reason else _fit(law, series, n_ranks, measured, replicates)
        for law, reason in zip(laws, reasons, strict=True)
    )


def _refusal(law: Law, series: Series) -> str:
    """Say why a law is not fitted to a series; empty where it is."""
    if any(shortfalls(p.entry.case) for p in series.points):
        return "what it computes is not the serial result"
    if any(p.entry.case.method != CHAIN for p in series.points):
        return "segments of time at once are another algorithm than the base's"
    if any(p.base is None for p in series.points):
        return "no VALID serial run to compare with"
    n_counts = len({p.n_ranks for p in series.points} - {1})
    if n_counts < law.needs:
        there = f"there {'is' if n_counts == 1 else 'are'} {n_counts}"
        return f"at least {law.needs} rank counts beside 1 are needed, {there}"
    return ""


def _fit(law: Law, series: Series, n_ranks: FloatArray, measured: FloatArray, replicates: FloatArray | None) -> Fit:
    values = least_squares(law, n_ranks, measured)
    limits = _limits(law, values)
    if replicates is None:
        estimates = [Estimate(float(v)) for v in (*values, *limits)]
    else:
        again = least_squares(law, n_ranks, replicates)
        spread = (*again.T, *_limits(law, again))
        estimates = [_estimate(v, r) for v, r in zip((*values, *limits), spread, strict=True)]
    *parameters, most, peak = estimates
    return Fit(
        law=law,
        parameters=tuple(parameters),
        most_speedup=most,
        peak_ranks=peak,
        residuals=tuple(
            _residual(law, values, p.n_ranks, p.efficiency) for p in series.points if p.efficiency and not _is_base(p)
        ),
        superlinear=_ranks_where(series, lambda p: p.efficiency is not None and p.efficiency.low > 1.0),
        shared=_ranks_where(series, lambda p: oversubscribed(p.entry)),
    )


def least_squares(law: Law, n_ranks: FloatArray, efficiency: FloatArray) -> FloatArray:
    """Return the parameters of least relative error within their bounds.

    Parameters
    ----------
    law : Law
    n_ranks : float64 array (n,)
        Above 1; of at least as many different counts as there are parameters.
    efficiency : float64 array (..., n)
        Measured speedup over ranks; leading axes are fitted each for itself.

    Returns
    -------
    float64 array (..., n_parameters)
    """
    weight = 1.0 / efficiency if law.weak else np.asarray(efficiency)
    # The relative error of ratio 1 + sum(parameter * column): weight * ratio - 1.
    columns = law.columns(n_ranks)
    scale = np.abs(columns).max(axis=1)
    left = [weight * column for column in columns / scale[:, None]]
    right = 1.0 - weight
    solved = np.stack(_two(left, right, scale[0]) if len(left) == 2 else [_one(left[0], right, scale[0])], axis=-1)
    # Where there is nothing, sums leave their rounding: no part of a time in a thousand million.
    return np.asarray(np.where(solved < 1e-9, 0.0, solved) / scale)


def _one(a: FloatArray, right: FloatArray, most: float) -> FloatArray:
    """Minimise ``|a x - right|`` over 0 <= x <= most."""
    return np.asarray(np.clip((a * right).sum(-1) / (a * a).sum(-1), 0.0, most))


def _two(left: Sequence[FloatArray], right: FloatArray, most: float) -> list[FloatArray]:
    """Minimise ``|a x + b y - right|`` over 0 <= x <= most, y >= 0.

    A convex function has its least on a region either where it has it anywhere, or on the region's edges: y = 0,
    x = 0, x = most.  On each edge it is a parabola.
    """
    a, b = left
    aa, ab, bb = (a * a).sum(-1), (a * b).sum(-1), (b * b).sum(-1)
    ar, br = (a * right).sum(-1), (b * right).sum(-1)
    determinant = aa * bb - ab * ab
    x, y = (ar * bb - br * ab) / determinant, (br * aa - ar * ab) / determinant
    inside = (x >= 0.0) & (x <= most) & (y >= 0.0)
    nothing, full = np.zeros_like(aa), np.full_like(aa, most)
    edges_x = np.stack([np.clip(ar / aa, 0.0, most), nothing, full])
    edges_y = np.stack([nothing, np.maximum(br / bb, 0.0), np.maximum((br - ab * most) / bb, 0.0)])
    objective = (
        aa * edges_x**2 + 2 * ab * edges_x * edges_y + bb * edges_y**2 - 2 * ar * edges_x - 2 * br * edges_y
    )  # less a constant
    best = objective.argmin(axis=0)[None]
    on_edge = [np.take_along_axis(edges, best, axis=0)[0] for edges in (edges_x, edges_y)]
    return [np.where(inside, free, bound) for free, bound in zip((x, y), on_edge, strict=True)]


def _limits(law: Law, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the largest speedup of parameters (..., n_parameters), and the ranks it is on: infinite without a peak."""
    first = values[..., 0]
    endless = np.full_like(first, np.inf)
    if law.weak:
        return endless, endless
    with np.errstate(divide="ignore", invalid="ignore"):
        most = 1.0 / first
        if law is AMDAHL:
            return most, endless
        kappa = values[..., 1]
        # Less than one rank there is not: then nothing is as fast as the base.
        peak = np.where(kappa > 0.0, np.maximum(1.0, np.sqrt((1.0 - first) / kappa)), np.inf)
        at_peak = peak / (1.0 + first * (peak - 1.0) + kappa * peak * (peak - 1.0))
        return np.where(np.isfinite(peak), at_peak, most), peak


def bootstrap_medians(samples: FloatArray, random: np.random.Generator, count: int = REPLICATES) -> FloatArray:
    """Return medians of samples drawn again with replacement, without drawing every sample.

    A sample drawn again is ``sorted[floor(n U)]`` of a uniform U, and floor(n U) rises with U: so the middle ones in
    order are those of the middle uniforms in order, which are Beta distributed.  The same distribution, for one or two
    random numbers a median instead of n.

    Parameters
    ----------
    samples : float64 array (n,)
    random : numpy.random.Generator
    count : int

    Returns
    -------
    float64 array (count,)
    """
    ordered, n = np.sort(samples), samples.size
    below = (n + 1) // 2  # place of the lower middle one, from 1
    uniform = random.beta(below, n - below + 1, count)
    lower = ordered[np.minimum((n * uniform).astype(np.intp), n - 1)]
    if n % 2:
        return lower
    # The next in order is the least of the n / 2 uniforms that are left, all above.
    above = 1.0 - (1.0 - uniform) * random.random(count) ** (1.0 / (n - below))
    return np.asarray(0.5 * (lower + ordered[np.minimum((n * above).astype(np.intp), n - 1)]))


def _resampled(based: Sequence[tuple[Point, Base]], *, weak: bool) -> FloatArray | None:
    """Return efficiencies of the bootstrap, (REPLICATES, n_points); None where an entry has too few repetitions."""
    entries = {e.number: e for p, base in based for e in (base.entry, p.entry)}
    if not all(has_bounds(e.step) for e in entries.values()):
        return None
    random = np.random.default_rng(_SEED)
    medians = {number: bootstrap_medians(e.case.step_s(), random) for number, e in entries.items()}
    ratios = [medians[b.entry.number] / medians[p.entry.number] / (1 if weak else p.n_ranks) for p, b in based]
    return np.stack(ratios, axis=1)


def _estimate(value: FloatArray, replicates: FloatArray) -> Estimate:
    ordered = np.partition(replicates, (_TAIL - 1, REPLICATES - _TAIL))
    return Estimate(float(value), float(ordered[_TAIL - 1]), float(ordered[REPLICATES - _TAIL]))


def _residual(law: Law, values: FloatArray, n_ranks: int, measured: Interval) -> Residual:
    fitted = float(law.efficiency(np.array([float(n_ranks)]), values)[0])
    missed = not measured.low <= fitted <= measured.high if has_bounds(measured) else None
    return Residual(n_ranks, fitted / measured.median - 1.0, missed)


def _is_base(point: Point) -> bool:
    return point.base is not None and point.base.entry.number == point.entry.number


def _ranks_where(series: Series, holds: Callable[[Point], bool]) -> tuple[int, ...]:
    return tuple(sorted({p.n_ranks for p in series.points if holds(p)}))
