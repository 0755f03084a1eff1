"""What must hold of the certificate of a case that runs segments of time at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hpcrnn.records.certificate import QUANTILES, SETTLED, UNMET, Certificate
from hpcrnn.records.layout_stored import StoredCase
from hpcrnn.records.record import Case
from hpcrnn.records.split import CHAIN
from hpcrnn.records.wrong import CLOSE, Wrong, first_wrong, value_at


def check_certificate_presence(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Solves have a certificate where steps were run; a chain has none."""
    wanted = case.method != CHAIN and len(case.loss) > 0
    if (case.certificate is not None) != wanted:
        found = "there" if case.certificate is not None else "not there"
        expected = f"{'one' if wanted else 'none'}: method {case.method}, {len(case.loss)} steps"
        yield Wrong("certificate", found, expected)


def check_certificate_shape(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A certificate is of the case's layers, directions, segments and rows."""
    if (certificate := case.certificate) is None:
        return
    grid, problem = dict(case.split.axes), case.spec["problem"]
    n_directions = 1 if case.spec["training"].get("mode") == "forward" else 2
    for name, found, wanted in (
        ("layer", len(certificate.layers), case.spec["model"].get("layers")),
        ("direction", len(certificate.directions), n_directions),
        ("segment", certificate.n_segments, grid.get("time", 1) * case.fold),
        ("row", certificate.meeting.shape[3], problem.get("batch")),
    ):
        if found != wanted:
            yield Wrong(f"certificate: {name}s", str(found), str(wanted))


def check_certificate_numbers(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Counts are not negative, work is no less than its critical path, a converged residual is in the tolerance."""
    if (certificate := case.certificate) is None:
        return
    axes = ("training_step", certificate.layers, certificate.directions)
    for name in ("rounds", "critical_steps", "row_steps", "n_unmet", "residual"):
        numbers = getattr(certificate, name)
        yield from first_wrong(f"certificate/{name}", numbers, numbers < 0, "no negative number", axes)
    work, path = certificate.row_steps, certificate.critical_steps
    yield from first_wrong("certificate/row_steps", work, work < path, "at least critical_steps", axes)
    tolerance = case.spec["recurrence"].get("tolerance")
    if isinstance(tolerance, float) and case.spec["recurrence"].get("halo_codec", "none") == "none":
        wrong = certificate.converged & ~(certificate.residual <= tolerance)
        expected = f"at most the tolerance {tolerance:g}, for it converged"
        yield from first_wrong("certificate/residual", certificate.residual, wrong, expected, axes)


def check_meeting(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Unmet segments and quantiles of the last step are those of its meeting lengths."""
    certificate = case.certificate
    if certificate is None or not len(certificate.rounds):
        return
    lengths, axes = certificate.meeting, (certificate.layers, certificate.directions)
    wrong = (lengths < UNMET) | (lengths > case.spec["problem"].get("seq", np.inf))
    yield from first_wrong(
        "certificate/meeting", lengths, wrong, "-1 to the steps of the sequence", (*axes, "segment", "row")
    )
    counts, unmet = certificate.n_unmet[-1], (lengths == UNMET).sum(axis=(2, 3))
    expected = f"{value_at(unmet, counts != unmet):.0f}, as in meeting" if (counts != unmet).any() else ""
    yield from first_wrong("certificate/n_unmet of the last step", counts, counts != unmet, expected, axes)
    stored, wanted = certificate.meeting_quantiles[-1], _quantiles(certificate)
    wrong = ~np.isclose(stored, wanted, rtol=CLOSE, atol=0, equal_nan=True)
    expected = f"{value_at(wanted, wrong):g}, as in meeting" if wrong.any() else ""
    levels = tuple(f"quantile {q:g}" for q in QUANTILES)
    yield from first_wrong("certificate/meeting_quantiles of the last step", stored, wrong, expected, (*axes, levels))


def _quantiles(certificate: Certificate) -> npt.NDArray[np.float64]:
    """Quantiles of the meeting lengths of those that met, shape (L, D, 6)."""
    found = np.full((*certificate.meeting.shape[:2], len(QUANTILES)), np.nan)
    for at in np.ndindex(found.shape[:2]):
        met = certificate.meeting[at][certificate.meeting[at] > SETTLED]
        if met.size:
            found[at] = np.quantile(met, QUANTILES)
    return found
