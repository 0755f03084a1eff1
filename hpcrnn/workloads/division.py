"""Where what is trained on ends, and what is held out begins."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from hpcrnn.spec import RunSpec

Array = npt.NDArray[Any]

HELD_OUT_SEED = 2**31
"""One more than the largest seed a run can be given."""

_PARTS = 10


def held_out_part(series: Array) -> Array:
    """Return the last tenth, along the first axis; a view."""
    return series[len(series) - len(series) // _PARTS :]


def trained_part(spec: RunSpec, series: Array) -> Array:
    """Return what is trained on: all but the last tenth where a target is to be reached, else all; a view."""
    return series[: len(series) - len(series) // _PARTS] if spec.training.mode == "target" else series
