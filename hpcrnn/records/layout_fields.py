"""Attributes and datasets of a record file, each of the type it should be: what is not raises MalformedError."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import h5py

Scalar = TypeVar("Scalar", str, int, float, bool)
Text = TypeVar("Text", bound=str)

_WORTH_COMPRESSING = 256
_DEEPEST_JSON = 64
_LARGEST_INTEGER = 2**63
_MOST_TEXT = 2**26
"""Characters in a column of texts: pieces of a column may all be one and the same text of the file."""
_TEXTS_AT_ONCE = 64


class MalformedError(Exception):
    """A file is not laid out as it should be.

    Parameters
    ----------
    where : str
        A group, dataset or attribute.
    what : str
        What is wrong with it: the rest of the sentence.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} {what}")


def fill_scales(group: h5py.Group, scales: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write dimension scales: what the entries along each dimension are called."""
    for name, values in scales.items():
        # HDF5 cannot compress texts of any length, which it keeps elsewhere.
        options = {} if values.dtype == object else _compression(values.size)
        group.create_dataset(name, data=values, **options).make_scale(name)


def fill_array(
    group: h5py.Group,
    name: str,
    array: npt.NDArray[Any],
    dimensions: tuple[str, ...],
    *,
    unit: str = "",
    compressed: bool = False,
) -> None:
    """Write an array along dimensions whose scales are there.

    Parameters
    ----------
    group : h5py.Group
    name : str
    array : array
        Truth values are written as bytes, marked so that xarray reads them as what they are.
    dimensions : tuple of str
    unit : str, optional
    compressed : bool
        Whether it may be worth while; a small array lies plain all the same.
    """
    truth = array.dtype == np.bool_
    options = _compression(array.size) if compressed else {}
    dataset = group.create_dataset(name, data=array.astype(np.int8) if truth else array, **options)
    for axis, dimension in zip(dataset.dims, dimensions, strict=True):
        axis.attach_scale(group[dimension])
    if unit:
        dataset.attrs["units"] = unit
    if truth:
        dataset.attrs["dtype"] = "bool"


def _compression(size: int) -> dict[str, Any]:
    """Options of a dataset; small ones lie plain, for the index of a compressed one is larger than they are."""
    return {"compression": "gzip", "shuffle": True} if size >= _WORTH_COMPRESSING else {}


def texts(words: Iterable[str]) -> npt.NDArray[Any]:
    """Make an array of texts of any length."""
    import h5py

    return np.array(list(words), dtype=h5py.string_dtype())


def read_member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """Return a group or dataset that must be there."""
    if name not in group:
        raise MalformedError(group.name, f"has no {name}")
    return group[name]


def read_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Return a group of groups or datasets that must be there."""
    group = read_member(parent, name)
    if not hasattr(group, "items"):
        raise MalformedError(group.name, "is no group")
    return group


def read_attribute(group: h5py.Group, name: str, kind: type[Scalar]) -> Scalar:
    """Return an attribute that must be there, of a type."""
    if name not in group.attrs:
        raise MalformedError(group.name, f"has no attribute {name}")
    value = group.attrs[name]
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, kind) or isinstance(plain, bool) != (kind is bool):
        raise MalformedError(group.name, f"has an attribute {name} that is not of type {kind.__name__}")
    return plain


def read_array(group: h5py.Group, name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Read a dataset that must be there, of a dtype."""
    dataset = _read_dataset(group, name)
    if dataset.shape is None:
        raise MalformedError(dataset.name, "is empty")
    if dataset.dtype != dtype:
        raise MalformedError(dataset.name, f"has type {dataset.dtype}, not {np.dtype(dtype)}")
    return np.asarray(dataset[()])


def read_texts(group: h5py.Group, name: str) -> tuple[str, ...]:
    """Read a column of texts that must be there."""
    dataset = _read_dataset(group, name)
    if dataset.shape is None or dataset.ndim != 1 or dataset.dtype.kind not in "OS":
        raise MalformedError(dataset.name, "is no column of texts")
    if dataset.dtype.kind == "S":  # of one length, within what a file may hold
        return tuple(str(text) for text in dataset.asstr()[()])
    column: list[str] = []
    n_characters = 0
    for start in range(0, len(dataset), _TEXTS_AT_ONCE):
        piece = [str(text) for text in dataset.asstr()[start : start + _TEXTS_AT_ONCE]]
        n_characters += sum(map(len, piece))
        if n_characters > _MOST_TEXT:
            raise MalformedError(dataset.name, f"holds more than {_MOST_TEXT} characters")
        column += piece
    return tuple(column)


def read_json(group: h5py.Group, name: str) -> Any:
    """Read a JSON text that must be there."""
    dataset = _read_dataset(group, name)
    if dataset.shape != () or dataset.dtype.kind not in "OS":
        raise MalformedError(dataset.name, "is no text")
    return parse_json(str(dataset.asstr()[()]), dataset.name)


def _read_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    member = read_member(group, name)
    if not hasattr(member, "dtype") or not hasattr(member, "shape"):
        raise MalformedError(member.name, "is no dataset")
    return member


def read_truths(group: h5py.Group, name: str) -> npt.NDArray[np.bool_]:
    """Read truth values, which are stored as bytes."""
    return read_array(group, name, np.int8).astype(np.bool_)


def read_choice(group: h5py.Group, name: str, allowed: tuple[Text, ...]) -> Text:
    """Return an attribute that must be one of several texts."""
    value = read_attribute(group, name, str)
    for choice in allowed:
        if value == choice:
            return choice
    raise MalformedError(group.name, f"has {name} = {value!r}, not {' or '.join(allowed)}")


def to_json(value: object) -> str:
    """Make JSON text; what JSON has no form for becomes a text: no result may be lost to a type."""
    return json.dumps(value, default=lambda x: x.tolist() if isinstance(x, np.generic | np.ndarray) else str(x))


def parse_json(text: str, where: str) -> Any:
    """Turn JSON text into values that everything can be done with: written again, shown, counted with.

    Raises
    ------
    MalformedError
        It is no JSON, is nested too deeply, or holds an integer that nothing of ours writes.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: of integers with thousands of digits too
        raise MalformedError(where, f"is no JSON text: {error}") from None
    _check_plain(value, where, 0)
    return value


def _check_plain(value: object, where: str, depth: int) -> None:
    if depth > _DEEPEST_JSON:
        raise MalformedError(where, f"is JSON nested more than {_DEEPEST_JSON} deep")
    if isinstance(value, dict):
        for inner in value.values():
            _check_plain(inner, where, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, where, depth + 1)
    elif isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
        raise MalformedError(where, "holds an integer of more than 64 bits")
