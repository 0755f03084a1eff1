"""Starting ranks: a launcher and all it starts, what it says, its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpcrnn.errors import FileError, LaunchError

_GRACE_S = 5.0


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


@dataclass(frozen=True)
class Ended:
    """How a launch ended.

    Attributes
    ----------
    code : int
        Exit code, of our table.
    said : str
        The last line of ``hpcrnn`` itself.
    """

    code: int
    said: str


class Launch:
    """One start of ranks.

    Parameters
    ----------
    command : sequence of str
    log : Path
        Everything it says is kept there.
    threads : int
        BLAS threads of each rank.
    """

    def __init__(self, command: Sequence[str], log: Path, threads: int) -> None:
        self._command, self._log, self._threads = command, log, threads
        self._process: subprocess.Popen[str] | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the launcher, which passes it on to the ranks."""
        if self._process is not None and self._process.poll() is None:
            # To it alone: what it has started in between, such as proxies, would die of it.
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def run(self, timeout_s: float, pass_on: Callable[[str], None]) -> Ended:
        """Start the ranks and wait for their end.

        Parameters
        ----------
        timeout_s : float
            After which they are ended.
        pass_on : callable
            Given each line of ``hpcrnn`` itself.

        Raises
        ------
        LaunchError
            The launcher cannot be started.
        FileError
            The log cannot be written.
        """
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            log = self._log.open("w", encoding="utf-8")
        except OSError as error:
            raise FileError(f"{self._log}: cannot be written: {error.strerror}") from None
        with log:
            process = self._process = self._start()
            expired = threading.Event()

            def expire() -> None:
                expired.set()
                _stop(process)

            timer = threading.Timer(timeout_s, expire)
            timer.start()
            said = "hpcrnn: it said nothing"
            try:
                for line in process.stdout or ():
                    log.write(line)
                    if line.startswith("hpcrnn:"):
                        said = line.strip()
                        pass_on(said.removeprefix("hpcrnn: "))
                status = process.wait()
            except BaseException:
                _stop(process)
                raise
            finally:
                timer.cancel()
        if expired.is_set():
            return Ended(LaunchError.exit_code, f"stopped after sweep.timeout = {timeout_s:g} s")
        # A launcher's own codes (signals, 255) are outside our table: wrong use covers them.
        return Ended(status if 0 <= status <= 4 else 1, said.removeprefix("hpcrnn: "))

    def _start(self) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                env=_environment(self._threads),
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word
            reason = getattr(error, "strerror", None) or error
            raise LaunchError(f"sweep.launcher = {self._command[0]!r}: cannot be started: {reason}") from None


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
