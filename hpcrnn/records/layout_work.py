"""Where each value of a case's work lies in its HDF5 group, which opens without the rest of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.records.layout_fields import fill_array, fill_scales, read_array
from hpcrnn.records.work import Work

if TYPE_CHECKING:
    import h5py

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "tokens": ("rep", "rank"),
    "slots": ("rep", "rank"),
    "n_sequences": ("length",),
}
UNITS = {"tokens": "time steps x rows", "slots": "time steps x rows", "n_sequences": "sequences"}


def fill_work(group: h5py.Group, work: Work) -> None:
    """Write it into an empty group."""
    n_reps, n_ranks = work.tokens.shape
    fill_scales(group, {name: np.arange(n, dtype=np.int64) for name, n in (("rep", n_reps), ("rank", n_ranks))})
    fill_scales(group, {"length": np.arange(1, len(work.n_sequences) + 1, dtype=np.int64)})
    for name in ("tokens", "slots"):
        fill_array(group, name, getattr(work, name).astype(np.int64), DIMENSIONS[name], unit=UNITS[name])
    counts = work.n_sequences.astype(np.int64)
    fill_array(group, "n_sequences", counts, DIMENSIONS["n_sequences"], unit=UNITS["n_sequences"], compressed=True)


def parse_work(group: h5py.Group) -> Work:
    """Read it; whether its arrays fit each other is left to the case.

    Raises
    ------
    MalformedError
        Something is missing or has the wrong type.
    """
    return Work(*(read_array(group, name, np.int64) for name in DIMENSIONS))
