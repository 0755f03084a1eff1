"""What a case is, key by key: whether two cases may be compared, where they differ, and which a user means.

Keys are those of a specification, whose leaf names are unique, and a few that the record knows better:
``strategy``, ``ranks``, ``backend``, ``precision``, ``grid``, ``kernel``, ``transport``, ``simulated``, ``id``.
What a file of an earlier version does not say has the default, which was all that version knew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal

import msgspec

from hpcrnn.data_methods import BELONGS
from hpcrnn.errors import SpecError, shorten
from hpcrnn.records.record import Case, Strategy, input_size
from hpcrnn.records.split import CHAIN
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.spec import AXES, BackendName, Size, convert, describe, options, parse_grid
from hpcrnn.spec import Grid as GridSpec

Facts = dict[str, Any]
"""Key to plain value, complete."""
Wanted = Mapping[str, Any]
"""Key to the value a case must have, or to a list of values of which it must have one."""

_PROBLEM_SECTIONS = ("model", "problem", "training")
_SPLIT = frozenset({"strategy", "grid", "data_method", *BELONGS})
"""Keys that follow from one another: where one may differ, all may; so may they on other ranks."""
_OF_THE_MACHINE = ("threads", "gradient_sum", "handicap")
KERNEL = "kernel"
"""May differ between cases that are compared: a new kernel is what one compares for."""

_RECORDED: dict[str, Any] = {
    "precision": Literal["float32", "float64", "tf32", "float16", "bfloat16"],
    "strategy": Strategy,
    "ranks": Size,
    "backend": BackendName,
    "rank_backends": str,
    "grid": str,
    KERNEL: str,
    "transport": Literal["staged", "direct"],
    "simulated": bool,
    "id": str,
}


@dataclass(frozen=True)
class Difference:
    """A key in which two cases differ.

    Attributes
    ----------
    key : str
    a, b : object
        Plain values; None where a case has none.
    """

    key: str
    a: Any
    b: Any

    @property
    def text(self) -> str:
        """``hidden: 512 in A, 256 in B``."""
        return f"{self.key}: {value_text(self.a)} in A, {value_text(self.b)} in B"


@dataclass(frozen=True)
class Match:
    """Two cases that are compared, and the keys in which they differ all the same."""

    a: Entry
    b: Entry
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Lone:
    """A case that is compared with none.

    Attributes
    ----------
    side : {"A", "B"}
    entry : Entry
    reason : str
    """

    side: Literal["A", "B"]
    entry: Entry
    reason: str


@cache
def matchers() -> dict[str, Any]:
    """Every key a case may be chosen by, with what is allowed for it."""
    sections = (*_PROBLEM_SECTIONS, "parallel", "recurrence")
    found = {o.name: o.annotation for o in options() if o.section in sections or o.name in _OF_THE_MACHINE}
    return found | _RECORDED


@cache
def problem_keys() -> frozenset[str]:
    """Keys that say what is computed, and how precisely."""
    return frozenset(o.name for o in options() if o.section in _PROBLEM_SECTIONS) | {"precision"}


@cache
def defaults() -> dict[str, Any]:
    """The default of every key of a specification."""
    return {o.name: list(o.default) if isinstance(o.default, tuple) else o.default for o in options()}


def facts(case: Case) -> Facts:
    """Say of a case, key by key, what was computed and how.

    Keys that mean nothing to it are left out: those of the recurrence for a chain, ``data_method``
    where no rank is a replica of another, and what belongs to other data methods.
    """
    split = case.split
    found: Facts = {}
    for section in (*_PROBLEM_SECTIONS, "parallel", *(() if case.method == CHAIN else ("recurrence",))):
        stored = case.spec.get(section, {})
        known = {o.name: defaults()[o.name] for o in options() if o.section == section}
        found |= known | stored  # a key that this version does not know sets cases apart all the same
    axes = dict(split.axes)
    data_method = found["data_method"] if axes.get("data", 1) > 1 else None
    if data_method is None:
        del found["data_method"]
    for key, methods in BELONGS.items():
        if data_method not in methods:
            found.pop(key, None)
    found["embed"] = input_size(found)
    grid = ",".join(f"{axis}={axes[axis]}" for axis in AXES if axis in axes) or "data=1"
    return found | {
        "method": split.method,
        "fold": split.fold,
        "order": split.order,
        "virtual_stages": split.virtual_stages,
        "microbatches": split.microbatches,
        "chunks": split.chunks,
        "grad_codec": case.grad_codec,
        "threads": case.how["threads"],
        "gradient_sum": case.how.get("gradient_sum", "mpi"),
        "handicap": case.handicap or None,
        "rank_backends": ",".join(case.how.get("rank_backends", [])),
        "precision": case.precision,
        "strategy": case.strategy,
        "ranks": case.n_ranks,
        "backend": case.backend,
        "grid": grid,
        KERNEL: case.kernel,
        "transport": case.transport,
        "simulated": case.simulated,
        "id": case.id,
    }


def has(case: Case, wanted: Wanted) -> bool:
    """Whether a case has every value that is asked for; one that is no real result only where that is asked for."""
    unreal = (("simulated", case.simulated), ("handicap", bool(case.handicap)))
    return all(key in wanted for key, is_so in unreal if is_so) and not disagreements(case, wanted)


def disagreements(case: Case, wanted: Wanted) -> Facts:
    """Return what a case has instead of what is asked for, key by key; None of a key it does not have."""
    known = facts(case)
    return {
        key: known.get(key) for key, value in wanted.items() if key not in known or not _agrees(key, known[key], value)
    }


def _agrees(key: str, value: object, wanted: object) -> bool:
    if value == wanted:
        return True
    if isinstance(wanted, list):
        return any(_agrees(key, value, one) for one in wanted)
    return key == KERNEL and fnmatchcase(str(value), str(wanted))


def read_wanted(raw: Mapping[str, Any], prefix: str, *, as_text: bool = False) -> Facts:
    """Check what a case is chosen by.

    Parameters
    ----------
    raw : mapping
        Key to a value, or to a list of values of which one must agree. ``kernel`` may hold ``*``.
    prefix : str
        Put before a key in a message.
    as_text : bool
        Values are text from a command line: numbers are read from it.

    Raises
    ------
    SpecError
        A key that no case has, or a value that no case could have.
    """
    found: Facts = {}
    for key, value in raw.items():
        if key not in matchers():
            spelt = shorten(key)[1:-1]  # on one line
            raise SpecError(prefix + spelt, value, "one of the keys " + ", ".join(sorted(matchers())))
        values = [_read(prefix + key, key, one, as_text) for one in (value if isinstance(value, list) else [value])]
        found[key] = values if isinstance(value, list) else values[0]
    return found


def read_words(words: Iterable[str], flag: str) -> Facts:
    """Read ``KEY=VALUE`` words of a command line, e.g. ``strategy=data ranks=2``."""
    raw: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in raw:
            raise SpecError(flag, word, "KEY=VALUE, each key once, e.g. strategy=data ranks=2")
        raw[key] = value
    return read_wanted(raw, f"{flag} ", as_text=True)


def _read(name: str, key: str, value: object, as_text: bool) -> Any:
    annotation = matchers()[key]
    if key == "grid" and isinstance(value, str):
        return str(convert({"grid": parse_grid(value)}, _GridOnly).grid)
    try:
        return msgspec.convert(value, annotation, strict=not as_text)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter of bytes of a command line that are no text
        raise SpecError(name, value, describe(annotation)) from None


class _GridOnly(msgspec.Struct):
    grid: GridSpec


def differences(a: Case, b: Case, keys: Iterable[str] | None = None) -> tuple[Difference, ...]:
    """Return the keys in which two cases differ, in the order of a specification; ``id`` is not one of them."""
    first, second = facts(a), facts(b)
    return _differences(first, second, set(keys) if keys is not None else {*first, *second} - {"id"})


def _differences(first: Facts, second: Facts, asked: set[str]) -> tuple[Difference, ...]:
    every = dict.fromkeys([*first, *second])
    return tuple(
        Difference(key, first.get(key), second.get(key))
        for key in every
        if key in asked and first.get(key) != second.get(key)
    )


def value_text(value: object) -> str:
    """Write a value on one line: ``512``, ``none``."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return shorten(re.sub(r"\s+", " ", text))[1:-1] if len(text) > 60 or not text.isprintable() else text


