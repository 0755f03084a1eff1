"""The gallery: every figure and page that is kept beside the code, made again from the results that are kept with it.

``python -m hpcrnn.reporting.gallery`` makes all of it, ``--check`` holds what is there against what is made and writes
nothing. ``GALLERY``, below, is the one place that says what is in it and from which results.

With one version of matplotlib the same results give the same bytes: no date is written, the font comes with
matplotlib, and a file that would not change is left alone. Between versions text is measured a little differently, so
that bytes and pixels cannot be compared. What ``--check`` asks of a figure is therefore that it is made, that one is
there, and that both have the same size in pixels, but for ``SLACK_PX``: a figure grows with its rows and the lines of
its legend, so that one more or less is seen. Pages are text, and are compared to the letter.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from PIL import Image

from hpcrnn.errors import EXIT_VALID, EXIT_WRONG_USE, FileError, HpcrnnError
from hpcrnn.records.hdf5 import read_records
from hpcrnn.records.layers import read_layer_record
from hpcrnn.records.study import read_study_record
from hpcrnn.reporting import layers
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.scaling import Analysis, analyse
from hpcrnn.reporting.figures.canvas import PNG_DPI, Drawing, drawing_style
from hpcrnn.reporting.figures.plan import draw_all
from hpcrnn.reporting.figures.timelines import draw_timeline
from hpcrnn.reporting.study.page import write_report as write_study
from hpcrnn.reporting.units import format_bytes, plural, printable

RESULTS = Path("results/reference")
PLOTS = Path("plots/reference")

SLACK_PX = 30
"""By how much width and height may differ; less than a line of a legend. matplotlib 3.8 and 3.11 differ by 17."""

MOST_BYTES = 10_000_000
"""Of results and gallery together: a clone must stay small."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Report(Enum):
    """Which report a room's figures are from; its value is the pattern of the result files it reads, packed or not."""

    SCALING = "*.h5*"
    LAYERS = "layers.h5"
    STUDY = "time_study.h5"


@dataclass(frozen=True)
class Room:
    """What the gallery keeps of one folder of results.

    Attributes
    ----------
    name : str
        Of the folder, under the results and in the gallery.
    report : Report
    kept : tuple of str
        Names of files, ``.png`` and ``.md``, as the report calls them.
    timelines : mapping of str to str
        Kept too: figure to the result file whose case on several ranks it shows. A report numbers its timelines, and a
        number changes with every result that is added.
    """

    name: str
    report: Report
    kept: tuple[str, ...]
    timelines: Mapping[str, str] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All names of files, in order."""
        return (*self.kept, *(self.timelines or ()))


GALLERY = (
    Room("quick", Report.SCALING, ("strong_speedup.png", "weak_time.png", "phases.png", "loss_nats.png")),
    Room(
        "strategies",
        Report.SCALING,
        ("strategies_1.png", "bubble_1.png", "memory_1.png"),
        timelines={
            "timeline_1f1b.png": "lstm-H256-B64-n2-b115b152.h5.gz",
            "timeline_zb_h1.png": "lstm-H256-B64-n2-f5599d38.h5.gz",
        },
    ),
    Room("strategy_map", Report.SCALING, ("strategy_map.png",)),
    Room("roofline", Report.SCALING, ("roofline_1.png", "roofline_2.png")),
    Room("network", Report.SCALING, ("phases_1.png",)),
    Room("data_parallel", Report.SCALING, ("accounting.png",)),
    Room("grad_codecs", Report.SCALING, ("loss_nats.png",)),
    Room("unequal_work", Report.SCALING, ("unequal_work.png", "lengths.png")),
    Room("unequal_ranks", Report.SCALING, ("onset.png",)),
    # A goal each: the adding problem, and the text.
    Room(
        "time_to_target",
        Report.SCALING,
        ("learning_4.png", "learning_5.png", "learning_8.png", "target_time_3.png", "target_time_4.png"),
    ),
    Room(
        "time_study",
        Report.STUDY,
        (
            "study.md",
            "time_speedup.png",
            "time_training.png",
            "time_tolerance.png",
            "time_chaos_forget_bias.png",
            "time_chaos_chrono_span.png",
            "time_chaos_gain.png",
        ),
    ),
    Room("h200", Report.LAYERS, ("layers.md", "layers_roofline.png", "layers_ratio.png")),
)


@dataclass(frozen=True)
class Made:
    """What came of one file of the gallery.

    Attributes
    ----------
    name : str
        ``room/file``.
    path : Path or None
        Where it was made; None where it was not.
    fault : str
        Why not; empty where it was.
    """

    name: str
    path: Path | None
    fault: str = ""


def make_room(room: Room, results: Path, folder: Path) -> Iterator[Made]:
    """Make what is kept of a folder of results, each as soon as it is there.

    Parameters
    ----------
    room : Room
    results : Path
        Holds a folder of the room's name.
    folder : Path
        The files are made there; a report that is written whole leaves others there too.

    Yields
    ------
    Made
        One for every file of the room, whatever goes wrong: the faults of the others come last.
    """
    waiting = dict.fromkeys(room.files)
    reason = "the report no longer has it"
    try:
        for path in _MAKERS[room.report](room, results / room.name, folder):
            if path.name in waiting:
                del waiting[path.name]
                _shrink(path)
                yield Made(f"{room.name}/{path.name}", path)
    except Exception as error:  # noqa: BLE001 - whatever keeps a figure from being made is what is asked here
        # Of what a report made of it for its users, the cause: here it is a fault of ours.
        cause = error.__cause__
        reason = _reason(cause if isinstance(cause, Exception) else error)
    yield from (Made(f"{room.name}/{name}", None, f"cannot be made: {reason}") for name in waiting)


def _make_scaling(room: Room, source: Path, folder: Path) -> Iterator[Path]:
    """Draw the figures that are kept, and no more pages and formats than those."""
    analysis = analyse(read_records(_result_files(room, source)))
    with drawing_style():
        for name, file in (room.timelines or {}).items():
            yield _save(draw_timeline(Path(name).stem, _case_of(analysis, file)), folder)
        waiting = {Path(name).stem for name in room.kept}
        for drawing in draw_all(analysis):
            if drawing.name in waiting:
                yield _save(drawing, folder)
                waiting.remove(drawing.name)
            if not waiting:
                return


def _make_layers(room: Room, source: Path, folder: Path) -> Iterator[Path]:
    (file,) = _result_files(room, source)
    layers.write_report(read_layer_record(file), folder)
    yield from sorted(folder.iterdir())


def _make_study(room: Room, source: Path, folder: Path) -> Iterator[Path]:
    (file,) = _result_files(room, source)
    yield from write_study(read_study_record(file), folder)


_MAKERS: dict[Report, Callable[[Room, Path, Path], Iterator[Path]]] = {
    Report.SCALING: _make_scaling,
    Report.LAYERS: _make_layers,
    Report.STUDY: _make_study,
}


def _result_files(room: Room, source: Path) -> list[Path]:
    """Return a room's result files in the order of their names, which numbers the cases."""
    if found := sorted(source.glob(room.report.value)):
        return found
    message = f"{printable(source)}: holds no {room.report.value}"
    raise FileError(message)


