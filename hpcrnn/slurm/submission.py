"""Handing a sweep to Slurm: all of its jobs or none, and what was handed over, kept beside the results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hpcrnn.errors import FileError, LaunchError, SpecError
from hpcrnn.records.whole_file import unusable, write_whole
from hpcrnn.slurm import queue
from hpcrnn.slurm.jobs import Job
from hpcrnn.slurm.script import Places, render
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
    """What ``submission.json`` holds: the last submission of a sweep."""

    submitted_utc: str
    jobs: tuple[SubmittedJob, ...]


def check_fits(jobs: Sequence[Job], site: Site) -> None:
    """Refuse jobs that the partition could never start.

    Raises
    ------
    SpecError
        There is no such partition, it has too few nodes, or its nodes have too few cores.
    LaunchError
        Slurm does not answer.
    """
    there = {p.name: p for p in queue.partitions()}
    asked = site.queue.partition
    partition = there.get(asked) if asked else next((p for p in there.values() if p.is_default), None)
    if partition is None:
        raise SpecError(
            "queue.partition", asked, f"one of {', '.join(sorted(there)) or 'none: Slurm has no partition'}"
        )
    for job in jobs:
        if job.n_nodes > partition.n_nodes:
            has = f"partition {partition.name} has {partition.n_nodes} nodes of node.ranks = {site.node.ranks}"
            raise SpecError("sweep.ranks", job.n_ranks, f"at most {partition.n_nodes * site.node.ranks}: {has}")
        cores = job.ranks_per_node * site.node.cpus_per_rank
        if cores > partition.cpus_per_node:
            has = f"nodes of partition {partition.name} have {partition.cpus_per_node} CPUs"
            wanted = f"{site.node.ranks} x {site.node.cpus_per_rank}"
            raise SpecError("node.ranks x node.cpus_per_rank", wanted, f"at most {partition.cpus_per_node}: {has}")


def write_scripts(jobs: Sequence[Job], site: Site, places: Places) -> dict[Job, Path]:
    """Write the script of each job into the folder of the results."""
    written = {}
    for job in jobs:
        path = places.results / "jobs" / f"{job.name}.sbatch"
        try:
            write_whole(path, render(job, site, places).encode(), overwrite=True)
        except OSError as error:
            raise unusable(path, error.strerror or str(error)) from None
        written[job] = path
    return written


def submit(jobs: Sequence[Job], site: Site, places: Places) -> Submission:
    """Hand all jobs to Slurm; where one is refused, those taken before are taken back.

    Jobs wait until the last has been taken, and until the note of them lies beside the results.

    Raises
    ------
    LaunchError
        Slurm refuses, with its own words; or an earlier submission has not ended.
    """
    earlier = read_submission(places.results)
    if earlier and (
        busy := sorted({s.job.split("_")[0] for s in queue.states(j.id for j in earlier.jobs) if not s.over})
    ):
        raise LaunchError(
            f"{places.results}: jobs {', '.join(busy)} of this sweep are still in the queue; "
            f"hpcrnn slurm collect says how they stand, scancel {' '.join(busy)} ends them"
        )
    taken: list[SubmittedJob] = []
    try:
        for job, script in write_scripts(jobs, site, places).items():
            number = queue.submit(script)
            taken.append(
                SubmittedJob(id=number, name=job.name, script=str(script), n_ranks=job.n_ranks, tasks=job.tasks)
            )
        submission = Submission(submitted_utc=datetime.now(UTC).isoformat(timespec="seconds"), jobs=tuple(taken))
        _write(submission, places.results)
        queue.release([job.id for job in taken])
    except BaseException:
        with suppress(LaunchError):
            queue.cancel([job.id for job in taken])
        raise
    return submission


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
