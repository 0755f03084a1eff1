"""How wrong a step is, and how wrong it may be.

Errors are relative to the float64 serial run. The yardstick is what the serial run *in the same dtype* loses against
it: a way of splitting the work may lose :data:`FACTOR` times that, and no more. The yardstick in turn may not exceed
:data:`YARDSTICK_CAP` times what rounding the parameters once does to the result: a problem that amplifies rounding has
a long yardstick, a broken kernel has not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hpcrnn.backends.base import Array, Outcome
from hpcrnn.benchmarks.reference import Trusted
from hpcrnn.records.record import Check
from hpcrnn.spec import RunSpec

FACTOR = 4.0
"""An exact strategy may lose this many times what the serial run in the same dtype loses."""

YARDSTICK_CAP = 32.0
"""The serial run commits a rounding error at every step, not one: room for that, and not for a mistake."""

_VANISHED = 1e-2
"""A gradient of an initial state smaller than this share of the largest of a parameter is compared with that share: on
its way through time it may vanish altogether, and nothing is left to be right about."""


def floor(dtype: str) -> float:
    """Smallest error worth holding against a run.

    In float32 two units in the last place: a serial run may be lucky.  In float64 the reference *is* the
    serial run, so its own error is unknown: 64 units leave room for another order of summation.
    """
    eps = float(np.finfo(dtype).eps)
    return 2 * eps if dtype == "float32" else 64 * eps


def compare(outcome: Outcome, trusted: Trusted, spec: RunSpec) -> list[Check]:
    """Compare everything a step computed with the reference.

    Parameters
    ----------
    outcome : Outcome
        Of the run under test.
    trusted : Trusted
    spec : RunSpec

    Returns
    -------
    list of Check
    """
    lowest = floor(spec.model.dtype)
    reference, yardstick, perturbed = trusted.reference, trusted.yardstick, trusted.perturbed

    def check(quantity: str, error: float, serial_error: float, sensitivity: float) -> Check:
        allowed = min(serial_error, YARDSTICK_CAP * max(sensitivity, lowest))
        return Check(quantity, error, serial_error, FACTOR * max(allowed, lowest))

    loss_errors = (abs(run.loss - reference.loss) / trusted.loss_size for run in (outcome, yardstick, perturbed))
    checks = [check("loss", *loss_errors)]
    gradients = [a for name, a in reference.arrays.items() if name.startswith("gradient ")]
    vanished = _VANISHED * max((float(np.linalg.norm(a)) for a in gradients), default=0.0)
    for name, exact in reference.arrays.items():
        least = vanished if name.startswith("d ") else 0.0
        errors = [_error_of(run.arrays, name, exact, least) for run in (outcome, yardstick, perturbed)]
        checks.append(check(name, *errors))
    return checks


def _error_of(found: Mapping[str, Array], name: str, exact: Array, least: float) -> float:
    return relative_error(found[name], exact, least) if name in found else float("nan")


def relative_error(found: Array, exact: Array, least: float = 0.0) -> float:
    """``|found - exact| / |exact|`` in the 2-norm, of an ``|exact|`` of at least ``least``; NaN of unequal shapes."""
    if found.shape != exact.shape:
        return float("nan")
    difference = float(np.linalg.norm((found.astype(np.float64) - exact).ravel()))
    size = max(float(np.linalg.norm(exact.ravel())), least)
    return difference / size if size > 0 else difference
