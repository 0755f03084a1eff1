"""A record as an HDF5 file: what a stranger opens years later.

``docs/file_format.md`` says all of it; in short::

    512 bytes of text              the user block: what this is, and the SHA-256 of all that follows
    / @schema_name @schema_version @complete @created_utc @uuid @hpcrnn_version @argv (JSON)
    /environment/<section>         JSON text: hosts, mpi, blas, ...
    /baseline/<problem>            @kind @case_id @time_s          derived, for whoever reads without hpcrnn
    /cases/<id>                    @index @params_json @verdict @metric_kind @measured ...
       rep, rank, phase, warmup_rep, training_step                 dimension scales
       time[rep,rank,phase] @units  warmup[warmup_rep,rank,phase]  loss[training_step]  ...
       cpu_time[rep,rank,phase] @units                             where it was measured
       kernel_details[rank]  device_time[rep,rank,phase] @units  device_peak_bytes[rank] @units    of a device
       is_outlier[rep]                                             derived
       validation/                 @problem @factor  quantity, error, serial_error, tolerance
       timeline/                   @repetition  event; rank, instruction, start, end [event] @units; where kept
       certificate/                @n_segments  choice (JSON); of a method that runs segments of time at once
       learning/                   @target_loss; of a case that was trained to a target
          rounds, critical_steps, row_steps, residual, converged, truncated, n_unmet [training_step,layer,direction]
          meeting_quantiles[training_step,layer,direction,quantile]  meeting[layer,direction,segment,row]
          lyapunov[trajectory,layer]                               @units

Version 1 has no ``memory_bytes``, ``@bubble_bound`` and ``timeline``: they are read as unknown. Version 2 has no
``certificate``. What a device says of itself is there where a device was, and not in files from before it was kept;
nor have these CPU times.

Several runs merged into one file lie each in a group of their own: :mod:`hpcrnn.records.layout_merged`.

The file is made in memory by the HDF5 library and written by Python: a full disk is an ordinary error, not a
library that cannot close its file.  It appears under its name complete or not at all
(:mod:`hpcrnn.records.whole_file`).  The checksum is looked at before the HDF5 library sees a byte, which damaged
metadata may crash or hang.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import FileError
from hpcrnn.records.guard import check_structure
from hpcrnn.records.gzipped import packed, unpacked
from hpcrnn.records.layout import fill
from hpcrnn.records.layout_fields import MalformedError
from hpcrnn.records.layout_merged import fill_merged, parse_all
from hpcrnn.records.layout_stored import StoredFile, parse_stored_file
from hpcrnn.records.record import Record
from hpcrnn.records.whole_file import unusable, write_output

if TYPE_CHECKING:
    import h5py

Parsed = TypeVar("Parsed")

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NPY_SIGNATURE = b"\x93NUMPY"
MAGIC = b"hpcrnn-record\n"
USER_BLOCK_BYTES = 512
_PIECE_BYTES = 2**20
_REMARK = "An HDF5 file with a user block: h5dump, h5py and xarray open it as it is.\n"


def write_record(record: Record, path: Path, *, overwrite: bool = True) -> None:
    """Write a record, whole or not at all.

    A run, whose record grows and must outlive a full disk, writes by :class:`~hpcrnn.records.output.Output`.

    Parameters
    ----------
    record : Record
    path : Path
        Its directory is made if need be.
    overwrite : bool
        Whether another file of the name may be replaced.

    Raises
    ------
    FileError
        The name is not free, the disk is full, or the directory cannot be written.
    """
    write_output(Path(path), encode_record(record), inputs=(), overwrite=overwrite)


def encode_record(record: Record) -> bytes:
    """Make the file of a record, all of its bytes.

    Raises
    ------
    ValueError
        The arrays of a case do not fit each other: its maker has a bug.
    """
    return encode_sealed(lambda file: fill(file, record))


def write_merged(records: Sequence[Record], path: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Write several records as one file, each with its own environment.

    Parameters
    ----------
    records : sequence of Record
    path : Path
        Packed where it ends in ``.gz``.
    inputs : iterable of Path
        Files the records came from: none of them is overwritten.
    overwrite : bool
        Whether another file of the name may be replaced.

    Raises
    ------
    FileError
        The name is not free, or the file cannot be written.
    """
    content = packed(encode_sealed(lambda file: fill_merged(file, records)), path)
    write_output(path, content, inputs=inputs, overwrite=overwrite)


