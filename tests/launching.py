"""Starting ``hpcrnn`` as a user does: a subprocess under mpirun, with a timeout, in a folder of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hpcrnn.benchmarks.launch import default_launcher

TIMEOUT_S = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self):
        """Our own error lines, without what mpirun adds."""
        return [line for line in self.err.splitlines() if line.startswith("hpcrnn: error")]


def mpirun(n_ranks, *command, cwd, timeout=TIMEOUT_S):
    """Start ``python *command`` on ranks."""
    launcher = [part.replace("{ranks}", str(n_ranks)) for part in default_launcher()]
    return start([*launcher, sys.executable, *command], cwd=cwd, timeout=timeout)


def hpcrnn_run(n_ranks, *flags, cwd, timeout=TIMEOUT_S):
    """Start ``mpirun -n N hpcrnn run FLAGS``."""
    return mpirun(n_ranks, "-m", "hpcrnn", "run", *map(str, flags), cwd=cwd, timeout=timeout)


def hpcrnn(*arguments, cwd, timeout=TIMEOUT_S):
    """Start ``hpcrnn ARGUMENTS`` without mpirun."""
    return start([sys.executable, "-m", "hpcrnn", *map(str, arguments)], cwd=cwd, timeout=timeout)


def start(command, *, cwd, timeout):
    env = dict(os.environ)
    if "PYTHONPATH" in env:  # which may be relative to the folder the tests were started in
        env["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in env["PYTHONPATH"].split(os.pathsep))
    done = subprocess.run(
        command,
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        env=env,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


SMALL = (
    "--hidden", 12, "--embed", 7, "--batch", 6, "--seq", 9, "--warmup", 1, "--min-repeats", 2, "--max-repeats", 3,
    "--max-time", 20, "--no-ceilings", "--out", "r.h5",
)  # fmt: skip
"""Flags of a run that takes no time."""


def case_script(folder: Path, text: str) -> Path:
    """Write a program that ranks run."""
    path = folder / "case.py"
    path.write_text(text, encoding="utf-8")
    return path
