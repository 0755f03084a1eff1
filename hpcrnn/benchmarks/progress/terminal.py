"""Whether there is a terminal to show progress on, and how large it is.

Under ``mpirun`` a rank's standard error is a pipe to the launcher, which passes on what it reads: where that was
started on a terminal of this machine, it is the one. It is written to directly, for a view that came late through the
launcher might wipe out results that were written after it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TextIO

from hpcrnn.records.host import ROOT
from hpcrnn.records.launcher import ancestors, find_launcher

_DUMB = ("", "dumb", "unknown")
_LEAST = (20, 5)
_USUAL = (80, 24)


def find_terminal(stream: TextIO) -> TextIO | None:
    """Return the terminal that a stream's text ends up on; None without one, or where it cannot draw.

    Parameters
    ----------
    stream : text stream
        Itself, where it is a terminal.
    """
    if os.environ.get("TERM", "") in _DUMB:
        return None
    try:
        return stream if stream.isatty() else _beyond_launcher(stream)
    except (OSError, ValueError):  # no such process any more, not ours, or a stream without a descriptor
        return None


def terminal_size(terminal: TextIO) -> tuple[int, int]:
    """Return columns and rows; usual ones where a terminal does not know, never too few to write anything."""
    try:
        columns, rows = os.get_terminal_size(terminal.fileno())
    except (OSError, ValueError):
        columns, rows = 0, 0
    wished = os.environ.get("COLUMNS", "")
    columns = int(wished) if wished.isdecimal() and len(wished) < 5 else columns
    return max(columns or _USUAL[0], _LEAST[0]), max(rows or _USUAL[1], _LEAST[1])


def only_ascii(stream: TextIO) -> bool:
    """Whether a stream has no bars and blocks."""
    try:
        "━─▁█…·".encode(stream.encoding or "ascii")
    except (UnicodeError, LookupError):
        return True
    return False


def _beyond_launcher(stream: TextIO, root: Path = ROOT) -> TextIO | None:
    """Open the terminal a launcher writes to; None where it does not read what is written to a stream."""
    if not stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode):
        return None
    launcher = find_launcher(root)
    if launcher is None:
        return None
    above = list(ancestors(root, os.getpid()))
    up_to_launcher = above[: above.index(launcher.pid) + 1]
    pipe = (root / f"proc/self/fd/{stream.fileno()}").readlink()
    if not any(_holds(root, pid, pipe) for pid in up_to_launcher):
        return None
    descriptor = os.open(root / f"proc/{launcher.pid}/fd/2", os.O_WRONLY | os.O_NOCTTY)
    if os.isatty(descriptor):
        return os.fdopen(descriptor, "w", encoding=stream.encoding, errors="backslashreplace")
    os.close(descriptor)
    return None


def _holds(root: Path, pid: int, pipe: Path) -> bool:
    """Whether a process has a pipe open."""
    for entry in (root / "proc" / str(pid) / "fd").iterdir():
        try:
            if entry.readlink() == pipe:
                return True
        except OSError:  # closed since
            continue
    return False
