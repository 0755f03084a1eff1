"""A terminal for tests: a command on a pseudo-terminal, and what it wrote there."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from contextlib import contextmanager
from pathlib import Path

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MOVES = re.compile(r"\x1b\[[0-9]*[AK]|\r(?!\n)")
"""Ways to draw over what is there."""
COLOURS = re.compile(r"\x1b\[(?:[0-9]+;)*3[0-7]m")


def open_terminal(columns):
    """Return both ends of a pseudo-terminal."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return master, slave


@contextmanager
def as_stderr(columns, monkeypatch, term="xterm"):
    """Make standard error of this process a terminal; yields what reads what was written."""
    master, slave = open_terminal(columns)
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLUMNS", raising=False)
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        try:
            yield lambda: _waiting(master)
        finally:
            os.close(master)


def _waiting(master):
    found = b""
    while select.select([master], [], [], 0)[0]:
        try:
            found += os.read(master, 65536)
        except OSError:  # the other end was closed
            break
    return found.decode()


def on_terminal(command, *, cwd, columns=80, timeout=60, stdout=None, **variables):
    """Run a command whose standard error, and output unless it is given, is a terminal; return exit code and text."""
    master, slave = open_terminal(columns)
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")} | {"TERM": "xterm"} | variables
    if "PYTHONPATH" in env:
        env["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in env["PYTHONPATH"].split(os.pathsep))
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout or slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    found, end = b"", time.monotonic() + timeout
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:  # nobody has the other end open any more
                    break
                if not data:
                    break
                found += data
        return process.wait(timeout=max(end - time.monotonic(), 1)), found.decode()
    finally:
        process.kill()
        os.close(master)
