"""Sweeps and sites in small, and stand-ins for Slurm's commands."""

import stat
from dataclasses import dataclass, replace
from pathlib import Path

from reporting.factory import make_case, make_record

from hpcrnn.records.hdf5 import write_record

SWEEP = """
[sweep]
name = "tiny"
ranks = [1, 2, 4]
vary = { cell = ["lstm", "gru"] }
[model]
hidden = 8
[problem]
batch = 8
seq = 8
[measure]
warmup = 1
min_repeats = 2
max_repeats = 4
max_time = 5
ceilings = false
"""

SITE = """
[node]
ranks = 2
"""

PARTITIONS = "main|main*|2|4|4|1\\nlarge|large|8|256|2|64\\n"

_SBATCH = """
echo "sbatch $*" >> "$calls"
n=$(($(cat "$here/number") + 1))
echo $n > "$here/number"
{special}
echo "{answer}"
"""

_SCONTROL = """
echo "scontrol $*" >> "$calls"
case "$1 $2" in
    "show config") echo "MaxArraySize            = $(cat "$here/most_tasks")" ;;
    "show job")
        if [ -e "$here/job-$4" ]; then cat "$here/job-$4"
        else echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; fi ;;
    "release "*) {release} ;;
esac
"""


@dataclass(frozen=True)
class FakeSlurm:
    """Programs on PATH that answer as Slurm's do, and keep what they were asked."""

    folder: Path

    def program(self, name, body):
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nhere="{self.folder}"\ncalls="$here/calls"\n{body}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def install(self, *, partitions=PARTITIONS, special=":", answer="$n", most_tasks=1001, release=":"):
        (self.folder / "number").write_text("16")
        (self.folder / "most_tasks").write_text(str(most_tasks))
        self.program("sinfo", f'echo "sinfo $*" >> "$calls"; printf "{partitions}"')
        self.program("sbatch", _SBATCH.format(special=special, answer=answer))
        self.program("scontrol", _SCONTROL.format(release=release))
        self.program("scancel", 'echo "scancel $*" >> "$calls"')
        self.program("sacct", 'echo "Slurm accounting storage is disabled" >&2; exit 1')

    def job(self, number, *lines):
        """Let ``scontrol show job`` know a job."""
        (self.folder / f"job-{number}").write_text("".join(f"{line}\n" for line in lines))

    def calls(self, name=""):
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(name)]


def state_line(number, word, *, reason="None", code="0:0", task=None, more=""):
    """A line of ``scontrol show job -o``."""
    array = f"ArrayJobId={number} ArrayTaskId={task} " if task is not None else ""
    return (
        f"JobId={number} {array}JobName=hpcrnn-tiny-n1 UserId=me(1) JobState={word} Reason={reason} "
        f"Dependency=(null) ExitCode={code} TimeLimit=00:30:00 {more}"
    )


def write_project(folder, sweep=SWEEP, site=SITE):
    """Put a sweep and a site into a folder; returns both."""
    (folder / "tiny.toml").write_text(sweep)
    (folder / "site.toml").write_text(site)
    return folder / "tiny.toml", folder / "site.toml"


def write_done(point, n_steps=3, stop_reason="max_repeats", valid=True, gradient_error=None):
    """Write the result file of a point, as if it had been run."""
    shape = {"batch": point.spec.problem.batch, "n": n_steps, "n_warmup": 1, "hidden": 8}
    case = make_case(1, valid=valid, gradient_error=gradient_error, **shape)
    seed = int(point.name.rpartition("-")[2], 16)  # a run of its own
    record = make_record([replace(case, stop_reason=stop_reason)], source=str(point.path), seed=seed)
    write_record(record, point.path, overwrite=True)
