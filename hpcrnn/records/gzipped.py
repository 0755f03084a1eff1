"""Result files kept in less room: ``results.h5.gz``, as gzip makes of them, to a third or a quarter.

Most of a small result file is the bookkeeping of HDF5, which is nearly all alike.  Reading needs no name: a file that
begins as gzip does is unpacked in memory, up to :data:`MOST_BYTES`, so that no small file can ask for a large machine.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO

from hpcrnn.records.whole_file import unusable

SUFFIX = ".gz"
MOST_BYTES = 2**28
_SIGNATURE = b"\x1f\x8b"


def packed(content: bytes, path: Path) -> bytes:
    """Return what is to be written under a name: packed where it ends in ``.gz``; the same bytes each time."""
    return gzip.compress(content, mtime=0) if path.suffix == SUFFIX else content


def unpacked(path: Path, stream: BinaryIO) -> BinaryIO:
    """Return a stream of what a file holds: itself, from its beginning, or unpacked where it is packed.

    Raises
    ------
    FileError
        It is damaged, or holds more than :data:`MOST_BYTES`.
    """
    start = stream.read(len(_SIGNATURE))
    stream.seek(0)
    if start != _SIGNATURE:
        return stream
    try:
        with gzip.open(stream) as file:
            content = file.read(MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise unusable(path, f"is damaged: {error}") from None
    if len(content) > MOST_BYTES:
        raise unusable(path, f"holds more than {MOST_BYTES // 2**20} MiB, packed: gunzip it first")
    return io.BytesIO(content)
