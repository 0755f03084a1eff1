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

    most = SPARE_BYTES + MOST_EXPANSION * n_bytes
    n_held = 0

    # What a callback returns ends the visit; what it raises would not always come out of the library.
    def find_link(name: bytes, info: h5l.LinkInfo) -> MalformedError | None:
        elsewhere = info.type != h5l.TYPE_HARD
        return (
            MalformedError(_text(name), "is a link that leads elsewhere, as in no result file") if elsewhere else None
        )

    def find_data(name: bytes, info: h5o.ObjInfo) -> MalformedError | None:
        nonlocal n_held
        if info.type != h5o.TYPE_DATASET:
            return None
        dataset = h5o.open(file.id, name)
        if fault := _fault_of(dataset):
            return MalformedError(_text(name), fault)
        n_held += int(dataset.get_space().get_simple_extent_npoints()) * int(dataset.get_type().get_size())
        if n_held <= most:
            return None
        return MalformedError(
            _text(name), f"says that it holds {n_held} bytes, which a file of {n_bytes} bytes does not"
        )

    if fault := file.id.links.visit(find_link, info=True) or h5o.visit(file.id, find_data, info=True):
        raise fault


def _fault_of(dataset: h5py.h5d.DatasetID) -> str:
    """Say why a dataset is not one of ours, by where and how it is kept; empty where it may be."""
    from h5py import h5d, h5z

    layout = dataset.get_create_plist()
    if layout.get_layout() == h5d.VIRTUAL or layout.get_external_count():
        return "is kept in another file, as in no result file"
    known = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)
    if any(layout.get_filter(k)[0] not in known for k in range(layout.get_nfilters())):
        return "is compressed in another way than result files are"
    return ""


def _text(name: bytes) -> str:
    return "/" + name.decode("utf-8", "backslashreplace")
