"""From TOML and flags to a validated specification, and the words that say what is allowed."""

from __future__ import annotations

import math
import re
import tomllib
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from hpcrnn.errors import FileError, SpecError, printable, shorten
from hpcrnn.spec.sections import Grid, RunSpec


class Option(NamedTuple):
    """One leaf of a :class:`RunSpec`: a key in TOML, a flag on the command line."""

    section: str
    name: str
    annotation: Any
    default: object
    description: str

    @property
    def key(self) -> str:
        """The dotted TOML key."""
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")


@cache
def options() -> tuple[Option, ...]:
    """Every leaf of a :class:`RunSpec`, section by section."""
    found = []
    for section in msgspec.structs.fields(RunSpec):
        for field in msgspec.structs.fields(section.type):
            texts = [m.description for m in get_args(field.type) if isinstance(m, Meta) and m.description]
            # The last is the key's own; one before it says what its type allows.
            found.append(Option(section.name, field.name, field.type, field.default, texts[-1] if texts else ""))
    return tuple(found)


def option(name: str) -> Option:
    """Find a leaf by its name or its dotted key.

    Raises
    ------
    SpecError
        There is no such key; the message lists those there are.
    """
    table = {o.name: o for o in options()} | {o.key: o for o in options()}
    if name not in table:
        raise SpecError("key", name, "one of " + ", ".join(o.key for o in options()))
    return table[name]


def build_spec(raw: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunSpec:
    """Make a validated specification.

    Parameters
    ----------
    raw : mapping
        Sections of keys, as a TOML file holds them.
    overrides : mapping, optional
        Leaf names and values that win over ``raw``: what the flags say.

    Raises
    ------
    SpecError
        An unknown key, a wrong type or a value out of range.
    """
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in raw.items()}
    for name, value in (overrides or {}).items():
        leaf = option(name)
        section = merged.setdefault(leaf.section, {})
        if isinstance(section, dict):
            section[leaf.name] = value
    parallel, machine = merged.get("parallel"), merged.get("machine")
    if isinstance(parallel, dict) and isinstance(parallel.get("grid"), str):
        parallel["grid"] = parse_grid(parallel["grid"])
    if isinstance(machine, dict):
        lists = {name: machine[name] for name in ("backend", "rank_backends") if isinstance(machine.get(name), str)}
        machine |= {name: [part.strip() for part in text.split(",")] for name, text in lists.items()}
    spec = convert(merged, RunSpec)
    _check_floats_finite(spec)
    if "min_repeats" not in merged.get("measure", {}):  # a default gives way to what was asked for
        fewest = min(spec.measure.min_repeats, spec.measure.max_repeats)
        spec = msgspec.structs.replace(spec, measure=msgspec.structs.replace(spec.measure, min_repeats=fewest))
    if len(set(spec.machine.backend)) != len(spec.machine.backend):
        raise SpecError("machine.backend", ",".join(spec.machine.backend), "each backend once")
    if spec.measure.min_repeats > spec.measure.max_repeats:
        raise SpecError(
            "measure.min_repeats", spec.measure.min_repeats, f"at most max_repeats ({spec.measure.max_repeats})"
        )
    return spec


StructType = TypeVar("StructType", bound=msgspec.Struct)


def convert(raw: Mapping[str, Any], into: type[StructType]) -> StructType:
    """Decode plain values into a typed struct, with errors that name key, value and what is allowed."""
    _check_keys(raw, into, [])
    try:
        return msgspec.convert(raw, into)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, into) from None
    except UnicodeEncodeError as error:  # bytes of a command line that are no text
        raise SpecError("specification", error.object, "text in Unicode") from None


def parse_grid(text: str) -> dict[str, Any]:
    """Read ``data=2`` into ``{"data": 2}``; wrong names and values are left for validation to name.

    Raises
    ------
    SpecError
        The text is not ``axis=count``, comma-separated, each axis once.
    """
    axes: dict[str, Any] = {}
    allowed = "axis=count, comma-separated, axes: " + ", ".join(Grid.__struct_fields__)
    for part in text.split(","):
        axis, equals, count = (piece.strip() for piece in part.partition("="))
        if not equals or axis in axes or not re.fullmatch(r"[+-]?[0-9]{1,10}", count):
            raise SpecError("parallel.grid", text, allowed)
        axes[axis] = int(count)
    return axes


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    FileError
        It is not there, cannot be read, or is not TOML.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for, a device has no end
            reason = "it is not a file"
        else:
            with Path(path).open("rb") as stream:
                return tomllib.load(stream)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise FileError(printable(f"{path}: cannot be read as TOML: {reason}"))


def to_dict(spec: msgspec.Struct) -> dict[str, Any]:
    """Plain dictionaries, lists, strings and numbers: what a record stores."""
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    return {
        section: {name: list(v) if isinstance(v, tuple) else v for name, v in keys.items()}
        for section, keys in plain.items()
    }


def _check_floats_finite(spec: RunSpec) -> None:
    for leaf in options():
        value = getattr(getattr(spec, leaf.section), leaf.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(leaf.key, value, "a finite number")


def _check_keys(raw: object, into: Any, path: list[str]) -> None:
    """Refuse keys that a struct does not have, however they are spelt; nested tables too."""
    struct = _struct_of(into)
    if struct is None or not isinstance(raw, Mapping):
        return
    fields = {f.name: f.type for f in msgspec.structs.fields(struct)}
    for key, value in raw.items():
        if key not in fields:
            spelt = shorten(key)[1:-1]  # as it was written, but on one line
            raise SpecError(".".join([*path, spelt]), value, "one of the keys " + ", ".join(fields))
        _check_keys(value, fields[key], [*path, key])


def _explain(message: str, raw: Mapping[str, Any], into: type[msgspec.Struct]) -> SpecError:
    """Turn msgspec's message into one that also shows the value and the choices."""
    text, found, path = message.rpartition(" - at `$")  # the last: the text before it may quote the value
    keys = re.findall(r"\.([^.\[`]+)", path) if found else []
    value, annotation = _look_up(raw, into, keys)
    return SpecError(".".join(keys) or "specification", value, describe(annotation) or text)


def _nested(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else value


def _look_up(raw: object, annotation: Any, keys: list[str]) -> tuple[object, Any]:
    for key in keys:
        raw = _nested(raw, key)
        struct = _struct_of(annotation)
        fields = {f.name: f.type for f in msgspec.structs.fields(struct)} if struct else {}
        annotation = fields.get(key, annotation)
    return raw, annotation


def _struct_of(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct type inside ``Annotated[X | None, ...]``; None where there is none."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    found = (_struct_of(inner) for inner in get_args(annotation))
    return next((struct for struct in found if struct is not None), None)


def describe(annotation: Any) -> str:
    """Say in words what a type annotation allows: ``an integer >= 1``, ``lstm or gru``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metas = get_args(annotation)
        # What a pattern means is said in words beside it.
        said = next((m.description for m in metas if isinstance(m, Meta) and m.pattern), None)
        limits = " and ".join(
            f"{sign} {getattr(m, name):.12g}"
            for m in metas
            if isinstance(m, Meta)
            for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
            if getattr(m, name) is not None
        )
        return said or f"{describe(base)} {limits}".strip()
    if origin is Literal:
        return " or ".join(str(choice) for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in get_args(annotation) if a is not type(None))
    if origin in (tuple, list):
        return f"a list of {describe(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return "the keys " + ", ".join(annotation.__struct_fields__)
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false", dict: "a table"}
    return names.get(origin or annotation, str(annotation))