def read_record(path: Path) -> Record:
    """Read the record of one run, and check that it is what was written.

    Raises
    ------
    FileError
        The file is missing, empty, truncated, damaged, of another kind, from a newer hpcrnn, or holds several runs.
    """
    records = read_file(path)
    if len(records) != 1:
        raise unusable(Path(path), f"holds {len(records)} merged runs, where the file of one run is wanted")
    return records[0]


def read_file(path: Path) -> tuple[Record, ...]:
    """Read all records of a file: that of one run has one, a merged file those it was made of.

    Raises
    ------
    FileError
        The file is missing, empty, truncated, damaged, of another kind, or from a newer hpcrnn.
    """
    path = Path(path)
    return _read(path, lambda file: parse_all(file, source=str(path)))


def read_stored(path: Path) -> StoredFile:
    """Read a file whether or not its parts fit each other, with what it says besides its records.

    Raises
    ------
    FileError
        The file is missing, empty, truncated, damaged, of another kind, or from a newer hpcrnn.
    """
    path = Path(path)
    return _read(path, lambda file: parse_stored_file(file, source=str(path)))


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Read the records of several files, in order; a merged file counts as the files it was made of.

    Raises
    ------
    FileError
        For the first that cannot be read.
    """
    return [record for path in paths for record in read_file(path)]


def read_array(path: Path, dataset: str | None = None) -> npt.NDArray[Any]:
    """Read a user's array from .npy or HDF5, told apart by their first bytes; nothing is unpickled.

    Parameters
    ----------
    path : Path
    dataset : str, optional
        Name in the HDF5 file; without it, the only two-dimensional one.

    Returns
    -------
    array
        Of the shape and dtype of the file.

    Raises
    ------
    FileError
        It cannot be read, is of another kind, or the dataset is not there or not the only one.
    """
    path = Path(path)
    try:
        _require_file(path)
        with path.open("rb") as stream:
            is_npy = stream.read(len(NPY_SIGNATURE)) == NPY_SIGNATURE
            stream.seek(0)
            if is_npy and dataset is None:
                array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
                return array
        if is_npy:
            raise unusable(path, "is a .npy file, which has no datasets to name")
        return _read_dataset(path, dataset)
    except FileError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged header raises anything
        what = _reason(error)
    raise unusable(path, what)


def _read_dataset(path: Path, name: str | None) -> npt.NDArray[Any]:
    import h5py

    if not h5py.is_hdf5(path):
        raise unusable(path, "is neither .npy nor HDF5")
    with h5py.File(path, "r") as file:
        item = file.get(name or _only_matrix(path, file))
        if not isinstance(item, h5py.Dataset):
            raise unusable(path, f"has no dataset {name}")
        return np.asarray(item[()])


def _only_matrix(path: Path, file: h5py.File) -> str:
    """Find the name of the one two-dimensional dataset."""
    found: list[str] = []
    # visititems stops at the first answer that is not None.
    file.visititems(lambda name, item: found.append(name) if getattr(item, "ndim", 0) == 2 else None)
    if not found:
        raise unusable(path, "has no two-dimensional dataset")
    if len(found) > 1:
        names = ", ".join(found[:8])
        raise unusable(path, f"has several two-dimensional datasets ({names}): name one, {path.name}:{found[0]}")
    return found[0]


def encode_sealed(fill_file: Callable[[h5py.File], None]) -> bytes:
    """Make a file, user block and all, of what a function fills into it."""
    import h5py

    # The default library version: a file of `libver="latest"` was found unreadable after every kill.
    # No file of this name is made; HDF5 tells open files apart by it.
    options = {"driver": "core", "backing_store": False, "userblock_size": USER_BLOCK_BYTES}
    with h5py.File(f"memory-{uuid.uuid4().hex}", "w", **options) as file:
        fill_file(file)
        file.flush()
        image = file.id.get_file_image()
    body = memoryview(image)[image.index(SIGNATURE) :]  # the image begins after the user block, or with it
    head = f"sha256 {hashlib.sha256(body).hexdigest()}\nbytes {len(body)}\n{_REMARK}"
    return (MAGIC + head.encode()).ljust(USER_BLOCK_BYTES, b"\0") + body


def read_sealed(path: Path, parse_file: Callable[[h5py.File], Parsed], kind: str) -> Parsed:
    """Read a file that :func:`encode_sealed` made, of whatever schema, and check that it is what was written.

    Raises
    ------
    FileError
        It is missing, empty, truncated, damaged, or ``parse_file`` can make nothing of it.
    """
    return _read(Path(path), parse_file, malformed=f"cannot be read as {kind}:")


def read_unsealed(path: Path, parse_file: Callable[[h5py.File], Parsed], kind: str) -> Parsed:
    """Read a file of another schema, which has no checksum.

    Parameters
    ----------
    path : Path
    parse_file : callable
    kind : str
        What it should be, for messages.

    Raises
    ------
    FileError
        It is missing, empty, not HDF5, or ``parse_file`` can make nothing of it.
    """

    def check(stream: BinaryIO) -> None:
        start = stream.read(len(MAGIC))
        if not start.startswith((SIGNATURE, MAGIC)):
            raise unusable(Path(path), f"cannot be read as {kind}: it is not HDF5" if start else "is empty")

    return _read(Path(path), parse_file, check, f"cannot be read as {kind}:")


def _read(
    path: Path,
    parse_file: Callable[[h5py.File], Parsed],
    check: Callable[[BinaryIO], None] | None = None,
    malformed: str = "in this record,",
) -> Parsed:
    """Check a file before the HDF5 library sees it and its structure before its values, and parse it."""
    try:
        _require_file(path)
        # One descriptor for all: whoever renames another file to this name meanwhile changes nothing of this one.
        with path.open("rb") as stored:
            stream = unpacked(path, stored)
            if check is None:
                _check_seal(path, stream)
            else:
                check(stream)
            n_bytes = stream.seek(0, os.SEEK_END)
            import h5py

            with h5py.File(stream, "r") as file:
                check_structure(file, n_bytes)
                return parse_file(file)
    except FileError:
        raise
    except MalformedError as error:
        what = f"{malformed} {error}"
    except Exception as error:  # noqa: BLE001 - h5py raises anything where the layout is another
        what = _reason(error)
    raise unusable(path, what)


def _check_seal(path: Path, stream: BinaryIO) -> None:
    """Check a file against its user block, a piece at a time: a large file is never in memory whole."""
    n_stored = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    block = stream.read(USER_BLOCK_BYTES)
    if not block:
        raise unusable(path, "is empty")
    if not block.startswith(MAGIC):
        kind = "is HDF5, but not an hpcrnn record" if block.startswith(SIGNATURE) else "is not an hpcrnn record"
        raise unusable(path, kind)
    seal = re.match(rb"sha256 ([0-9a-f]{64})\nbytes ([0-9]{1,18})\n", block[len(MAGIC) :])
    if not seal:
        raise unusable(path, "is damaged: its user block cannot be read")
    n_bytes, n_read = int(seal[2]), n_stored - USER_BLOCK_BYTES
    digest = hashlib.sha256()
    while n_read == n_bytes and (piece := stream.read(_PIECE_BYTES)):
        digest.update(piece)
    if n_read < n_bytes:
        raise unusable(path, f"is truncated: {n_read} of {n_bytes} bytes are left")
    if n_read > n_bytes or digest.hexdigest() != seal[1].decode():
        raise unusable(path, "is damaged, or was edited: its checksum does not match")


def hdf5_version() -> str:
    """Return the version of the HDF5 library itself."""
    import h5py

    return str(h5py.version.hdf5_version)


def _require_file(path: Path) -> None:
    """Refuse what has no end, like a device, and a directory."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise unusable(path, "is not there") from None
    if not stat.S_ISREG(mode):
        raise unusable(path, "is not a file")


def _reason(error: BaseException) -> str:
    """Say on one line why a file cannot be read."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # In the HDF5 library's own words.
    if cut := re.search(r"truncated file: eof = (\d+), .*stored_eof = (\d+)", text):
        return f"is truncated: {cut[1]} of {cut[2]} bytes are left"
    return f"cannot be read: {text.splitlines()[0][:200]}"
