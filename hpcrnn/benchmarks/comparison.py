"""How wrong a step is, and how wrong it may be.

Errors are relative to the float64 serial run. The yardstick is what the serial run *in the same dtype* loses against
it: a way of splitting the work may lose :data:`FACTOR` times that, and no more. The yardstick in turn may not exceed
:data:`YARDSTICK_CAP` times what rounding the parameters once does to the result: a problem that amplifies rounding has
a long yardstick, a broken kernel has not.

Of precisions that only a GPU has there is no serial run to trust: what rounding the parameters once does is the
yardstick itself there, and :data:`COARSE_FACTOR` times that is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from hpcrnn.backends.base import Array, Outcome
from hpcrnn.benchmarks.reference import EPS, Trusted
from hpcrnn.records.record import Check
from hpcrnn.spec import RunSpec

FACTOR = 4.0
"""An exact strategy may lose this many times what the serial run in the same dtype loses."""

YARDSTICK_CAP = 32.0
"""The serial run commits a rounding error at every step, not one: room for that, and not for a mistake."""

COARSE_FACTOR = 2.0
"""A run that rounds at every step may lose this many times what rounding its parameters once does: measured on 36
problems of smooth cells, 0.4 to 1.06 times."""

KINK = 0.1
"""The slope of relu jumps: a unit that coarse rounding carries over zero has another gradient, whoever computes it."""

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


def factor(spec: RunSpec) -> float:
    """How many times its yardstick a run may lose."""
    return FACTOR if spec.machine.precision == "float32" else COARSE_FACTOR


def compare(outcome: Outcome, trusted: Trusted, spec: RunSpec) -> list[Check]:
    """Compare everything a step computed with the reference.

    Parameters
    ----------
    outcome : Outcome
        Of the run under test.
    trusted : Trusted
    spec : RunSpec
        Of that run: its dtype and its precision.

    Returns
    -------
    list of Check
    """
    reference, precision = trusted.reference, spec.machine.precision
    runs = [outcome, trusted.yardstick, trusted.perturbed]
    judge = partial(_fine_check, floor(spec.model.dtype))
    if precision in trusted.coarse:
        kink = KINK if spec.model.cell == "elman" and spec.model.activation == "relu" else 0.0
        runs, judge = [outcome, trusted.coarse[precision]], partial(_coarse_check, EPS[precision], kink)
    # Where no term of the loss counts, as in a piece of a sequence without targets, errors are absolute.
    size = trusted.loss_size or 1.0
    checks = [judge("loss", *(abs(run.loss - reference.loss) / size for run in runs))]
    gradients = [a for name, a in reference.arrays.items() if name.startswith("gradient ")]
    vanished = _VANISHED * max((float(np.linalg.norm(a)) for a in gradients), default=0.0)
    for name, exact in reference.arrays.items():
        least = vanished if name.startswith("d ") else 0.0
        checks.append(judge(name, *(_error_of(run.arrays, name, exact, least) for run in runs)))
    return checks


def _fine_check(lowest: float, quantity: str, error: float, serial_error: float, sensitivity: float) -> Check:
    allowed = min(serial_error, YARDSTICK_CAP * max(sensitivity, lowest))
    return Check(quantity, error, serial_error, FACTOR * max(allowed, lowest))


def _coarse_check(eps: float, kink: float, quantity: str, error: float, sensitivity: float) -> Check:
    allowed = COARSE_FACTOR * max(sensitivity, eps / 2)
    is_gradient = quantity.startswith(("gradient ", "d ")) or quantity == "dx"
    return Check(quantity, error, sensitivity, max(allowed, kink) if is_gradient else allowed)


def _error_of(found: Mapping[str, Array], name: str, exact: Array, least: float) -> float:
    return relative_error(found[name], exact, least) if name in found else float("nan")


def relative_error(found: Array, exact: Array, least: float = 0.0) -> float:
    """``|found - exact| / |exact|`` in the 2-norm, of an ``|exact|`` of at least ``least``; NaN of unequal shapes."""
    if found.shape != exact.shape:
        return float("nan")
    difference = float(np.linalg.norm((found.astype(np.float64) - exact).ravel()))
    size = max(float(np.linalg.norm(exact.ravel())), least)
    return difference / size if size > 0 else difference