def _case_of(analysis: Analysis, file: str) -> Entry:
    """Return the one case of a result file on several ranks that has a timeline; the base beside it is on one."""
    own = [e for e in analysis.included if Path(e.record.source or "").name == file and e.case.n_ranks > 1]
    traced = [e for e in own if e.case.timeline is not None and len(e.case.timeline)]
    if len(traced) == 1:
        return traced[0]
    message = f"{file}: {plural(len(traced), 'case')} with a timeline on several ranks, and one is needed"
    raise FileError(message)


def _save(drawing: Drawing, folder: Path) -> Path:
    path = folder / f"{drawing.name}.png"
    drawing.figure.savefig(path, dpi=PNG_DPI, metadata={"Software": None})
    return path


def _shrink(path: Path) -> None:
    """Keep a picture in 256 colours, a third of the bytes: they are few, and the rest is the edges of letters."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


def _reason(error: Exception) -> str:
    """Say on one line what went wrong; of an error that is no message to a user, where."""
    text = printable(str(error))
    if isinstance(error, HpcrnnError):
        return text
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""
    return f"{type(error).__name__}: {text}{where}"


def png_size(path: Path) -> tuple[int, int]:
    """Read width and height of a PNG, in pixels.

    Raises
    ------
    FileError
        It is no PNG, or cut off before its size.
    """
    head = path.read_bytes()[:24]
    if len(head) < 24 or not head.startswith(_PNG_SIGNATURE):
        message = f"{printable(path)}: is not a PNG"
        raise FileError(message)
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def difference(made: Path, kept: Path) -> str:
    """Say in what a kept file is not what was made, as far as that can be told; empty where it is."""
    if not kept.is_file():
        return "is in the table, and not in the gallery"
    if made.suffix != ".png":
        return "" if made.read_bytes() == kept.read_bytes() else "says something else than what is made now"
    try:
        size = png_size(kept)
    except FileError:
        return "is not a PNG"
    now = png_size(made)
    close = all(abs(a - b) <= SLACK_PX for a, b in zip(size, now, strict=True))
    return "" if close else f"is of {_pixels(size)}, and made now of {_pixels(now)}"


def strangers(rooms: Sequence[Room], plots: Path) -> list[str]:
    """Return what lies in the gallery without being in the table."""
    known = {f"{room.name}/{name}" for room in rooms for name in room.files}
    there = (path.relative_to(plots).as_posix() for path in plots.rglob("*") if path.is_file())
    return sorted(name for name in there if name not in known)


def check(rooms: Sequence[Room], results: Path, plots: Path, say: Callable[[str], None]) -> int:
    """Make everything into a temporary folder, and hold the gallery against it.

    Parameters
    ----------
    rooms : sequence of Room
    results, plots : Path
    say : callable
        Gets a line for every file, as it is done.

    Returns
    -------
    int
        How many faults there are.
    """
    n_faults = 0
    with tempfile.TemporaryDirectory(prefix="gallery-") as scratch:
        for made in _make_all(rooms, results, Path(scratch)):
            fault = made.fault if made.path is None else difference(made.path, plots / made.name)
            n_faults += bool(fault)
            say(_line(made.name, "WRONG" if fault else "as kept", fault or _described(plots / made.name)))
    for name in strangers(rooms, plots):
        n_faults += 1
        say(_line(name, "WRONG", "is in the gallery, and not in the table (GALLERY in hpcrnn/reporting/gallery.py)"))
    n_bytes = sum(path.stat().st_size for top in (results, plots) for path in top.rglob("*") if path.is_file())
    if n_bytes > MOST_BYTES:
        n_faults += 1
        say(f"WRONG: results and gallery take {format_bytes(n_bytes)}; allowed are {format_bytes(MOST_BYTES)}")
    return n_faults


def make(rooms: Sequence[Room], results: Path, plots: Path, say: Callable[[str], None]) -> int:
    """Make everything and put it into the gallery, each file in one piece.

    A file that would not change is left alone; one that cannot be made stays as it was.

    Parameters
    ----------
    rooms, results, plots, say
        As of :func:`check`.

    Returns
    -------
    int
        How many files could not be made.

    Raises
    ------
    FileError
        The gallery cannot be written.
    """
    n_faults = 0
    try:
        plots.mkdir(parents=True, exist_ok=True)
        # Beside the target: only within a file system is a file moved in one step.
        with tempfile.TemporaryDirectory(prefix=".gallery-", dir=plots) as scratch:
            for made in _make_all(rooms, results, Path(scratch)):
                if made.path is None:
                    n_faults += 1
                    say(_line(made.name, "WRONG", made.fault))
                else:
                    how = _put(made.path, plots / made.name)
                    say(_line(made.name, how, _described(plots / made.name)))
    except OSError as error:
        message = f"{printable(plots)}: the gallery cannot be written there: {error.strerror or error}"
        raise FileError(message) from None
    return n_faults


def _make_all(rooms: Sequence[Room], results: Path, scratch: Path) -> Iterator[Made]:
    for room in rooms:
        folder = scratch / room.name
        folder.mkdir()
        yield from make_room(room, results, folder)


def _put(made: Path, kept: Path) -> str:
    """Put a file in its place, and say what that changed."""
    there = kept.is_file()
    if there and kept.read_bytes() == made.read_bytes():
        return "as it was"
    kept.parent.mkdir(exist_ok=True)
    os.replace(made, kept)  # noqa: PTH105 - the name of the guarantee
    return "changed" if there else "new"


def _line(name: str, how: str, about: str) -> str:
    width = max(len(f"{room.name}/{file}") for room in GALLERY for file in room.files)
    return f"{name:<{width}}  {how:<9}  {about}".rstrip()


def _described(path: Path) -> str:
    about = [_pixels(png_size(path))] if path.suffix == ".png" else []
    return ", ".join([*about, format_bytes(path.stat().st_size)])


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]} px"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the gallery, or check it."""
    parser = argparse.ArgumentParser(
        prog="python -m hpcrnn.reporting.gallery",
        description="make every kept figure again from the kept results, or check that it can be",
    )
    parser.add_argument("-o", "--out", type=Path, default=PLOTS, metavar="DIR", help=f"the gallery (default {PLOTS})")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help=f"default {RESULTS}")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where one is not as kept")
    arguments = parser.parse_args(argv)

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()  # a figure takes seconds, and CI shows a pipe

    try:
        if not arguments.results.is_dir():
            raise FileError(f"{printable(arguments.results)}: is not there: run this where it is, or give --results")
        n_faults = (check if arguments.check else make)(GALLERY, arguments.results, arguments.out, say)
    except HpcrnnError as error:
        sys.stderr.write(f"hpcrnn: error: {error}\n")
        return error.exit_code
    n_files = sum(len(room.files) for room in GALLERY)
    say(f"{plural(n_files, 'file')} of the gallery, {n_faults or 'none'} WRONG")
    return EXIT_WRONG_USE if n_faults else EXIT_VALID


if __name__ == "__main__":
    raise SystemExit(main())
