"""A sweep: many runs of one specification, each under its own ``mpirun``; what is done is not done again.

A sweep file is a run specification with one more section::

    [sweep]
    name = "quick"
    ranks = [1, 2]
    scaling = ["strong", "weak"]     # weak: the batch grows with the ranks
    vary = { cell = ["lstm", "gru"] }                        # every combination
    each = [{ hidden = 256, seq = 100 }, { hidden = 512, seq = 50 }]   # keys that go together

A group of ``each`` may say on how many ranks it runs, and ``{ranks}`` in a text is their number::

    each = [{ ranks = [2, 4], grid = "pipeline={ranks}", chunks = 8 }, { ranks = [4], grid = "data=2,time=2" }]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hpcrnn.backends.registry import check_backends, check_grid
from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.errors import FileError, SpecError
from hpcrnn.grid import resolve_grid, with_backends_of_ranks
from hpcrnn.records.hdf5 import read_record
from hpcrnn.records.record import ASKED, Case
from hpcrnn.spec import (
    PositiveFloat,
    RunSpec,
    Size,
    build_spec,
    convert,
    option,
    options,
    read_toml,
    to_dict,
)
from hpcrnn.workloads import open_workload

_MOST_POINTS = 10_000

Scaling = Literal["strong", "weak"]


class SweepSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[sweep]`` table."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z",
            description="a text of letters, digits, points, dashes and _, at most 100 of them",
        ),
    ]
    ranks: Annotated[tuple[Size, ...], Meta(min_length=1)] = (1,)
    scaling: Annotated[tuple[Scaling, ...], Meta(min_length=1)] = ("strong",)
    vary: dict[str, list[Any]] = {}
    each: list[dict[str, Any]] = []
    launcher: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    timeout: PositiveFloat = 3600.0


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes
    ----------
    name : str
        Readable, and unique in the sweep.
    ranks : int
    spec : RunSpec
    path : Path
        Its result file.
    """

    name: str
    ranks: int
    spec: RunSpec
    path: Path

    def arguments(self) -> list[str]:
        """Flags of ``hpcrnn run`` for what differs from the defaults."""
        flags: list[str] = []
        for leaf in options():
            value = getattr(getattr(self.spec, leaf.section), leaf.name)
            if value == leaf.default:
                continue
            if isinstance(value, bool):
                flags.append(leaf.flag if value else leaf.flag.replace("--", "--no-", 1))
            else:
                flags += [leaf.flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
        return flags

    def is_done(self) -> bool:
        """Whether the result file is there, whole and not INVALID, and was not cut short before it had enough."""
        if not self.path.exists():
            return False
        try:
            record = read_record(self.path)
        except FileError:
            return False
        return record.complete and all(self._has_enough(case) for case in record.cases)

    def _has_enough(self, case: Case) -> bool:
        if case.verdict.status == "INVALID":
            return False
        # A training that was asked to end has not come to its target, however many legs it had.
        enough = case.learning is None and len(case.time_s) >= self.spec.measure.min_repeats
        return enough or case.stop_reason != ASKED


@dataclass(frozen=True)
class Sweep:
    """A sweep, expanded and validated.

    Attributes
    ----------
    section : SweepSection
    points : tuple of Point
    folder : Path
        Of the result files.
    """

    section: SweepSection
    points: tuple[Point, ...]
    folder: Path

    def only(self, number: int) -> Sweep:
        """Return the sweep of one of its points, counted from 0.

        Raises
        ------
        SpecError
            There is no such point.
        """
        if not 0 <= number < len(self.points):
            raise SpecError("--point", number, f"0 to {len(self.points) - 1}: so many points there are")
        return replace(self, points=(self.points[number],))

    def command(self, point: Point) -> list[str]:
        """Full command line of a point."""
        launcher = [part.replace("{ranks}", str(point.ranks)) for part in self.section.launcher or default_launcher()]
        return [*launcher, sys.executable, "-m", "hpcrnn", "run", *point.arguments()]


def load_sweep(
    path: Path, output: Path | None, *, ranks: tuple[int, ...] = (), launcher: tuple[str, ...] = ()
) -> Sweep:
    """Read a sweep file and check every point of it before anything starts.

    Parameters
    ----------
    path : Path
    output : Path or None
        Folder of the result files; ``results/NAME`` by default.
    ranks : tuple of int
        Instead of ``sweep.ranks``; groups of ``sweep.each`` with ranks of their own keep those that are among them.
    launcher : tuple of str
        For a sweep that names none.

    Raises
    ------
    HpcrnnError
        The file, a key or a point is not right; the message names it.
    """
    raw = read_toml(path)
    section_raw = raw.pop("sweep", None)
    if not isinstance(section_raw, dict):
        raise SpecError("sweep", section_raw, f"a table [sweep] with a name ({path} has none)")
    try:
        section = convert(section_raw, SweepSection)
    except SpecError as error:
        key = "sweep" if error.key == "specification" else f"sweep.{error.key}"
        raise SpecError(key, error.value, error.allowed) from None
    section = _on_ranks(section, ranks) if ranks else section
    section = section if section.launcher else msgspec.structs.replace(section, launcher=launcher or None)
    folder = output if output is not None else Path("results") / section.name
    points = tuple(_expand(section, raw, folder))
    if not points:
        raise SpecError("sweep.vary", section.vary, "at least one value for every key")
    for workload_spec in {p.spec.problem.workload: p.spec for p in points}.values():
        open_workload(workload_spec)
        check_backends(workload_spec)
    return Sweep(section, points, folder)


def _on_ranks(section: SweepSection, ranks: tuple[int, ...]) -> SweepSection:
    """Return a sweep on other ranks."""
    each, left_out = [], 0
    for group in section.each:
        own = group.get("ranks")
        if not isinstance(own, list):
            each.append(group)
        elif kept := [n for n in own if n in ranks]:
            each.append(group | {"ranks": kept})
        else:
            left_out += 1
    if left_out and not each:
        own_ranks = dict.fromkeys(str(n) for group in section.each for n in group["ranks"])
        raise SpecError("--ranks", ",".join(map(str, ranks)), f"some of {', '.join(own_ranks)}")
    return msgspec.structs.replace(section, ranks=ranks, each=each)


def _expand(section: SweepSection, raw: dict[str, Any], folder: Path) -> Iterator[Point]:
    names = [option(key).name for key in section.vary]
    groups = [_group(group, section.ranks) for group in section.each] or [(section.ranks, {})]
    together = [(ranks, group) for ranks_of_group, group in groups for ranks in ranks_of_group]
    choices = itertools.product(*section.vary.values(), section.scaling, together)
    seen: set[str] = set()
    for *values, scaling, (ranks, group) in itertools.islice(choices, _MOST_POINTS + 1):
        overrides = {
            name: value.replace("{ranks}", str(ranks)) if isinstance(value, str) else value
            for name, value in (dict(zip(names, values, strict=True)) | group).items()
        }
        spec = build_spec(raw, overrides)
        if spec.measure.out is not None:
            raise SpecError("measure.out", spec.measure.out, "nothing in a sweep: its points name their files")
        if scaling == "weak":
            spec = build_spec(raw, {**overrides, "batch": spec.problem.batch * ranks})
        spec = with_backends_of_ranks(spec)
        spec = msgspec.structs.replace(spec, machine=msgspec.structs.replace(spec.machine, expect_ranks=ranks))
        check_grid(spec, resolve_grid(spec, ranks))
        digest = hashlib.sha256(json.dumps([to_dict(spec), ranks], sort_keys=True).encode()).hexdigest()[:8]
        if digest in seen:
            continue
        seen.add(digest)
        if len(seen) > _MOST_POINTS:
            raise SpecError("sweep.vary", f"{len(seen)} points and more", f"at most {_MOST_POINTS} points")
        name = f"{spec.model.cell}-H{spec.model.hidden}-B{spec.problem.batch}-n{ranks}-{digest}"
        path = folder / f"{name}.h5"
        # A file that is there but not whole or not valid is made anew.
        measure = msgspec.structs.replace(spec.measure, out=str(path), overwrite=True)
        yield Point(name, ranks, msgspec.structs.replace(spec, measure=measure), path)


def _group(group: dict[str, Any], all_ranks: tuple[int, ...]) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Split a group of keys that go together into the ranks it runs on and the keys."""
    ranks = group.get("ranks", list(all_ranks))
    allowed = f"some of sweep.ranks ({', '.join(map(str, all_ranks))})"
    if not isinstance(ranks, list) or not ranks or not all(count in all_ranks for count in ranks):
        raise SpecError("sweep.each.ranks", ranks, allowed)
    return tuple(ranks), {option(key).name: value for key, value in group.items() if key != "ranks"}
