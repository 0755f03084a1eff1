"""A job as the script that ``sbatch`` is given: short, and readable by whoever knows Slurm and not us."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hpcrnn.slurm.jobs import Job
from hpcrnn.slurm.site import Site


@dataclass(frozen=True)
class Places:
    """What a script names.

    Attributes
    ----------
    program : str
        How ``hpcrnn`` is called.
    spec, site, results : Path
        The sweep file, the site file, the folder of the results; relative to where the job is submitted.
    """

    program: str
    spec: Path
    site: Path
    results: Path


def render(job: Job, site: Site, places: Places) -> str:
    """Write the script of a job.

    It becomes the sweep itself (``exec``), so that the signal Slurm sends before the time is up reaches it: the point
    that runs then ends early, with what it has measured, and the job goes back into the queue for the rest.
    """
    queue, node = site.queue, site.node
    flags = {
        "--job-name": f"hpcrnn-{job.name}",
        "--account": queue.account,
        "--partition": queue.partition,
        "--qos": queue.qos,
        "--constraint": queue.constraint,
        "--reservation": queue.reservation,
        "--nodes": job.n_nodes,
        "--ntasks": job.n_ranks,
        "--ntasks-per-node": job.ranks_per_node,
        "--cpus-per-task": node.cpus_per_rank,
        "--gpus-per-node": node.gpus or None,
        "--hint": node.hint,
        "--time": queue.time,
        "--array": spans(job.tasks) or None,
        "--signal": f"B:USR1@{queue.warn_s}",
        "--output": _log_name(places.results, "%x-%A_%a.out" if job.tasks else "%x-%j.out"),
    }
    words = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
    words += [*(["--exclusive"] if queue.exclusive else []), "--requeue", "--open-mode=append", *queue.flags]
    command = [places.program, "sweep", str(places.spec), "-o", str(places.results), "--site", str(places.site)]
    command += ["--ranks", str(job.n_ranks)]
    point = ' --point "$SLURM_ARRAY_TASK_ID"' if job.tasks else ""
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {word}" for word in words),
        "set -euo pipefail",
        *setup_lines(site),
        'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # srun does not inherit it',
        f"exec {shlex.join(command)}{point} --requeue",
    ]
    return "\n".join(lines) + "\n"


def _log_name(folder: Path, pattern: str) -> str:
    """Name the log as ``#SBATCH`` wants it: in Slurm's quotes where need be, with only our own ``%`` of a meaning."""
    plain = f"{folder}".replace("%", "%%") + f"/{pattern}"
    return plain if re.fullmatch(r"[A-Za-z0-9_.,:%+@=/-]+", plain) else f'"{plain}"'


def setup_lines(site: Site) -> list[str]:
    """Return the shell lines that make a node ready: modules, then variables."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in site.launch.variables.items()]
    return [*site.launch.setup, *exports]


def spans(numbers: Sequence[int]) -> str:
    """Write ascending numbers as Slurm does: ``0-3,8``."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