def free_keys(a: Wanted, b: Wanted) -> frozenset[str]:
    """Keys that a user chose differently on the two sides: in them cases need not agree."""
    free = {key for key in {*a, *b} if a.get(key) != b.get(key)}
    split = _SPLIT if free & {"strategy", "grid", "ranks"} else set()
    ranks = {"ranks"} if "grid" in free else set()
    return frozenset(free | split | ranks)


def match(
    a: Sequence[Entry], b: Sequence[Entry], free: Iterable[str] = (), *, across: bool = False
) -> tuple[list[Match], list[Lone]]:
    """Pair the cases of A with those of B that ran the same problem the same way.

    Cases that agree in all but their kernel make a group. Within it those of the same kernel are paired; what is
    left of A is paired with all that is left of B. A case is not paired with itself.

    Parameters
    ----------
    a, b : sequence of Entry
    free : iterable of str
        Keys in which they need not agree.
    across : bool
        Pair what is then left in the same way, whatever problem and precision.

    Returns
    -------
    (list of Match, list of Lone)
        In the order of A; cases of B that are left come last, with the reason.
    """
    loose = {KERNEL, "id", *free}
    found = _pairs(a, b, loose)
    if across:
        left_a, left_b = _left(a, b, found)
        found += _pairs(left_a, left_b, loose | problem_keys())
    left_a, left_b = _left(a, b, found)
    matches = [Match(x, y, differences(x.case, y.case)) for x, y in found]
    matches.sort(key=lambda m: (m.a.number, m.b.number))
    known_a, known_b = ([(e, facts(e.case)) for e in entries] if left_a or left_b else [] for entries in (a, b))
    lone = [Lone("A", e, _why_alone(e, known_b, "B", loose)) for e in left_a]
    return matches, lone + [Lone("B", e, _why_alone(e, known_a, "A", loose)) for e in left_b]


