"""What no writer of ours leaves in a file, looked for before a value is read.

A checksum says that a file is what somebody sealed, not that it is harmless: a link can lead to another file, a
dataset of a few bytes can say that it holds a petabyte. Only structure is looked at, so that it costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcrnn.records.layout_fields import MalformedError

if TYPE_CHECKING:
    import h5py

SPARE_BYTES = 64 * 2**20
MOST_EXPANSION = 64
"""All datasets of a file together hold at most so many times its bytes, and ``SPARE_BYTES``; our largest: below 1."""


def check_structure(file: h5py.File, n_bytes: int) -> None:
    """Refuse links that lead elsewhere, data kept elsewhere, foreign filters, and more data than a file can hold.

    Parameters
    ----------
    file : h5py.File
    n_bytes : int
        Size of the file.

    Raises
    ------
    MalformedError
    """
    from h5py import h5l, h5o

    def check_link(name: bytes, info: h5l.LinkInfo) -> None:
        if info.type != h5l.TYPE_HARD:
            raise MalformedError(_text(name), "is a link that leads elsewhere, which no result file has")

    most = SPARE_BYTES + MOST_EXPANSION * n_bytes
    n_held = 0

    def count(name: bytes, info: h5o.ObjInfo) -> None:
        nonlocal n_held
        if info.type == h5o.TYPE_DATASET:
            n_held += _checked_bytes(h5o.open(file.id, name), name)
            if n_held > most:
                what = f"says that it holds {n_held} bytes, which a file of {n_bytes} bytes does not"
                raise MalformedError(_text(name), what)

    file.id.links.visit(check_link, info=True)
    h5o.visit(file.id, count, info=True)


def _checked_bytes(dataset: h5py.h5d.DatasetID, name: bytes) -> int:
    """Return the bytes a dataset says it holds; texts of any length count as what points to them."""
    from h5py import h5d, h5z

    layout = dataset.get_create_plist()
    if layout.get_layout() == h5d.VIRTUAL or layout.get_external_count():
        raise MalformedError(_text(name), "is kept in another file, which no result file is")
    known = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)
    if any(layout.get_filter(k)[0] not in known for k in range(layout.get_nfilters())):
        raise MalformedError(_text(name), "is compressed in a way that no result file is")
    return int(dataset.get_space().get_simple_extent_npoints()) * int(dataset.get_type().get_size())


def _text(name: bytes) -> str:
    return "/" + name.decode("utf-8", "backslashreplace")
