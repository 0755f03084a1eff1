"""Files that are there whole or not at all, whatever ends the program that writes them.

The content goes to a temporary name in the same folder, is flushed to the disk, gets its name in one step, and the
folder is flushed.  What is relied on: that within a folder a rename replaces a file at once, and that of two programs
that link or create one name only one succeeds; POSIX asks for both, NFS since version 3 and the usual parallel file
systems hold to it, and a program on another node may see the new name late, but never half a file.  A kill can leave
the temporary file: its name begins with a point and ends in ``.tmp``, which no pattern for results matches.  On a file
system without hard links it can also leave an empty file of the name, within the microseconds between taking the
name and filling it; readers say that it is empty.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from hpcrnn.errors import FileError, printable

LEFTOVER_AGE_S = 86_400.0
"""A temporary file that is older than this has no writer any more: writing takes seconds."""

PARTIAL = ".partial"
"""Ends the name of a file that is not complete; no pattern for results matches it."""

_LONGEST_NAME = 400
_STEM_BYTES = 180
"""Of a name that is made of another one: what is added must fit into the 255 that file systems take."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.[0-9]+\.tmp")


class NameTakenError(FileExistsError):
    """Another file has the name, and may not be replaced."""


def write_whole(path: Path, content: bytes, *, overwrite: bool, beside: bool = False) -> Path:
    """Write a file in one piece.

    Parameters
    ----------
    path : Path
        Its folder is made if need be.
    content : bytes
    overwrite : bool
        Whether a file of the name may be replaced.
    beside : bool
        Where the name is taken and may not be replaced: write to a new name beside it.

    Returns
    -------
    Path
        Where the content is: ``path``, or the name beside it.

    Raises
    ------
    NameTakenError
        Another file has the name, and neither ``overwrite`` nor ``beside`` is given.
    OSError
        It cannot be written; what was there before is as it was.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        _make_folder(path.parent)
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        _remove_leftovers(temporary)
        written = path
        if overwrite:
            temporary.replace(path)
        elif not _take_name(temporary, path):
            if not beside:
                raise NameTakenError
            written = name_beside(path)
            temporary.replace(written)
        _sync_folder(path.parent)
        return written
    finally:
        remove_quietly(temporary)


def write_output(path: Path, content: bytes, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Write a file that was made of others, in one piece, over none of them.

    Raises
    ------
    FileError
        The name is an input's, or taken and not to be overwritten, or the file cannot be written.
    """
    check_output(path, inputs, overwrite=overwrite)
    try:
        write_whole(path, content, overwrite=overwrite)
    except NameTakenError:
        raise _taken(path) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unusable(path, f"cannot be written: {getattr(error, 'strerror', None) or error}") from None


def check_output(path: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Find out before any work whether an output has a name of its own.

    Raises
    ------
    FileError
        The name is an input's, or taken and not to be overwritten.
    """
    with suppress(OSError, ValueError):  # what cannot be looked at cannot be written either, which says so itself
        if not path.exists():
            if not overwrite and path.is_symlink():
                raise _taken(path)
            return
        if any(source.exists() and source.samefile(path) for source in inputs):
            raise unusable(path, "is an input, which is never overwritten: choose another name")
        if not overwrite:
            raise _taken(path)


def temporary_beside(path: Path) -> Path:
    """Return a new name in the same folder that no pattern for results matches."""
    return path.with_name(f".{uuid.uuid4().hex}.{os.getpid()}.tmp")


def name_beside(path: Path) -> Path:
    """Return a new name in the same folder, as near to a name as can be."""
    complete = path.with_name(path.name.removesuffix(PARTIAL))
    stem, ending = complete.stem, complete.suffix + path.name[len(complete.name) :]
    while len(os.fsencode(stem)) > _STEM_BYTES:
        stem = stem[:-1]
    return path.with_name(f"{stem}-{uuid.uuid4().hex[:12]}{ending}")


def remove_quietly(path: Path) -> None:
    """Remove a file, if it is there and can be removed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def unusable(path: Path, what: str) -> FileError:
    """Make the one-line error, whatever the names of files and datasets hold."""
    name = str(path) if len(str(path)) <= _LONGEST_NAME else f"{str(path)[:_LONGEST_NAME]}…"
    return FileError(printable(f"{name}: {what}"))


def _taken(path: Path) -> FileError:
    return unusable(path, "is there already: choose another name, or give --overwrite")


def _take_name(temporary: Path, path: Path) -> bool:
    """Give a file its name, but over nothing, with no moment between look and deed; False where it is taken."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        # Over NFS a link may be made and the answer lost: the second request then finds its own.
        return _are_one(temporary, path)
    except OSError:
        return _claim_name(temporary, path)  # a file system without hard links
    return True


def _claim_name(temporary: Path, path: Path) -> bool:
    """Give a file its name by way of an empty file, which only one program can create."""
    try:
        with path.open("xb"):
            pass
    except FileExistsError:
        return False
    try:
        temporary.replace(path)
    except BaseException:
        remove_quietly(path)
        raise
    return True


def _are_one(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # a link to nowhere
        return False


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it so that they outlast a power cut."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # "File exists" would be said of the file to be written
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    for place in missing:
        _sync_folder(place.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name last through a power cut, where the file system can."""

    def sync() -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    _quietly(sync)


def _remove_leftovers(own: Path) -> None:
    """Remove what killed writers left in this folder long ago, by the clock of the file system itself."""

    def sweep() -> None:
        now = own.stat().st_mtime
        with os.scandir(own.parent) as entries:
            old = [
                Path(entry.path)
                for entry in entries
                if _TEMPORARY.fullmatch(entry.name)
                and entry.is_file(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_mtime < now - LEFTOVER_AGE_S
            ]
        for path in old:
            remove_quietly(path)

    _quietly(sweep)


def _quietly(action: Callable[[], None]) -> None:
    with suppress(OSError):
        action()
