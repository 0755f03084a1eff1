"""What a submission would be: the sweep, the machine, the jobs and their scripts, before anything is handed over."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from hpcrnn.benchmarks.sweep import Sweep, load_sweep
from hpcrnn.errors import FileError
from hpcrnn.slurm.jobs import Job, Shape, jobs_of
from hpcrnn.slurm.script import Places, render
from hpcrnn.slurm.site import Site, load_site


@dataclass(frozen=True)
class Plan:
    """A sweep as jobs of a site.

    Attributes
    ----------
    sweep : Sweep
    site : Site
    places : Places
    jobs : tuple of Job
        Of what is not done yet.
    """

    sweep: Sweep
    site: Site
    places: Places
    jobs: tuple[Job, ...]

    def text(self) -> str:
        """All scripts, each below its name."""
        return "\n".join(f"# {job.name}.sbatch\n{render(job, self.site, self.places)}" for job in self.jobs)


def make_plan(spec: Path, site_file: Path, output: Path | None, shape: Shape, ranks: tuple[int, ...] = ()) -> Plan:
    """Read a sweep and a site, and say which jobs they make.

    Parameters
    ----------
    spec, site_file : Path
    output : Path or None
        Folder of the results; ``results/NAME`` by default.
    shape : {"jobs", "array"}
    ranks : tuple of int
        Instead of those the sweep names.

    Raises
    ------
    HpcrnnError
        A file, a key of it or a point is not right.
    """
    site = load_site(site_file)
    sweep = load_sweep(spec, output, ranks=ranks, launcher=site.launch.command)
    for path in (spec, site_file, sweep.folder):
        if any(character in str(path) for character in "\n\r\0"):
            message = f"{str(path)!r}: a script cannot name a path that holds the end of a line"
            raise FileError(message)
    if any(character in str(sweep.folder) for character in "\"'\\#"):
        message = f"{str(sweep.folder)!r}: sbatch cannot name a log in a folder whose name holds a quote, \\ or #"
        raise FileError(message)
    places = Places(program(), spec, site_file, sweep.folder)
    return Plan(sweep, site, places, jobs_of(sweep, site.node, shape))


def program() -> str:
    """How a job calls ``hpcrnn``: by its name where that is this one, else by its path."""
    beside = Path(sys.executable).parent / "hpcrnn"
    found = shutil.which("hpcrnn")
    if found is None or Path(found).resolve() != beside.resolve():
        return str(beside)
    return "hpcrnn"
