"""Byte-level text: the Python standard library that every machine has, or the user's own files.

The model reads T bytes and says the next one after each: vocabulary 256, cross-entropy.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.errors import FileError
from hpcrnn.spec import RunSpec
from hpcrnn.workloads.base import Array, Batch, Interface, Workload, random_windows, refused, row_range
from hpcrnn.workloads.division import trained_part
from hpcrnn.workloads.sequences import open_sequences

VOCABULARY = 256
INTERFACE = Interface("tokens", VOCABULARY, "cross_entropy", VOCABULARY)

NOT_STANDARD = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})
"""Directories below the standard library that are not it, or that distributions leave out."""


@dataclass(frozen=True, eq=False)
class TextWorkload:
    """Windows of T + 1 bytes; the targets are the inputs one byte later.

    Attributes
    ----------
    name : str
    corpus : uint8 array (N,)
        N > T.
    n_files : int
        Files the corpus was put together from.
    n_rows, seq, seed : int
        B, T and the seed of the window offsets.
    carry : bool
        Whether a row reads on where it ended in the step before.
    """

    name: str
    corpus: npt.NDArray[np.uint8]
    n_files: int
    n_rows: int
    seq: int
    seed: int
    carry: bool = False
    interface: Interface = INTERFACE

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """Cut inputs and targets, int32 (T, B): two views of one window."""
        taken = row_range(rows, self.n_rows)
        window = random_windows(self.corpus, self.seed, step, taken, self.seq + 1, carry=self.carry)
        window = window.astype(np.int32)
        return Batch(window[:-1], window[1:])

    def describe(self) -> dict[str, Any]:
        """Return size and SHA-256 of the corpus, and the Python it came with."""
        return {
            "name": self.name,
            "n_files": self.n_files,
            "n_bytes": int(self.corpus.size),
            "sha256": hashlib.sha256(self.corpus.data).hexdigest(),
            "python": platform.python_version(),
        }


def open_stdlib(spec: RunSpec, root: Path | None = None) -> Workload:
    """Open the sources of the running Python's standard library.

    Parameters
    ----------
    spec : RunSpec
    root : Path, optional
        Where the library lies; by default where this Python says.

    Raises
    ------
    FileError
        There are no sources on disk (a Python in a zip file, or stripped), or one cannot be read.
    SpecError
        A sequence is longer than the corpus.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    fix = "use --workload file:PATH with a text of your own"
    try:
        files = [path for path in _files_below(root, NOT_STANDARD) if path.suffix == ".py"]
        if not files:
            message = f"{root}: holds no standard library sources (*.py); {fix}"
            raise FileError(message)
        return _workload(spec, files)
    except OSError as error:
        message = f"{error.filename or root}: cannot be read: {error.strerror}; {fix}"
        raise FileError(message) from None


def open_file(spec: RunSpec, name: str) -> Workload:
    """Open the user's file, or every file below a directory.

    Raises
    ------
    SpecError
        It is not there, is not a file or a directory, cannot be read, or is too short.
    """
    try:
        path = Path(name).expanduser()
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return _workload(spec, [path])
        if not stat.S_ISDIR(mode):
            raise refused(spec, "file: and a file or directory (this is a device or a pipe)")
        files = list(_files_below(path))
        if not files:
            raise refused(spec, "a directory that holds files")
        return _workload(spec, files)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL; RuntimeError: ~ of nobody
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise refused(spec, f"file: and a file or directory that can be read ({reason})") from None


def _files_below(root: Path, skipped: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Find every regular file below a directory, by relative POSIX path; dangling links are no files."""
    found = []
    for folder, folders, files in os.walk(root, onerror=_complain):
        folders[:] = [name for name in folders if name not in skipped]
        found += [Path(folder, name) for name in files]
    return (path for path in sorted(found, key=lambda p: p.relative_to(root).as_posix()) if path.is_file())


def _complain(error: OSError) -> None:
    """Let no directory be passed over in silence: that would make another corpus."""
    raise error


@lru_cache(maxsize=1)
def _read(files: tuple[tuple[Path, int, int], ...]) -> tuple[Array, Array]:
    """Join files, given with their time and size: a verification opens the run's own corpus again.

    Returns
    -------
    corpus : uint8 array (N,)
    ends : int64 array (n_files,)
        Where each file ends in it.
    """
    contents = [path.read_bytes() for path, _, _ in files]
    return np.frombuffer(b"".join(contents), dtype=np.uint8), np.cumsum([len(content) for content in contents])


def _workload(spec: RunSpec, files: list[Path]) -> Workload:
    corpus, ends = _read(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))
    corpus, problem = trained_part(spec, corpus), spec.problem
    least = problem.seq if problem.sequences == "windows" else 0
    if corpus.size <= least:
        at_least = f"at least seq + 1 = {least + 1} bytes" if least else "at least one byte"
        raise refused(spec, f"a text of {at_least}; this has {corpus.size}")
    if problem.sequences != "windows":
        return open_sequences(spec, corpus, ends, len(files), INTERFACE)
    sizes = problem.batch, problem.seq, problem.seed
    return TextWorkload(problem.workload, corpus, len(files), *sizes, carry=spec.training.carry)
