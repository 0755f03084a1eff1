"""Where each value of a certificate lies in its HDF5 group, which opens without the rest of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.records.certificate import DIRECTIONS, QUANTILES, Certificate
from hpcrnn.records.layout_fields import (
    MalformedError,
    fill_array,
    fill_scales,
    read_array,
    read_attribute,
    read_json,
    read_texts,
    read_truths,
    texts,
    to_json,
)

if TYPE_CHECKING:
    import h5py

SOLVES = ("training_step", "layer", "direction")
"""Dimensions of what is known of every solve."""
TRAJECTORIES = ("first", "last")
"""Training steps along whose trajectories a Lyapunov exponent was estimated."""

UNITS = {
    "rounds": "rounds",
    "critical_steps": "time steps",
    "row_steps": "time steps x rows",
    "n_unmet": "segments x rows",
    "meeting": "time steps",
    "meeting_quantiles": "time steps",
    "lyapunov": "1 / time step",
}

_COUNTS = ("rounds", "critical_steps", "row_steps", "n_unmet")
_TRUTHS = ("converged", "truncated")
DIMENSIONS = {
    **dict.fromkeys((*_COUNTS, "residual", *_TRUTHS), SOLVES),
    "meeting_quantiles": (*SOLVES, "quantile"),
    "meeting": ("layer", "direction", "segment", "row"),
    "lyapunov": ("trajectory", "layer"),
}


def fill_certificate(group: h5py.Group, certificate: Certificate) -> None:
    """Write a certificate into an empty group; large arrays are compressed."""
    group.attrs["n_segments"] = certificate.n_segments
    n_rows = certificate.meeting.shape[-1]
    counts = {"training_step": len(certificate.rounds), "segment": certificate.n_segments, "row": n_rows}
    fill_scales(group, {name: np.arange(count, dtype=np.int64) for name, count in counts.items()})
    fill_scales(
        group,
        {
            "layer": texts(certificate.layers),
            "direction": texts(certificate.directions),
            "quantile": np.array(QUANTILES),
            "trajectory": texts(TRAJECTORIES),
        },
    )
    for name, dimensions in DIMENSIONS.items():
        array = getattr(certificate, name)
        kept = np.bool_ if name in _TRUTHS else np.int64 if name in (*_COUNTS, "meeting") else np.float64
        fill_array(group, name, array.astype(kept), dimensions, unit=UNITS.get(name, ""), compressed=True)
    # A dataset: an attribute may hold 64 KiB at the most.
    group["choice"] = to_json(certificate.choice)


def parse_certificate(group: h5py.Group) -> Certificate:
    """Read a certificate; whether its arrays fit each other is left to the case.

    Raises
    ------
    MalformedError
        Something is missing or has the wrong type.
    """
    directions = read_texts(group, "direction")
    if not set(directions) <= set(DIRECTIONS):
        raise MalformedError(group.name, f"has a direction that is not {' or '.join(DIRECTIONS)}")
    if read_array(group, "quantile", np.float64).tolist() != list(QUANTILES):
        raise MalformedError(group.name, "has other quantiles than this hpcrnn knows")
    choice = read_json(group, "choice")
    if not isinstance(choice, dict):
        raise MalformedError(group.name, "has a choice that is no JSON object")
    rounds, critical_steps, row_steps, n_unmet = (read_array(group, name, np.int64) for name in _COUNTS)
    converged, truncated = (read_truths(group, name) for name in _TRUTHS)
    return Certificate(
        layers=read_texts(group, "layer"),
        directions=directions,
        n_segments=read_attribute(group, "n_segments", int),
        rounds=rounds,
        critical_steps=critical_steps,
        row_steps=row_steps,
        residual=read_array(group, "residual", np.float64),
        converged=converged,
        truncated=truncated,
        n_unmet=n_unmet,
        meeting_quantiles=read_array(group, "meeting_quantiles", np.float64),
        meeting=read_array(group, "meeting", np.int64),
        lyapunov=read_array(group, "lyapunov", np.float64),
        choice=choice,
    )
