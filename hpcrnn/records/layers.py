"""The record of a layer benchmark: raw timings of ours and the peer's, and the errors of both, in one HDF5 file.

::

    / @schema_name @schema_version @created_utc @device  environment (JSON)  ceilings (JSON)
    /cases/<n>  @name @cell @precision @B @T @H @D @group @kernel @peer_kernel
        folded: @fold @tolerance, and by direction, of the last solve: @rounds_ @steps_ @meeting_ @unmet_ @residual_
        <pass>/ours (n,) <pass>/peer (n,)          seconds, interleaved
        quantity, error, peer_error                against float64, at the length error_steps
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import FileError
from hpcrnn.records.whole_file import write_output

SCHEMA_NAME = "hpcrnn-layers"
SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class LayerTiming:
    """One case.

    Attributes
    ----------
    facts : dict
        ``name``, ``cell``, ``precision``, ``B``, ``T``, ``H``, ``D``, ``group``, ``kernel``, ``peer_kernel``,
        ``error_steps``; ``flops_<pass>`` and ``least_bytes_<pass>``. Of a folded case ``fold`` and ``tolerance``
        too, and of its last solves, forward and backward, with ``_forward`` and ``_backward`` behind: ``rounds``,
        ``steps`` one after another, longest ``meeting`` length, ``unmet`` rows and ``residual``.
    ours_s, peer_s : dict of str to float64 array (n,)
        Seconds of each repetition, by pass. No peer: an empty array.
    errors, peer_errors : dict of str to float
        Relative errors by quantity.
    """

    facts: dict[str, Any]
    ours_s: dict[str, npt.NDArray[np.float64]]
    peer_s: dict[str, npt.NDArray[np.float64]]
    errors: dict[str, float]
    peer_errors: dict[str, float]


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """One file.

    Attributes
    ----------
    created_utc, device : str
    environment : dict
    ceilings : dict of str to float
        ``copy_bytes_per_s``, ``<precision>_flops_per_s``.
    cases : tuple of LayerTiming
    """

    created_utc: str
    device: str
    environment: dict[str, Any]
    ceilings: dict[str, float]
    cases: tuple[LayerTiming, ...]


def write_layer_record(record: LayerRecord, path: Path) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    write_output(path, encode_layer_record(record), inputs=(), overwrite=True)


def encode_layer_record(record: LayerRecord) -> bytes:
    """Make the file of a record, all of its bytes."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs.update(
            schema_name=SCHEMA_NAME,
            schema_version=SCHEMA_VERSION,
            created_utc=record.created_utc,
            device=record.device,
            environment=json.dumps(record.environment, sort_keys=True),
            ceilings=json.dumps(record.ceilings, sort_keys=True),
        )
        for index, case in enumerate(record.cases):
            group = file.create_group(f"cases/{index:03d}")
            group.attrs.update(case.facts)
            for which, samples in case.ours_s.items():
                group[f"{which}/ours"] = samples
                group[f"{which}/peer"] = case.peer_s[which]
                for name in ("ours", "peer"):
                    group[f"{which}/{name}"].attrs["units"] = "s"
            group["quantity"] = list(case.errors)
            group["error"] = list(case.errors.values())
            group["peer_error"] = [case.peer_errors.get(name, np.nan) for name in case.errors]
    return content.getvalue()


def read_layer_record(path: Path) -> LayerRecord:
    """Read a file.

    Raises
    ------
    FileError
        It is not there, or not such a file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema_name") != SCHEMA_NAME:
                raise FileError(f"{path}: not a layer benchmark ({SCHEMA_NAME})")
            return LayerRecord(
                str(file.attrs["created_utc"]),
                str(file.attrs["device"]),
                json.loads(file.attrs["environment"]),
                json.loads(file.attrs["ceilings"]),
                tuple(_read_case(group) for _, group in sorted(file["cases"].items())),
            )
    except (OSError, KeyError) as error:
        raise FileError(f"{path}: cannot be read as a layer benchmark: {error}") from None


def _read_case(group: Any) -> LayerTiming:
    passes = [name for name, member in group.items() if hasattr(member, "items")]
    names = [str(name) for name in group["quantity"].asstr()[()]]
    ours, peers = (dict(zip(names, group[name][()].tolist(), strict=True)) for name in ("error", "peer_error"))
    return LayerTiming(
        {name: value.item() if hasattr(value, "item") else value for name, value in group.attrs.items()},
        {which: group[which]["ours"][()] for which in passes},
        {which: group[which]["peer"][()] for which in passes},
        ours,
        {name: error for name, error in peers.items() if not np.isnan(error)},
    )
