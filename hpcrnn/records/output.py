"""The output of a measurement that takes long: looked at before, kept while it grows, put in its place at the end.

While it grows it lies beside its name, as ``NAME.partial``: no pattern for results, such as ``*.h5``, matches that, and
an older result of the name stays until a complete one replaces it.  Of two jobs that want one name each has a partial
file of its own, for a name is taken over nothing; what lies under a name is replaced only by whom it was written by.  A
partial file is removed once the complete one is on the disk.  Where that cannot be written, the results go to another
place, which the error names.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from hpcrnn.errors import SpecError, printable
from hpcrnn.records.whole_file import (
    PARTIAL,
    name_beside,
    remove_quietly,
    temporary_beside,
    unusable,
    write_whole,
)

_LONGEST_NAME_BYTES = 255


class Output:
    """One file that is to be made.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether an older file of the name may be replaced.
    key : str
        Key or flag by which the user named it, for messages.

    Attributes
    ----------
    kept : Path or None
        Where the latest state lies that was written before the end; None where there is none.
    """

    def __init__(self, path: Path, *, overwrite: bool, key: str) -> None:
        self.path = Path(path)
        self.kept: Path | None = None
        self._overwrite, self._key = overwrite, key
        self._own: tuple[int, ...] | None = None

    def check(self) -> None:
        """Find out before anything is measured whether the file can be written; make its folder.

        Raises
        ------
        SpecError
        """
        check_writable(self.path, self._overwrite, self._key)

    def keep(self, content: bytes) -> Path:
        """Write a state before the end: beside the name, over nothing but an earlier state of its own.

        Returns
        -------
        Path

        Raises
        ------
        FileError
            It cannot be written; what was kept before is as it was.
        """
        try:
            if self.kept is not None and _identity(self.kept) == self._own:
                write_whole(self.kept, content, overwrite=True)
            else:
                self.kept = write_whole(partial_name(self.path), content, overwrite=False, beside=True)
            self._own = _identity(self.kept)
        except (OSError, ValueError) as error:
            raise unusable(self.kept or partial_name(self.path), f"cannot be written: {_reason(error)}") from None
        return self.kept

    def finish(self, content: bytes) -> None:
        """Put the complete file in its place, and remove what was kept before.

        Raises
        ------
        FileError
            It could not be, because another run has taken the name or the place cannot be written; the message says
            where the results are.
        """
        try:
            written = write_whole(self.path, content, overwrite=self._overwrite, beside=True)
        except (OSError, ValueError) as error:
            cause = _reason(error)
        else:
            if self.kept is not None and _identity(self.kept) == self._own:
                remove_quietly(self.kept)
            self.kept = None
            if written == self.path:
                return
            raise unusable(self.path, f"another run has taken this name; the results of this one are in {written}")
        raise unusable(self.path, f"cannot be written: {cause}; {self._saved(content)}")

    def _saved(self, content: bytes) -> str:
        """Save the results in another place, and say in which."""
        for place in _other_places(self.path):
            with suppress(OSError, ValueError):
                return f"the results are in {write_whole(place, content, overwrite=False)} on {platform.node()}"
        if self.kept is not None:
            return f"nor can any other place; what was measured up to the last time it was kept is in {self.kept}"
        return "nor can any other place: the results are lost"


def partial_name(path: Path) -> Path:
    """Where a file lies while it is not complete."""
    name = path.name + PARTIAL
    if len(os.fsencode(name)) <= _LONGEST_NAME_BYTES:
        return path.with_name(name)
    return name_beside(path.with_name(name))


def check_writable(path: Path, overwrite: bool, key: str = "measure.out") -> None:
    """Find out before anything is measured whether a file can be written; make its folder.

    Raises
    ------
    SpecError
        The name is taken and not to be overwritten, is no name for a file, or its directory cannot be
        made or written.
    """
    path = Path(path)
    try:
        if _is_taken(path):
            if path.exists() and not path.is_file():  # a dangling link is taken, and exists not
                kind = "this is a directory" if path.is_dir() else "this is a device, a pipe or a socket"
                raise SpecError(key, str(path), f"the name of a file ({kind})")
            if not overwrite:
                raise SpecError(key, str(path), "a name that is not taken, unless --overwrite is given")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            temporary.open("xb").close()
        finally:
            remove_quietly(temporary)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SpecError(key, str(path), f"a file that can be written ({_reason(error)})") from None


def _other_places(path: Path) -> Iterator[Path]:
    """Where to save what its own place does not take: beside it, in the current folder, where temporary files go."""
    folders: tuple[Callable[[], Path], ...] = (
        lambda: path.parent,
        Path.cwd,
        lambda: Path(tempfile.gettempdir()),
    )
    # The name itself may be what cannot be written.
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in path.name)
    for folder in folders:
        with suppress(OSError):  # the current folder may be gone
            yield name_beside(folder() / plain)


def _identity(path: Path) -> tuple[int, ...] | None:
    """By which a file is known again under its name; another's has another, and what is gone None.

    The number of a file that was removed may be given to the next one: when it was written counts too.
    """
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _is_taken(path: Path) -> bool:
    """Whether anything has this name; what could never have it is an error, which ``exists`` hides."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _reason(error: OSError | ValueError) -> str:
    return printable(str(getattr(error, "strerror", None) or error))
