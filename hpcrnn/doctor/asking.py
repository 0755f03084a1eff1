"""Starting programs that may be missing, broken or hanging."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

TIMEOUT_S = 20.0
"""Of a program: one that starts Python from a busy file system may take this long, and one that hangs never ends."""

_GRACE_S = 1.0


@dataclass(frozen=True)
class Answer:
    """What a program said.

    Attributes
    ----------
    code : int
        Its exit code; not zero where it could not be started or had no answer in time.
    out, err : str
    """

    code: int
    out: str
    err: str = ""

    @property
    def last_line(self) -> str:
        """The last line, of the errors where it failed: what a program says of the cause."""
        text = self.out if self.code == 0 else self.err.strip() or self.out
        lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]  # and no ruled line
        return lines[-1] if lines else "it said nothing"


def ask(
    command: Sequence[str], *, timeout_s: float | None = None, variables: Mapping[str, str] | None = None
) -> Answer:
    """Start a program and wait for its answer; it, and all it started, is ended after a time.

    Parameters
    ----------
    command : sequence of str
    timeout_s : float, optional
        By default :data:`TIMEOUT_S`.
    variables : mapping, optional
        Its environment; by default that of this process.
    """
    limit_s = TIMEOUT_S if timeout_s is None else timeout_s
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env=None if variables is None else dict(variables),
        )
    except OSError as error:
        return Answer(1, "", f"{command[0]} cannot be started: {error.strerror}")
    with process:
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return Answer(1, "", f"no answer within {limit_s:g} s")
    return Answer(process.returncode, out, err)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and what it started: what lives on would hold its pipes open, and cores busy."""
    for kind in (signal.SIGTERM, signal.SIGKILL):  # a launcher that is asked ends its ranks, on other nodes too
        with suppress(OSError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE_S)
            if kind is signal.SIGKILL:
                return
