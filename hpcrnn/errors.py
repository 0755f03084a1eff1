"""What can go wrong, and the exit code each kind ends with.

====  =============================================================
code  meaning
====  =============================================================
0     valid
1     wrong use: a flag, a key, a file
2     the result is INVALID: the numbers computed are not right
3     a gate failed
4     the launch is wrong: ranks, threads, devices, MPI
130   ended by SIGINT; 143: by SIGTERM (128 and its number, as in shells)
====  =============================================================
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_VALID = 0
EXIT_WRONG_USE = 1
EXIT_INVALID = 2
EXIT_GATE_FAILED = 3
EXIT_LAUNCH = 4


class HpcrnnError(Exception):
    """An error the user can act on; its text is one line that says how."""

    exit_code: int = EXIT_WRONG_USE

    @property
    def lines(self) -> tuple[str, ...]:
        """What to tell, a line an error: one, but where several things are wrong at once."""
        return (str(self),)


class SpecError(HpcrnnError):
    """A key of a specification, or a flag, has a value that is not allowed.

    Parameters
    ----------
    key : str
        The key as the user wrote it, e.g. ``model.hidden``.
    value : object
        What it was set to.
    allowed : str
        What would have been accepted.
    """

    def __init__(self, key: str, value: object, allowed: str) -> None:
        shown = shorten(value)
        super().__init__(f"{key} = {shown}: allowed is {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[SpecError], tuple[str, object, str]]:
        """Travel between ranks as what it was made of."""
        return type(self), (self.key, self.value, self.allowed)


def shorten(value: object) -> str:
    """Show any value on one line of bounded length."""
    try:
        shown = repr(value)  # escapes line breaks, whatever the value holds
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        shown = f"{type(value).__name__} too long to print"
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


def printable(text: str) -> str:
    """Return a text on one line, whatever the names in it hold."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class FileError(HpcrnnError):
    """A file cannot be read, is damaged, or cannot be written."""


class UnreadableError(FileError):
    """Files cannot be read, and without them nothing is done.

    Parameters
    ----------
    files : sequence of str
        A line for each: its name, and why.
    rest : str
        What is therefore not done; empty where that goes without saying.
    """

    def __init__(self, files: Sequence[str], rest: str = "") -> None:
        super().__init__("; ".join(filter(None, [*files, rest])))
        self.files, self.rest = tuple(files), rest

    @property
    def lines(self) -> tuple[str, ...]:
        return (*self.files, *([self.rest] if self.rest else []))

    def __reduce__(self) -> tuple[type[UnreadableError], tuple[tuple[str, ...], str]]:
        """Travel between ranks as what it was made of."""
        return type(self), (self.files, self.rest)


class LaunchError(HpcrnnError):
    """The ranks, threads or devices are not what the run was asked for.

    Parameters
    ----------
    text : str
    told : bool
        Whether this process says so; of several that do not know of one another only the first does.
    """

    exit_code = EXIT_LAUNCH

    def __init__(self, text: str, *, told: bool = True) -> None:
        super().__init__(text)
        self.told = told


class MissingPackageError(HpcrnnError):
    """An optional package was asked for and is not installed."""


class NumericsError(HpcrnnError):
    """The computation produced values that are not finite."""

    exit_code = EXIT_INVALID


class ScheduleError(HpcrnnError):
    """A program breaks a rule: it would hang, or compute something else."""
