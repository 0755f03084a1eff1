"""What a certificate says, in words and in a table: how segments of time met, and how near the chain they came."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.certificate import QUANTILES, Certificate
from hpcrnn.records.record import Case
from hpcrnn.recurrence import CORRECTED
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import worst_check
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.table import Table
from hpcrnn.reporting.units import MISSING, format_ratio, plural, printable, scientific, shorten, significant

MEDIAN, WORST = QUANTILES.index(0.5), QUANTILES.index(1.0)

SHORT = {"forward": "fwd", "backward": "bwd"}


@dataclass(frozen=True)
class DirectionSummary:
    """What the solves of one direction did, over all layers.

    Attributes
    ----------
    direction : {"forward", "backward"}
    rounds, most_rounds : int
        Of the layer with the most: in the median step, and in any.
    critical_steps : float
        Time steps one after another, summed over layers, in the median step.
    serial_steps : int
        The same of the chain: time steps times layers.
    met_after, worst_met_after : float
        Median and largest meeting length, time steps; NaN where nothing had to meet.
    n_unmet : int
        Re-runs of a segment and sample that came to its end without meeting, over all steps.
    residual : float
        The largest.
    """

    direction: str
    rounds: int
    most_rounds: int
    critical_steps: float
    serial_steps: int
    met_after: float
    worst_met_after: float
    n_unmet: int
    residual: float

    @property
    def gain(self) -> float:
        """Serial steps over critical steps: the speedup if every step took the same time and messages took none."""
        return self.serial_steps / self.critical_steps if self.critical_steps else math.nan


def summarise(case: Case, certificate: Certificate) -> list[DirectionSummary]:
    """Summarise the solves of each direction: what is typical over the counted steps, what is worst over all."""
    counted = slice(case.warmup_s.shape[0] if len(case.time_s) else 0, None)
    seq = case.spec["problem"].get("seq", 0)
    found = []
    for k, direction in enumerate(certificate.directions):
        rounds = certificate.rounds[:, :, k].max(axis=1, initial=0)
        meeting = certificate.meeting_quantiles[:, :, k]
        found.append(
            DirectionSummary(
                direction=direction,
                rounds=round(_of_known(np.median, rounds[counted], 0.0)),
                most_rounds=int(rounds.max(initial=0)),
                critical_steps=_of_known(np.median, certificate.critical_steps[counted, :, k].sum(axis=1), 0.0),
                serial_steps=int(seq) * len(certificate.layers),
                met_after=_of_known(np.median, meeting[counted, :, MEDIAN]),
                worst_met_after=_of_known(np.max, meeting[:, :, WORST]),
                n_unmet=int(certificate.n_unmet[:, :, k].sum()),
                residual=_of_known(np.max, certificate.residual[:, :, k]),
            )
        )
    return found


def _of_known(statistic: Callable[[Any], Any], values: npt.NDArray[Any], nothing: float = math.nan) -> float:
    """Take a statistic of what is not NaN."""
    known = values[~np.isnan(values)]
    return float(statistic(known)) if known.size else nothing


def certificate_lines(case: Case) -> list[tuple[str, bool]]:
    """Say what the certificate of a case says, a line a subject.

    Returns
    -------
    list of (str, bool)
        The flag marks what must not be overlooked. Empty where the case has no certificate.
    """
    certificate = case.certificate
    if certificate is None:
        return []
    lines = [(f"{_heading(case, certificate)}: {_solves(case, certificate)}", False)]
    approximate = case.verdict.status == "APPROXIMATE"
    lines += [(text, True) for text in _alarms(case, certificate)]
    lines.append((f"{'APPROXIMATE: ' if approximate else ''}{error_text(case)}", approximate))
    if exponents := _exponents(certificate):
        chaotic = bool((certificate.lyapunov >= 0).any())
        lines.append((f"largest Lyapunov exponent a time step: {exponents}{'; chaotic' if chaotic else ''}", chaotic))
    if reason := certificate.choice.get("reason"):
        lines.append((f"chosen by --method auto: {shorten(printable(reason), 300)}", False))
    return lines


def error_text(case: Case) -> str:
    """Write ``gradient error 4.9e-7, serial float32 4.3e-7``; without gradients, the check nearest its tolerance."""
    verdict = case.verdict
    error, serial, what = verdict.gradient_error, verdict.serial_gradient_error, "gradient"
    if math.isnan(error) and (worst := worst_check(verdict)):
        error, serial, what = worst.error, worst.serial_error, printable(worst.quantity)
    return f"{what} error {scientific(error)}, {yardstick_name(case)} {scientific(serial)}"


def yardstick_name(case: Case) -> str:
    """What a case's errors are held against: ``serial float32``, or ``rounded to bfloat16 once``."""
    if case.precision != case.spec["model"].get("dtype"):
        return f"rounded to {printable(case.precision)} once"
    return f"serial {printable(case.precision)}"


def _heading(case: Case, certificate: Certificate) -> str:
    """Write ``picard, 128 segments, tolerance 1e-06``."""
    section = case.spec.get("recurrence", {})
    parts = [printable(case.method), plural(certificate.n_segments, "segment")]
    if case.method in CORRECTED:
        parts.append(f"tolerance {section.get('tolerance', math.nan):g}")
    if burn_in := section.get("burn_in"):
        parts.append(f"burn-in {burn_in}")
    if (codec := section.get("halo_codec", "none")) != "none":
        parts.append(f"halos in {printable(codec)}")
    return ", ".join(parts)


