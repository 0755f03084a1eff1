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
_IN_DOUBT = {"sbatch": "; squeue --me says whether Slurm has taken the job all the same, scancel takes it back"}
"""What more is to be said where a command did not answer, but may have done its work."""
ENDED_WELL = "COMPLETED"
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED", "CONFIGURING")
RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED")


@dataclass(frozen=True)
class Nodes:
    """Equal nodes of a partition.

    Attributes
    ----------
    count : int
    cpus : int
        Slurm's CPUs of each: hardware threads, where it was told of them.
    cores : int
    """

    count: int
    cpus: int
    cores: int


@dataclass(frozen=True)
class Partition:
    """A partition, as ``sinfo`` describes it.

    Attributes
    ----------
    name : str
    is_default : bool
    kinds : tuple of Nodes
        Of its nodes, whatever their state: a node that is down today may be up tomorrow.
    """

    name: str
    is_default: bool
    kinds: tuple[Nodes, ...]


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
    # A line for each kind of node of each partition, hidden ones too; 4096 nodes as such and not as 4K.
    command = ["sinfo", "--noheader", "--all", "--local", "--exact", "--noconvert", "--format=%R|%P|%D|%c|%X|%Y"]
    kinds: dict[tuple[str, bool], list[Nodes]] = {}
    for line in filter(None, map(str.strip, _ask(*command).splitlines())):
        try:
            name, marked, *numbers = line.split("|")
            count, cpus, sockets, cores = map(int, numbers)
        except ValueError:
            raise LaunchError(f"sinfo: expected NAME|NAME|nodes|CPUs|sockets|cores, and it said {line!r}") from None
        kinds.setdefault((name, marked.endswith("*")), []).append(Nodes(count, cpus, sockets * cores))
    return tuple(Partition(name, is_default, tuple(of_it)) for (name, is_default), of_it in kinds.items())


def most_tasks() -> int | None:
    """Return how many tasks an array may have: numbers below ``MaxArraySize``; None where Slurm does not say."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    return int(found[1]) if found else None


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
    job = (answer.strip().splitlines() or [""])[-1].split(";")[0]
    if not re.fullmatch(r"[0-9]+", job):
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
            raise LaunchError(f"scontrol show job {job}: {_words(text)}")
    return tuple(found)


def _read_state(line: str) -> State:
    """Read a line of ``scontrol show job -o``: words of the form ``Key=value``.

    The first of a key counts: those that users have words in, such as folders and comments, come last.
    """
    fields = dict(reversed(re.findall(r"(?<!\S)(\w+)=(\S*)", line)))
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
    if shutil.which("sacct") is None:
        return []
    status, text = _try("sacct", "-n", "-P", "-X", "-o", "JobID,State,ExitCode", "-j", job)
    if status != 0:
        return []
    found = []
    for line in text.splitlines():
        name, word, code = line.split("|")
        found.append(State(name, word.split()[0], _ending(code)))  # CANCELLED by 1000
    return found


def _ask(*words: str) -> str:
    status, text = _try(*words)
    if status != 0:
        raise LaunchError(f"{words[0]}: {_words(text) or f'exit code {status}'}")
    return text


def _try(*words: str) -> tuple[int, str]:
    """Run a command; returns its exit code, and what it said: of a failure, what it said of it."""
    if shutil.which(words[0]) is None:
        raise LaunchError(f"{words[0]} is not installed here: hpcrnn slurm works where Slurm's commands are")
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{words[0]}: no answer within {_TIMEOUT_S:g} s{_IN_DOUBT.get(words[0], '')}") from None
    except OSError as error:
        raise LaunchError(f"{words[0]}: cannot be started: {error.strerror}") from None
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr + done.stdout


def _words(text: str) -> str:
    """Return the end of what a command said, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-3:])
