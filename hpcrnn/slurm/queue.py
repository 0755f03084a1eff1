"""Slurm's own commands, and what they answer: the only place that starts them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcrnn.errors import LaunchError

_TIMEOUT_S = 60.0
ENDED_WELL = "COMPLETED"
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED", "CONFIGURING")
RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED")


@dataclass(frozen=True)
class Partition:
    """A partition, as ``sinfo`` describes it.

    Attributes
    ----------
    name : str
    n_nodes : int
    cpus_per_node : int
        Of the smallest node.
    is_default : bool
    """

    name: str
    n_nodes: int
    cpus_per_node: int
    is_default: bool


@dataclass(frozen=True)
class State:
    """Where a job, or a task of an array, stands.

    Attributes
    ----------
    job : str
        ``17``, or ``17_3`` of an array.
    word : str
        Slurm's own: ``PENDING``, ``RUNNING``, ``COMPLETED``, ``TIMEOUT``, ...
    reason : str
        Why it waits, or how it ended.
    """

    job: str
    word: str
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.word not in WAITING and self.word not in RUNNING


def partitions() -> tuple[Partition, ...]:
    """Return what there is to submit to.

    Raises
    ------
    LaunchError
        Slurm is not installed here, or does not answer.
    """
    found: dict[str, Partition] = {}
    for line in _ask("sinfo", "-h", "-o", "%R|%P|%D|%c").splitlines():
        name, marked, nodes, cpus = line.split("|")
        # A line for each kind of node.
        n_nodes, least = int(nodes), int(cpus.rstrip("+"))
        if earlier := found.get(name):
            n_nodes, least = n_nodes + earlier.n_nodes, min(least, earlier.cpus_per_node)
        found[name] = Partition(name, n_nodes, least, marked.endswith("*"))
    return tuple(found.values())


def submit(script: Path, *, held: bool = True) -> str:
    """Hand a script to ``sbatch``; returns the number of the job.

    Parameters
    ----------
    script : Path
    held : bool
        Whether it must wait for :func:`release`.

    Raises
    ------
    LaunchError
        With the words of ``sbatch``.
    """
    answer = _ask("sbatch", "--parsable", *(["--hold"] if held else []), str(script))
    # Of a federation: 17;cluster.
    job = answer.strip().splitlines()[-1].split(";")[0]
    if not re.fullmatch(r"\d+", job):
        raise LaunchError(f"sbatch {script}: expected the number of a job, and it said {answer.strip()!r}")
    return job


def release(jobs: Sequence[str]) -> None:
    """Let held jobs run."""
    if jobs:
        _ask("scontrol", "release", *jobs)


def cancel(jobs: Sequence[str]) -> None:
    """Take jobs back."""
    if jobs:
        _ask("scancel", *jobs)


def requeue(job: str) -> None:
    """Put a running job back into the queue."""
    _ask("scontrol", "requeue", job)


def states(jobs: Iterable[str]) -> tuple[State, ...]:
    """Ask how jobs stand, each task of an array for itself.

    Those that have ended stay known for some minutes only (``MinJobAge``), with accounting for long; those Slurm no
    longer knows are left out.
    """
    found = []
    for job in jobs:
        status, text = _try("scontrol", "show", "job", "-o", job)
        if status == 0:
            found += [_read_state(line) for line in text.splitlines() if line.startswith("JobId=")]
        elif "nvalid job id" in text or "not found" in text.lower():
            found += _from_accounting(job)
        else:
            raise LaunchError(f"scontrol show job {job}: {_last_line(text)}")
    return tuple(found)


def _read_state(line: str) -> State:
    """Read a line of ``scontrol show job -o``: words of the form ``Key=value``."""
    fields = dict(re.findall(r"(\w+)=(\S*)", line))
    job, task = str(fields.get("ArrayJobId", fields["JobId"])), fields.get("ArrayTaskId", "")
    reason = fields.get("Reason", "None")
    said = _ending(fields.get("ExitCode", "0:0")) or ("" if reason == "None" else reason)
    return State(f"{job}_{task}" if task else job, fields["JobState"], said)


def _ending(code: str) -> str:
    """Turn Slurm's ``status:signal`` into words; empty where nothing went wrong."""
    status, _, signal = code.partition(":")
    if signal not in ("", "0"):
        return f"signal {signal}"
    return f"exit code {status}" if status != "0" else ""


def _from_accounting(job: str) -> list[State]:
    status, text = _try("sacct", "-n", "-P", "-X", "-o", "JobID,State,ExitCode", "-j", job)
    if status != 0:
        return []
    found = []
    for line in text.splitlines():
        name, word, code = line.split("|")
        found.append(State(name, word.split()[0], _ending(code)))
    return found


def _ask(*words: str) -> str:
    status, text = _try(*words)
    if status != 0:
        raise LaunchError(f"{words[0]}: {_last_line(text) or f'exit code {status}'}")
    return text


def _try(*words: str) -> tuple[int, str]:
    """Run a command; returns its exit code, and what it said: of a failure, what it said of it."""
    if shutil.which(words[0]) is None:
        raise LaunchError(f"{words[0]} is not installed here: hpcrnn slurm works where Slurm's commands are")
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{words[0]}: no answer within {_TIMEOUT_S:g} s") from None
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr + done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-3:])
