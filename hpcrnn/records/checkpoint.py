"""A training that can go on after its process has ended: the file, and how it is written and read.

Layout::

    /                @schema_name  @schema_version  identity (JSON)  @seed_index
    /learning        curves of the seeds done and of the one under way, as in a record
    /samples         what was measured of every leg, as far as it went
    /ranks/<r>       one dataset an array that rank r goes on from

The file has the user block and checksum of a record, and is replaced in one step: at any time the name holds a whole
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.hdf5 import encode_sealed, read_sealed
from hpcrnn.records.layout_fields import (
    MalformedError,
    read_attribute,
    read_group,
    read_json,
    to_json,
)
from hpcrnn.records.layout_learning import fill_learning, parse_learning
from hpcrnn.records.learning import Learning
from hpcrnn.records.whole_file import unusable, write_whole

if TYPE_CHECKING:
    import h5py

Array = npt.NDArray[Any]

CHECKPOINT_NAME = "hpcrnn-checkpoint"
CHECKPOINT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a training goes on from.

    Attributes
    ----------
    identity : dict
        What is trained and how, as plain values: a training goes on only from one that is the same.
    seed_index : int
        The seed under way, counted from 0.
    learning : Learning
        Curves of the seeds done, and last that of the one under way.
    samples : dict of str to array
        What was measured of the legs so far, all seeds.
    ranks : tuple of dict of str to array
        What each rank goes on from; nothing where the seed under way has not begun.
    """

    identity: dict[str, Any]
    seed_index: int
    learning: Learning
    samples: dict[str, Array]
    ranks: tuple[dict[str, Array], ...]


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Replace the checkpoint of this name.

    Raises
    ------
    FileError
        It cannot be written; the one before is as it was.
    """
    try:
        write_whole(path, encode_sealed(lambda file: _fill(file, checkpoint)), overwrite=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise unusable(path, f"cannot be written: {reason}; the checkpoint before is as it was") from None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, and check that it is what was written.

    Raises
    ------
    FileError
    """
    return read_sealed(path, _parse, "a checkpoint")


def _fill(file: h5py.File, checkpoint: Checkpoint) -> None:
    file.attrs.update(schema_name=CHECKPOINT_NAME, schema_version=CHECKPOINT_VERSION, seed_index=checkpoint.seed_index)
    file["identity"] = to_json(checkpoint.identity)
    fill_learning(file.create_group("learning"), checkpoint.learning)
    _fill_arrays(file.create_group("samples"), checkpoint.samples)
    ranks = file.create_group("ranks")
    for rank, arrays in enumerate(checkpoint.ranks):
        _fill_arrays(ranks.create_group(str(rank)), arrays)


def _fill_arrays(group: h5py.Group, arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        group.create_dataset(name, data=array)


def _parse(file: h5py.File) -> Checkpoint:
    name = read_attribute(file, "schema_name", str)
    if name != CHECKPOINT_NAME:
        raise MalformedError("the file", f"is of schema {name}")
    version = read_attribute(file, "schema_version", int)
    if version > CHECKPOINT_VERSION:
        raise MalformedError("the file", f"is of version {version}; this hpcrnn knows those up to {CHECKPOINT_VERSION}")
    identity = read_json(file, "identity")
    if not isinstance(identity, dict):
        raise MalformedError("identity", "is no JSON object")
    ranks = read_group(file, "ranks")
    if set(ranks) != {str(rank) for rank in range(len(ranks))}:
        raise MalformedError("ranks", "does not number its ranks from 0")
    return Checkpoint(
        identity=identity,
        seed_index=read_attribute(file, "seed_index", int),
        learning=parse_learning(read_group(file, "learning")),
        samples=_parse_arrays(read_group(file, "samples")),
        ranks=tuple(_parse_arrays(read_group(ranks, str(rank))) for rank in range(len(ranks))),
    )


def _parse_arrays(group: h5py.Group) -> dict[str, Array]:
    found = {}
    for name, member in group.items():
        if not hasattr(member, "dtype") or member.shape is None or member.dtype.kind not in "fiu":
            raise MalformedError(f"{group.name}/{name}", "is no array of numbers")
        found[name] = np.asarray(member[()])
    return found