def _solves(case: Case, certificate: Certificate) -> str:
    """Write what the solves did: rounds, critical path, meeting lengths, residual, whether all converged."""
    passes = summarise(case, certificate)

    def both(write: Callable[[DirectionSummary], str]) -> str:
        return ", ".join(f"{write(p)} {SHORT[p.direction]}" for p in passes)

    parts = [f"rounds {both(_rounds)}"]
    serial = max((p.serial_steps for p in passes), default=0)
    parts.append(f"critical path {both(lambda p: f'{p.critical_steps:.0f}')} of {serial} steps")
    if any(math.isfinite(p.met_after) for p in passes):
        worst = ", ".join(_steps(p.worst_met_after) for p in passes)
        parts.append(f"met after {both(lambda p: _steps(p.met_after))} steps (worst {worst})")
    if any(p.n_unmet for p in passes):
        parts.append(f"re-run to the end unmet {both(lambda p: str(p.n_unmet))}")
    residual = _of_known(np.max, certificate.residual)
    if math.isfinite(residual):
        parts.append(f"residual {scientific(residual)}")
    if case.method in CORRECTED and not certificate.n_unconverged:
        parts.append("converged")
    return "; ".join(parts)


def _alarms(case: Case, certificate: Certificate) -> list[str]:
    """Say what went wrong in some step; nothing of a method that corrects nothing, whose verdict says so."""
    if case.method not in CORRECTED:
        return []
    n_steps, found = len(certificate.rounds), []
    if n := certificate.n_unconverged:
        found.append(f"did not converge in {n} of {plural(n_steps, 'step')}: its numbers are not the chain's")
    if n := certificate.n_truncated:
        found.append(
            f"gradient truncated in {n} of {plural(n_steps, 'step')}: a correction was dropped where no loss of the "
            "segment's own outweighs it"
        )
    return found


def _exponents(certificate: Certificate) -> str:
    """Write ``layer0 -0.31 → -0.28``, first and last step; empty where none was estimated."""
    first, last = certificate.lyapunov
    return ", ".join(
        f"{printable(layer)} {significant(float(a), 2)} → {significant(float(b), 2)}"
        for layer, a, b in zip(certificate.layers, first, last, strict=True)
        if math.isfinite(a) or math.isfinite(b)
    )


def _rounds(summary: DirectionSummary, at_most: str = "at most ") -> str:
    more = f" ({at_most}{summary.most_rounds})" if summary.most_rounds > summary.rounds else ""
    return f"{summary.rounds}{more}"


def _steps(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.0f}"


def certificate_table(entries: Sequence[Entry]) -> Table | None:
    """Tabulate the certificates, a row a case; None where no case has one."""
    called = names(entries)
    rows = []
    for entry in entries:
        case, certificate = entry.case, entry.case.certificate
        if certificate is None:
            continue
        passes = summarise(case, certificate)
        exponents = certificate.lyapunov[-1] if np.isfinite(certificate.lyapunov[-1]).any() else certificate.lyapunov[0]
        rows.append(
            [
                str(entry.number),
                called[entry.number],
                str(certificate.n_segments),
                _pair(passes, lambda p: _rounds(p, "")),
                _pair(passes, lambda p: f"{p.critical_steps:.0f}"),
                _pair(passes, lambda p: format_ratio(p.gain)),
                _pair(passes, lambda p: _steps(p.met_after)),
                _pair(passes, lambda p: _steps(p.worst_met_after)),
                scientific(residual) if math.isfinite(residual := _of_known(np.max, certificate.residual)) else MISSING,
                _gradient_error(case, case.verdict.gradient_error),
                _gradient_error(case, case.verdict.serial_gradient_error),
                significant(_of_known(np.max, exponents), 2),
                printable(case.verdict.status),
                "; ".join(text.partition(":")[0] for text in _alarms(case, certificate)) or MISSING,
            ]
        )
    if not rows:
        return None
    columns = ["No.", "Case", "Segments", "Rounds", "Critical path", "T over it", "Met after", "Worst"]
    columns += ["Residual", "Gradient error", "Serial error", "Lyapunov", "Verdict", "Beware"]
    note = (
        "Two numbers: forward / backward. Rounds: passes over the segments, the first included; in brackets the most. "
        "Critical path: time steps one after another, summed over layers; T over it: what the chain has, over that. "
        "Met after: time steps that a corrected trajectory took to meet the old one, median and largest over segments "
        "and samples. Residual: the largest difference left between neighbours, relative to the state. Errors are the "
        "worst gradient's, relative, against float64; the serial one is what a serial run in the same dtype loses. "
        "Lyapunov: the largest exponent of a layer, 1 / time step; from 0 on trajectories never meet. Typical values "
        "are medians over the counted steps, worst ones are over all."
    )
    return Table("Certificates", columns, rows, text_columns=(1, 12, 13), note=note)


def _pair(passes: Sequence[DirectionSummary], write: Callable[[DirectionSummary], str]) -> str:
    """Write the directions side by side: ``2 / 3``."""
    return " / ".join(map(write, passes))


def _gradient_error(case: Case, error: float) -> str:
    """An error; a dash in mode ``forward``, where there is no gradient."""
    return MISSING if case.spec["training"]["mode"] == "forward" else scientific(error)
