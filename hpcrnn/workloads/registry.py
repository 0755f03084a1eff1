"""From the name in a specification to the workload."""

from __future__ import annotations

from collections.abc import Callable

from hpcrnn.spec import RunSpec
from hpcrnn.workloads.adding import open_adding
from hpcrnn.workloads.base import Workload, refused
from hpcrnn.workloads.sequences import check_sequences
from hpcrnn.workloads.series import open_series
from hpcrnn.workloads.synthetic import check_features, open_synthetic
from hpcrnn.workloads.text import open_file, open_stdlib

_NAMED: dict[str, Callable[[RunSpec], Workload]] = {
    "stdlib": open_stdlib,
    "adding": open_adding,
    "synthetic": open_synthetic,
}
_WITH_PATH: dict[str, Callable[[RunSpec, str], Workload]] = {"file": open_file, "series": open_series}

_LOSS_UNITS = {"stdlib": "nats per byte", "file": "nats per byte"}
"""Of cross-entropies; what is not here has squared errors, or a sum, in the unit of its data."""


def loss_unit(workload: str) -> str:
    """Return the unit of a workload's loss, by its name; empty for a plain number."""
    return _LOSS_UNITS.get(workload.partition(":")[0], "")


def open_workload(spec: RunSpec) -> Workload:
    """Open the workload a specification names.

    Raises
    ------
    SpecError
        There is none of this name, or its file, the sequence length, ``problem.features`` or ``problem.sequences``
        do not fit it.
    FileError
        The standard library's sources are not on disk.
    """
    name = spec.problem.workload
    kind, _, path = name.partition(":")
    if name not in _NAMED and not (kind in _WITH_PATH and path):
        raise refused(spec, "stdlib, file:PATH, series:PATH, adding or synthetic")
    check_features(spec)
    check_sequences(spec)
    if name in _NAMED:
        return _NAMED[name](spec)
    return _WITH_PATH[kind](spec, path)