def _pairs(a: Sequence[Entry], b: Sequence[Entry], loose: Iterable[str]) -> list[tuple[Entry, Entry]]:
    def key(entry: Entry) -> str:
        kept = {k: v for k, v in facts(entry.case).items() if k not in loose}
        return json.dumps(kept, sort_keys=True)

    alike: dict[str, list[Entry]] = {}
    for y in b:
        alike.setdefault(key(y), []).append(y)
    candidates = [(x, y) for x in a for y in alike.get(key(x), ()) if not _same(x, y)]
    exact = [(x, y) for x, y in candidates if x.case.kernel == y.case.kernel]
    done_a, done_b = {x.number for x, _ in exact}, {y.number for _, y in exact}
    rest = [(x, y) for x, y in candidates if x.number not in done_a and y.number not in done_b]
    return exact + rest


def _same(x: Entry, y: Entry) -> bool:
    return x.record.uuid == y.record.uuid and x.case.id == y.case.id


def _left(
    a: Sequence[Entry], b: Sequence[Entry], pairs: Sequence[tuple[Entry, Entry]]
) -> tuple[list[Entry], list[Entry]]:
    done_a, done_b = {x.number for x, _ in pairs}, {y.number for _, y in pairs}
    return [e for e in a if e.number not in done_a], [e for e in b if e.number not in done_b]


def _why_alone(entry: Entry, known: Sequence[tuple[Entry, Facts]], side: str, loose: Iterable[str]) -> str:
    """Name what the nearest case of the other file, whose facts are known, has otherwise."""
    others = [theirs for e, theirs in known if not _same(e, entry)]
    if not others:
        return f"{side} has no other case"
    mine = facts(entry.case)
    apart = [_differences(mine, theirs, {*mine, *theirs} - set(loose)) for theirs in others]
    nearest = min(apart, key=len)
    if not nearest:  # one like it is there, and has a partner of its own kernel
        return f"{side} has it with another kernel only, and that has a partner"
    swapped = nearest if side == "B" else tuple(Difference(d.key, d.b, d.a) for d in nearest)
    named = "; ".join(d.text for d in swapped[:4]) + (f"; and {len(swapped) - 4} more" if len(swapped) > 4 else "")
    what = "problem" if any(d.key in problem_keys() for d in nearest) else "way of running"
    return f"{side} has no such {what}; nearest differs in {named}"
