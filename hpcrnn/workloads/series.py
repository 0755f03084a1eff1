"""Next-step regression on a series of the user's: (N, D) numbers in .npy or HDF5."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import read_array
from hpcrnn.spec import RunSpec
from hpcrnn.workloads.base import Array, Batch, Interface, random_windows, refused, row_range
from hpcrnn.workloads.division import trained_part

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeriesWorkload:
    """Windows of T + 1 rows of the series; the targets are the inputs one row later.

    Attributes
    ----------
    name : str
    series : float array (N, D)
        Standardised, in the model's dtype; N > T.
    mean, scale : float64 array (D,)
        What was subtracted from each column, then divided by.
    sha256 : str
        Of the numbers as they were read.
    n_rows, seq, seed : int
        B, T and the seed of the window offsets.
    carry : bool
        Whether a row reads on where it ended in the step before.
    """

    name: str
    series: Array
    mean: FloatArray
    scale: FloatArray
    sha256: str
    n_rows: int
    seq: int
    seed: int
    carry: bool = False

    @property
    def interface(self) -> Interface:
        """D features in, D values out, squared error."""
        width = self.series.shape[1]
        return Interface("features", width, "squared_error", width)

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """Cut inputs and targets (T, B, D): two views of one window."""
        taken = row_range(rows, self.n_rows)
        window = random_windows(self.series, self.seed, step, taken, self.seq + 1, carry=self.carry)
        return Batch(window[:-1], window[1:])

    def describe(self) -> dict[str, Any]:
        """Return shape, SHA-256 and the standardisation."""
        return {
            "name": self.name,
            "shape": list(self.series.shape),
            "sha256": self.sha256,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }


def open_series(spec: RunSpec, name: str) -> SeriesWorkload:
    """Open ``PATH.npy``, ``PATH.h5`` or ``PATH.h5:DATASET``.

    Raises
    ------
    SpecError
        It cannot be read, or is not a matrix of finite numbers of more than T rows.
    """
    problem = spec.problem
    try:
        raw = read_array(*_path_and_dataset(name))
    except FileError as error:
        raise refused(spec, f"series: and a .npy or HDF5 file ({error})") from None
    allowed = _fault(raw, problem.seq)
    if allowed:
        raise refused(spec, allowed)
    values, mean, scale = standardise(raw.astype(np.float64))
    digest = hashlib.sha256(np.ascontiguousarray(raw).data).hexdigest()
    series = trained_part(spec, values.astype(spec.model.dtype))
    if len(series) <= problem.seq:
        raise refused(spec, _fault(series, problem.seq))
    sizes = problem.batch, problem.seq, problem.seed
    return SeriesWorkload(problem.workload, series, mean, scale, digest, *sizes, carry=spec.training.carry)


def standardise(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bring every column to mean zero and standard deviation one.

    Parameters
    ----------
    values : float64 array (N, D)
        Finite.

    Returns
    -------
    standardised : float64 array (N, D)
    mean, scale : float64 array (D,)
        A constant column has scale one and becomes exactly zero.
    """
    constant = values.min(axis=0) == values.max(axis=0)
    # Sums and squares of numbers near the largest double overflow; those of numbers up to one do not.
    # A power of two, so that scaling rounds nothing.
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(values).max(axis=0), np.finfo(np.float64).tiny))))
    scaled = values / unit
    mean = np.where(constant, scaled[0], scaled.mean(axis=0))
    scale = np.where(constant, 1.0 / unit, scaled.std(axis=0))
    # Deviations so small that their squares vanish: the largest deviation is the scale.
    scale = np.where(scale == 0, np.abs(scaled - mean).max(axis=0), scale)
    return (scaled - mean) / scale, mean * unit, scale * unit


def _path_and_dataset(name: str) -> tuple[Path, str | None]:
    """Split ``file.h5:dataset``, unless a file has just that name."""
    head, _, dataset = name.rpartition(":")
    try:
        if head and dataset and not Path(name).expanduser().exists():
            return Path(head).expanduser(), dataset
        return Path(name).expanduser(), None
    except (OSError, ValueError, RuntimeError):  # too long for a name, a NUL in it, ~ of nobody
        return Path(name), None


def _fault(raw: Array, seq: int) -> str:
    """Say what would have been accepted, where this is not; empty where it is."""
    if raw.dtype.kind not in "biuf":
        return f"an array of real numbers; this has dtype {raw.dtype}"
    if raw.ndim != 2 or raw.shape[1] == 0:
        return f"an array of shape (N, D); this has shape {raw.shape}"
    if len(raw) <= seq:
        return f"an array of at least seq + 1 = {seq + 1} rows; this has {len(raw)}"
    if not np.isfinite(raw.astype(np.float64)).all():
        return "an array of finite numbers; this holds NaN or infinity"
    return ""
