"""Handing a sweep to Slurm: all of its jobs or none, and what was handed over, kept beside the results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hpcrnn.errors import FileError, LaunchError, SpecError
from hpcrnn.records.whole_file import unusable, write_whole
from hpcrnn.slurm import queue
from hpcrnn.slurm.jobs import Job
from hpcrnn.slurm.plan import Plan
from hpcrnn.slurm.queue import Partition
from hpcrnn.slurm.script import render
from hpcrnn.slurm.site import Site

FILE_NAME = "submission.json"


class SubmittedJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One job that Slurm has taken.

    Attributes
    ----------
    id : str
        Slurm's number of it.
    name, script : str
    n_ranks : int
    tasks : tuple of int
        Of an array, as in :class:`~hpcrnn.slurm.jobs.Job`.
    """

    id: str
    name: str
    script: str
    n_ranks: int
    tasks: tuple[int, ...] = ()


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``submission.json`` holds: the last submission of a sweep.

    Attributes
    ----------
    submitted_utc : str
    ranks : tuple of int
        All numbers of ranks that this sweep was submitted for, earlier ones too: what a collection is of.
    jobs : tuple of SubmittedJob
    """

    submitted_utc: str
    ranks: tuple[int, ...]
    jobs: tuple[SubmittedJob, ...]


def check_fits(jobs: Sequence[Job], site: Site) -> None:
    """Refuse jobs that the partition could never start.

    Raises
    ------
    SpecError
        There is no such partition, it has too few nodes, its nodes have too few cores, or an array has more
        tasks than Slurm allows.
    LaunchError
        Slurm does not answer.
    """
    partitions = _asked_for(site.queue.partition)
    longest = max((len(job.tasks) and job.tasks[-1] + 1 for job in jobs), default=0)
    most = queue.most_tasks() if longest else None
    if most is not None and longest > most:
        raise SpecError("--as", "array", f"jobs: an array of this Slurm has at most {most} tasks, and this {longest}")
    refused = [_why_never(jobs, partition, site) for partition in partitions]
    # Of several partitions Slurm takes the one that can start a job first.
    if refused and None not in refused:
        raise next(filter(None, refused))


def _asked_for(names: str | None) -> list[Partition]:
    """Return the partitions a site names, separated by commas; the default one where it names none.

    Where there is no default, Slurm is left to choose, by a plugin or a variable, or to refuse.
    """
    there = {partition.name: partition for partition in queue.partitions()}
    allowed = f"one of {', '.join(sorted(there))}" if there else "none: Slurm has no partition"
    if names is None:
        return [partition for partition in there.values() if partition.is_default]
    for name in names.split(","):
        if name not in there:
            raise SpecError("queue.partition", name, allowed)
    return [there[name] for name in names.split(",")]


def _why_never(jobs: Sequence[Job], partition: Partition, site: Site) -> SpecError | None:
    """Say why a partition could never start one of the jobs; None where it could start them all."""
    word = "cores" if site.node.hint == "nomultithread" else "CPUs"
    sizes = [(kind.count, kind.cores if word == "cores" else kind.cpus) for kind in partition.kinds]
    for job in jobs:
        wanted, largest = job.ranks_per_node * site.node.cpus_per_rank, max((size for _, size in sizes), default=0)
        if wanted > largest:
            has = f"the largest nodes of partition {partition.name} have so many {word}"
            product = f"{job.ranks_per_node} x {site.node.cpus_per_rank}"
            return SpecError("node.ranks x node.cpus_per_rank", product, f"at most {largest}: {has}")
        n_nodes = sum(count for count, size in sizes if size >= wanted)
        if job.n_nodes > n_nodes:
            has = (
                f"partition {partition.name} has {n_nodes} nodes of {wanted} {word}, for node.ranks = {site.node.ranks}"
            )
            return SpecError("sweep.ranks", job.n_ranks, f"at most {n_nodes * site.node.ranks}: {has}")
    return None


def write_scripts(plan: Plan) -> dict[Job, Path]:
    """Write the script of each job into the folder of the results."""
    written = {}
    for job in plan.jobs:
        path = plan.places.results / "jobs" / f"{job.name}.sbatch"
        try:
            write_whole(path, render(job, plan.site, plan.places).encode(), overwrite=True)
        except OSError as error:
            raise unusable(path, error.strerror or str(error)) from None
        written[job] = path
    return written


def submit(plan: Plan) -> Submission:
    """Hand all jobs of a plan to Slurm; where one is refused, those taken before are taken back.

    Jobs wait until the last has been taken, and until the note of them lies beside the results.

    Raises
    ------
    LaunchError
        Slurm refuses, with its own words; or an earlier submission has not ended.
    """
    results = plan.places.results
    earlier = read_submission(results)
    if earlier is not None:
        _refuse_while_queued(earlier, results)
    ranks = {*plan.sweep.section.ranks, *(earlier.ranks if earlier else ())}
    taken: list[SubmittedJob] = []
    try:
        for job, script in write_scripts(plan).items():
            number = queue.submit(script)
            taken.append(
                SubmittedJob(id=number, name=job.name, script=str(script), n_ranks=job.n_ranks, tasks=job.tasks)
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        submission = Submission(submitted_utc=now, ranks=tuple(sorted(ranks)), jobs=tuple(taken))
        _write(submission, results)
    except BaseException:
        _take_back(taken)
        raise
    try:
        queue.release([job.id for job in taken])
    except BaseException:
        _take_back(taken)
        _put_back(earlier, results)
        raise
    return submission


def _refuse_while_queued(earlier: Submission, results: Path) -> None:
    """Let no two jobs run the same points: each would write the files of the other."""
    standing = queue.states(job.id for job in earlier.jobs)
    if busy := sorted({state.job.split("_")[0] for state in standing if not state.over}, key=int):
        raise LaunchError(
            f"{results}: jobs {', '.join(busy)} of this sweep are still in the queue; "
            f"hpcrnn slurm collect says how they stand, scancel {' '.join(busy)} ends them"
        )


def _take_back(taken: Sequence[SubmittedJob]) -> None:
    try:
        queue.cancel([job.id for job in taken])
    except LaunchError as error:
        numbers = " ".join(job.id for job in taken)
        sys.stderr.write(f"hpcrnn: warning: held jobs could not be taken back ({error}): scancel {numbers}\n")


def _put_back(earlier: Submission | None, results: Path) -> None:
    """Restore the note of the submission before: of the one that failed there is nothing left."""
    if earlier is not None:
        _write(earlier, results)
    else:
        (results / FILE_NAME).unlink(missing_ok=True)


def read_submission(results: Path) -> Submission | None:
    """Return the last submission of a sweep; None where there was none.

    Raises
    ------
    FileError
        The note of it cannot be read.
    """
    path = results / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Submission)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"{path}: cannot be read as the note of a submission: {reason}") from None


def _write(submission: Submission, results: Path) -> None:
    path = results / FILE_NAME
    try:
        write_whole(path, msgspec.json.format(msgspec.json.encode(submission), indent=1) + b"\n", overwrite=True)
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from None
