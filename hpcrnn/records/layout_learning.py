"""Where each value of a learning curve lies in its HDF5 group, which opens without the rest of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.layout_fields import (
    MalformedError,
    fill_array,
    fill_scales,
    read_array,
    read_attribute,
    read_texts,
    texts,
)
from hpcrnn.records.learning import COLUMNS, COUNTED, ENDINGS, Curve, Learning

if TYPE_CHECKING:
    import h5py

_NAMES = {"time_s": "time", "energy_j": "energy"}
"""Datasets whose unit is an attribute, not a part of the name."""
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "ending": ("seed",),
    **{_NAMES.get(name, name): ("evaluation",) for name in ("curve", *COLUMNS)},
    "legs_before": ("restart",),
}
UNITS = {"time": "s", "sent_bytes": "bytes", "energy": "J"}


def fill_learning(group: h5py.Group, learning: Learning) -> None:
    """Write learning curves into an empty group: one table of all evaluations, in which ``curve`` numbers the seeds."""
    group.attrs.update(target_loss=float(learning.target_loss), loss_unit=learning.unit, held_out=learning.held_out)
    curves = learning.curves
    lengths = [len(curve.step) for curve in curves]
    fill_scales(
        group,
        {
            "seed": np.array([curve.seed for curve in curves], dtype=np.int64),
            "evaluation": np.arange(sum(lengths), dtype=np.int64),
        },
    )
    _fill(group, "ending", texts(curve.ending for curve in curves))
    _fill(group, "curve", np.repeat(np.arange(len(curves), dtype=np.int64), lengths))
    for name in COLUMNS:
        dtype = np.int64 if name in COUNTED else np.float64
        whole = (
            np.concatenate([getattr(curve, name).astype(dtype) for curve in curves]) if curves else np.empty(0, dtype)
        )
        _fill(group, _NAMES.get(name, name), whole)
    _fill_restarts(group, learning.restarts)


def _fill_restarts(group: h5py.Group, restarts: tuple[int, ...]) -> None:
    if restarts:
        fill_scales(group, {"restart": np.arange(len(restarts), dtype=np.int64)})
        _fill(group, "legs_before", np.array(restarts, dtype=np.int64))


def _fill(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> None:
    compressed = array.dtype != object
    fill_array(group, name, array, DIMENSIONS[name], unit=UNITS.get(name, ""), compressed=compressed)


def parse_learning(group: h5py.Group) -> Learning:
    """Read learning curves.

    Raises
    ------
    MalformedError
        Something is missing, has the wrong type, or columns are of several lengths.
    """
    seeds = read_array(group, "seed", np.int64)
    endings = read_texts(group, "ending")
    curve = read_array(group, "curve", np.int64)
    columns = {
        name: read_array(group, _NAMES.get(name, name), np.int64 if name in COUNTED else np.float64) for name in COLUMNS
    }
    if seeds.shape != (len(endings),) or {column.shape for column in columns.values()} != {(curve.size,)}:
        raise MalformedError(group.name, "has columns of several lengths")
    if (np.diff(curve) < 0).any() or not set(curve.tolist()) <= set(range(len(seeds))):
        raise MalformedError(group.name, "has a curve that does not number its seeds in order")
    curves = []
    for index, (seed, ending) in enumerate(zip(seeds.tolist(), endings, strict=True)):
        known = next((word for word in ENDINGS if word == ending), None)
        if known is None:
            raise MalformedError(group.name, f"has an ending that is not {', '.join(ENDINGS)}")
        curves.append(Curve(seed, known, **{name: column[curve == index] for name, column in columns.items()}))
    return Learning(
        target_loss=read_attribute(group, "target_loss", float),
        unit=read_attribute(group, "loss_unit", str),
        held_out=read_attribute(group, "held_out", str),
        curves=tuple(curves),
        restarts=tuple(read_array(group, "legs_before", np.int64).ravel().tolist()) if "legs_before" in group else (),
    )
