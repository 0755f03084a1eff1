"""A run that is told to end, by the batch system or from a keyboard, ends with one line that says what is left of it.

A thread waits for SIGTERM and SIGINT, for a rank that sits in an MPI call hears nothing in Python until that call is
over, and the rank it waits for may be gone.  Where all ranks are told, as a batch system and most launchers do, the
first speaks for all.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hpcrnn.errors import FileError, printable
from hpcrnn.records.output import Output

ENDING = (signal.SIGTERM, signal.SIGINT)
ASKING = signal.SIGUSR1
"""What a batch system sends some time before it ends a job: measuring then ends early, and all is kept."""

_WRITING_S = 3.0
"""How long a write that has begun may take before the process ends all the same; a kill spoils no file."""

_FIRST_RANK_S = 4.0
"""How long other ranks wait for the first to speak and end all: longer than a write may take it."""

_LEAVE_DISPLAY = "\n\x1b[?25h"
"""Of a terminal, where a display that is drawn again and again may have hidden the cursor."""


class Farewell:
    """What to say where a process is told to end.

    Parameters
    ----------
    end : callable
        Ends all ranks with an exit code, and does not return.
    rank, n_ranks : int

    Attributes
    ----------
    asked : bool
        Whether measuring was asked to end early.
    """

    def __init__(self, end: Callable[[int], object], rank: int = 0, n_ranks: int = 1) -> None:
        self._end, self._rank, self._n_ranks = end, rank, n_ranks
        self._writing = threading.Lock()
        self._kept: tuple[Path, float] | None = None
        self._done: Path | None = None
        self._complained = False
        self.asked = False

    def keep(self, output: Output, content: bytes) -> Path | None:
        """Write a state before the end, while a signal waits.

        A disk that is full for a while ends nothing: it is said once, and None is returned.
        """
        try:
            with self._writing:
                path = output.keep(content)
        except FileError as error:
            if not self._complained:
                sys.stderr.write(f"hpcrnn: warning: {error}; a kill would lose what is measured from here on\n")
            self._complained = True
            return None
        self.heard_kept(path)
        return path

    def finish(self, output: Output, content: bytes) -> None:
        """Put the complete file in its place, while a signal waits.

        Raises
        ------
        FileError
            As of :meth:`~hpcrnn.records.output.Output.finish`.
        """
        with self._writing:
            output.finish(content)
            self.heard_done(output.path)

    def heard_kept(self, path: Path) -> None:
        """Hear that what was measured until now lies in a file, whoever wrote it."""
        self._kept = (path, time.monotonic())

    def heard_done(self, path: Path) -> None:
        """Hear that all results lie in a file, whoever wrote it."""
        self._done = path

    @property
    def remains(self) -> str:
        """Where what was measured lies; empty where nothing was written yet."""
        if self._done is not None:
            return f"the results are in {printable(str(self._done))}"
        if self._kept is None:
            return ""
        path, when = self._kept
        lost_s = round(time.monotonic() - when)
        lost = f", but for the last {lost_s} s" if lost_s else ""
        return f"what was measured is in {printable(str(path))}{lost}"

    def listen(self) -> None:
        """Wait for signals from now on; called on the main thread.

        A signal that is ignored, as of a job in the background, stays so.
        """
        hears, says = os.pipe()
        os.set_blocking(says, False)
        signal.set_wakeup_fd(says, warn_on_full_buffer=False)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _leave_it_to_the_thread)
        signal.signal(ASKING, self._hear_asking)
        threading.Thread(target=self._wait, args=(hears,), name="farewell", daemon=True).start()
        atexit.register(_let_signals_kill)

    def _hear_asking(self, _number: int, _frame: object) -> None:
        """Remember that the run was asked to end; it does between two rounds."""
        self.asked = True

    def _wait(self, hears: int) -> None:
        number = 0
        while number not in ENDING:
            number = os.read(hears, 1)[0]
        drop_shared_memory()
        if self._rank:
            time.sleep(_FIRST_RANK_S)
        self._writing.acquire(timeout=_WRITING_S)  # and never released: nothing more is to be written
        self._say(signal.Signals(number).name)
        self._end(128 + number)

    def _say(self, name: str) -> None:
        where = f" on rank {self._rank} of {self._n_ranks}" if self._n_ranks > 1 else ""
        start = _LEAVE_DISPLAY if os.isatty(2) else ""
        line = f"{start}hpcrnn: stopped by {name}{where}: {self.remains or 'nothing was written yet'}\n"
        with suppress(OSError):  # a terminal that is gone
            os.write(2, line.encode(errors="backslashreplace"))  # not by sys.stderr, which another thread may hold


def drop_shared_memory(maps: Path = Path("/proc/self/maps")) -> None:
    """Take away the names of the shared memory of MPICH that this process has.

    MPICH does so when it is finalized only, and names the memory by the step of the job: where a job is killed and
    queued again, a step of the same number on the same node would find the old memory, and hang.
    """
    with suppress(OSError):
        for name in set(re.findall(r"(/dev/shm/mpich_shm_\w+)$", maps.read_text(errors="replace"), re.MULTILINE)):
            with suppress(OSError):
                Path(name).unlink()


def _let_signals_kill() -> None:
    """Let signals end the process at once: Python's threads do not run while MPI is finalized, which may hang."""
    for number in ENDING:
        if signal.getsignal(number) is _leave_it_to_the_thread:
            signal.signal(number, signal.SIG_DFL)


def _leave_it_to_the_thread(number: int, frame: object) -> None:
    """Do nothing: a signal that has a handler is written to the pipe the thread reads."""
