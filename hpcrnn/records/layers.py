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

from hpcrnn.errors import shorten
from hpcrnn.records.hdf5 import read_unsealed
from hpcrnn.records.layout import check_schema
from hpcrnn.records.layout_fields import (
    MalformedError,
    parse_json,
    read_array,
    read_attribute,
    read_group,
    read_texts,
)
from hpcrnn.records.whole_file import write_output

SCHEMA_NAME = "hpcrnn-layers"
SCHEMA_VERSION = 1

PASSES = ("inference", "training")
"""What is timed: forward, and forward with backward."""

_TABLES = ("environment", "ceilings")
_OF_A_SOLVE = ("rounds", "steps", "meeting", "unmet", "residual")
_LONGEST_S = 1e12
_LARGEST = 1e30
"""Beyond all operations, bytes and rates: quotients and products of what is smaller are numbers."""


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
        It is not there, not such a file, damaged, or from a newer hpcrnn.
    """
    return read_unsealed(path, _parse, f"a layer benchmark ({SCHEMA_NAME})")


def _parse(file: Any) -> LayerRecord:
    check_schema(file, SCHEMA_NAME, SCHEMA_VERSION)
    cases = read_group(file, "cases")
    environment, ceilings = (parse_json(read_attribute(file, name, str), f"/@{name}") for name in _TABLES)
    if not isinstance(environment, dict) or not isinstance(ceilings, dict):
        raise MalformedError("/", f"has no table in {' or '.join(_TABLES)}")
    if not all(_is_positive(rate) for rate in ceilings.values()):
        raise MalformedError("/@ceilings", "has a rate that is not a positive finite number")
    if "copy_bytes_per_s" not in ceilings:
        raise MalformedError("/@ceilings", "has no copy_bytes_per_s")
    return LayerRecord(
        read_attribute(file, "created_utc", str),
        read_attribute(file, "device", str),
        environment,
        ceilings,
        tuple(_parse_case(read_group(cases, name), ceilings) for name in sorted(cases)),
    )


def _parse_case(group: Any, ceilings: dict[str, float]) -> LayerTiming:
    names = read_texts(group, "quantity")
    ours, peers = (read_array(group, name, np.float64) for name in ("error", "peer_error"))
    if not len(names) == len(set(names)) == ours.size == peers.size > 0 or ours.ndim != 1 or peers.ndim != 1:
        raise MalformedError(group.name, "has columns of several lengths, or none")
    facts = {name: group.attrs[name] for name in group.attrs}
    facts = {name: value.item() if isinstance(value, np.generic) else value for name, value in facts.items()}
    passes = {name: read_group(group, name) for name in PASSES}
    _check_facts(group, facts, ceilings)
    return LayerTiming(
        facts,
        {which: _read_samples(samples, "ours", least=1) for which, samples in passes.items()},
        {which: _read_samples(samples, "peer") for which, samples in passes.items()},
        dict(zip(names, ours.tolist(), strict=True)),
        {name: error for name, error in zip(names, peers.tolist(), strict=True) if not np.isnan(error)},
    )


def _check_facts(group: Any, facts: dict[str, Any], ceilings: dict[str, float]) -> None:
    """Refuse facts that a report could not be made of."""
    for name in ("name", "precision", "group", "kernel"):
        read_attribute(group, name, str)
    if f"{facts['precision']}_flops_per_s" not in ceilings:
        raise MalformedError(
            group.name, f"has precision = {shorten(facts['precision'])}, of which no rate was measured"
        )
    folded = "fold" in facts
    solves = [f"{name}_{way}" for way in ("forward", "backward") if f"rounds_{way}" in facts for name in _OF_A_SOLVE]
    counts = ("B", "T", "H", "D", "error_steps", *(["fold"] if folded else []))
    rates = (f"{name}_{which}" for name in ("flops", "least_bytes") for which in PASSES)
    for name in (*counts, *rates, *(["tolerance"] if folded else [])):
        if not _is_positive(facts.get(name)) or (name in counts and not isinstance(facts[name], int)):
            raise MalformedError(group.name, f"has {name} = {shorten(facts.get(name))}, which is no size")
    for name in solves if folded else []:
        if not isinstance(facts.get(name), int | float):
            raise MalformedError(group.name, f"has {name} = {shorten(facts.get(name))}, which is no number")


def _read_samples(group: Any, name: str, least: int = 0) -> npt.NDArray[np.float64]:
    samples = read_array(group, name, np.float64)
    if samples.ndim != 1 or samples.size < least or not ((samples > 0) & (samples < _LONGEST_S)).all():
        raise MalformedError(f"{group.name}/{name}", "holds what is no time")
    return samples


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LARGEST
