"""Where each value of a case's compression lies in its HDF5 group, which opens without the rest of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.records.compression import Compression
from hpcrnn.records.layout_fields import fill_array, fill_scales, read_array, read_attribute

if TYPE_CHECKING:
    import h5py

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "error": ("watched_step",),
    "backlog": ("watched_step",),
    "held_back": ("watched_step", "rank"),
}
_COUNTS = ("plain_bytes", "coded_bytes")
_WIRE = ("plain_wire_bytes", "coded_wire_bytes")


def fill_compression(group: h5py.Group, compression: Compression) -> None:
    """Write it into an empty group."""
    group.attrs.update({name: getattr(compression, name) for name in (*_COUNTS, *_WIRE)})
    n_ranks = compression.held_back.shape[1]
    fill_scales(
        group,
        {"watched_step": compression.training_step.astype(np.int64), "rank": np.arange(n_ranks, dtype=np.int64)},
    )
    for name, dimensions in DIMENSIONS.items():
        fill_array(group, name, getattr(compression, name).astype(np.float64), dimensions)


def parse_compression(group: h5py.Group) -> Compression:
    """Read it; whether its arrays fit each other is left to the case.

    Raises
    ------
    MalformedError
        Something is missing or has the wrong type.
    """
    plain, coded = (read_attribute(group, name, int) for name in _COUNTS)
    plain_wire, coded_wire = (read_attribute(group, name, float) for name in _WIRE)
    error, backlog, held_back = (read_array(group, name, np.float64) for name in DIMENSIONS)
    return Compression(
        plain, coded, plain_wire, coded_wire, read_array(group, "watched_step", np.int64), error, backlog, held_back
    )
