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
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hpcrnn.backends.registry import check_backends, check_grid
from hpcrnn.benchmarks.progress.estimates import State
from hpcrnn.benchmarks.progress.items import Items
from hpcrnn.benchmarks.progress.words import duration
from hpcrnn.errors import EXIT_VALID, FileError, LaunchError, SpecError
from hpcrnn.grid import resolve_grid
from hpcrnn.records.hdf5 import read_record
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
_GRACE_S = 5.0

Scaling = Literal["strong", "weak"]


class SweepSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[sweep]`` table."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
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
        """Whether the result file is there, whole and valid."""
        if not self.path.exists():
            return False
        try:
            record = read_record(self.path)
        except FileError:
            return False
        return record.complete and all(case.verdict.status == "VALID" for case in record.cases)


@dataclass(frozen=True)
class Sweep:
    """A sweep, expanded and validated."""

    section: SweepSection
    points: tuple[Point, ...]

    def command(self, point: Point) -> list[str]:
        """Full command line of a point."""
        launcher = [part.replace("{ranks}", str(point.ranks)) for part in self.section.launcher or default_launcher()]
        return [*launcher, sys.executable, "-m", "hpcrnn", "run", *point.arguments()]


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to: the result files there are, and the first failing exit code."""

    files: tuple[Path, ...]
    exit_code: int


def default_launcher() -> tuple[str, ...]:
    """``mpirun -n {ranks}``, of the environment this Python lives in where that has one.

    Raises
    ------
    LaunchError
        There is no ``mpirun``.
    """
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise LaunchError("no mpirun found: pip install mpich, load an MPI module, or set sweep.launcher")
    return (found, "-n", "{ranks}")


def load_sweep(path: Path, output: Path | None) -> Sweep:
    """Read a sweep file and check every point of it before anything starts.

    Parameters
    ----------
    path : Path
    output : Path or None
        Folder of the result files; ``results/NAME`` by default.

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
    folder = output if output is not None else Path("results") / section.name
    points = tuple(_expand(section, raw, folder))
    if not points:
        raise SpecError("sweep.vary", section.vary, "at least one value for every key")
    for workload_spec in {p.spec.problem.workload: p.spec for p in points}.values():
        open_workload(workload_spec)
        check_backends(workload_spec)
    return Sweep(section, points)


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


def run_sweep(sweep: Sweep, *, dry_run: bool) -> SweepOutcome:
    """Run the points that are not done, one after another.

    A point that fails is reported and the rest goes on; what it said is in its log beside the results.

    Parameters
    ----------
    sweep : Sweep
    dry_run : bool
        Only say what would be started.

    Returns
    -------
    SweepOutcome
    """
    if dry_run:
        for prefix, point in zip(_prefixes(sweep), sweep.points, strict=True):
            _say(f"{prefix}: {'done before' if point.is_done() else shlex.join(sweep.command(point))}")
        code = EXIT_VALID
    else:
        kinds = [f"on {point.ranks} rank{'s' * (point.ranks > 1)}" for point in sweep.points]
        with Items(f"sweep {sweep.section.name}", kinds, "point", has_lines=True) as items:
            code = _run_points(sweep, items)
    files = tuple(point.path for point in sweep.points if point.path.exists())
    return SweepOutcome(files, code)


def _prefixes(sweep: Sweep) -> list[str]:
    """Name each point with its number."""
    return [f"[{number}/{len(sweep.points)}] {point.name}" for number, point in enumerate(sweep.points, start=1)]


def _run_points(sweep: Sweep, items: Items) -> int:
    """Run what is not done; return the first failing exit code."""
    code = EXIT_VALID
    prefixes = _prefixes(sweep)
    to_do = []
    # All of them first: how much is left is then known from the start.
    for index, point in enumerate(sweep.points):
        if point.is_done():
            items.end(State.DONE_BEFORE, index)
            items.line(f"{prefixes[index]}: done before")
        else:
            to_do.append((index, prefixes[index], point))
    for index, prefix, point in to_do:
        items.begin(index, point.name)
        if not items.is_live:
            items.line(f"{prefix}: started on {point.ranks} rank{'s' * (point.ranks > 1)}")

        def pass_on(text: str, prefix: str = prefix) -> None:
            if items.is_live and not text.startswith("warning"):
                items.note(text)
            else:
                items.line(f"{prefix}: {text}")

        status, last = _launch(sweep.command(point), point, sweep.section.timeout, pass_on)
        took = duration(items.end(State.DONE if status == EXIT_VALID else State.FAILED))
        if status != EXIT_VALID:
            code = code or status
            items.line(f"{prefix}: FAILED with exit code {status} after {took}: {last}")
            items.line(f"{prefix}: everything it said is in {_log_path(point)}")
        else:
            items.line(f"{prefix}: done in {took}" + ("" if items.is_live else f"; {items.so_far()}"))
    return code


def _launch(command: Sequence[str], point: Point, timeout_s: float, pass_on: Callable[[str], None]) -> tuple[int, str]:
    """Start one point, pass its progress on, log everything; return the exit code and the telling line."""
    log_path = _log_path(point)
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("w", encoding="utf-8")
    except OSError as error:
        raise FileError(f"{log_path}: cannot be written: {error.strerror}") from None
    with log:
        try:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                env=_environment(point.spec.machine.threads),
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word
            reason = getattr(error, "strerror", None) or error
            raise LaunchError(f"sweep.launcher = {command[0]!r}: cannot be started: {reason}") from None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _stop(process)

        timer = threading.Timer(timeout_s, expire)
        timer.start()
        telling = "it said nothing"
        try:
            for line in process.stdout or ():
                log.write(line)
                if line.startswith("hpcrnn:"):
                    telling = line.strip()
                    pass_on(telling.removeprefix("hpcrnn: "))
            status = process.wait()
        except BaseException:
            _stop(process)
            raise
        finally:
            timer.cancel()
    if expired.is_set():
        return LaunchError.exit_code, f"stopped after sweep.timeout = {timeout_s:g} s"
    # A launcher's own codes (signals, 255) are outside our table: wrong use covers them.
    return (status if 0 <= status <= 4 else 1), telling.removeprefix("hpcrnn: ")


def _stop(process: subprocess.Popen[str]) -> None:
    """End a launcher and all it started: politely, then not."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
            process.wait(timeout=_GRACE_S)
        except (ProcessLookupError, PermissionError):
            return
        except subprocess.TimeoutExpired:
            continue
        else:
            return


def _environment(threads: int) -> dict[str, str]:
    """The caller's environment with BLAS threads set, so that no library starts a pool it is then denied."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}


def _log_path(point: Point) -> Path:
    return point.path.with_suffix(".log")


def _say(text: str) -> None:
    sys.stderr.write(f"hpcrnn: {text}\n")
    sys.stderr.flush()
