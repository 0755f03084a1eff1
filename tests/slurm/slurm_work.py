"""Using a cluster as its users do: ``hpcrnn slurm``, ``sbatch`` and ``scontrol`` in a folder of one's own."""

import contextlib
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster
from slurm_samples import SWEEP, write_project

from hpcrnn.execution.farewell import drop_shared_memory

SITE = """
[queue]
exclusive = {exclusive}
time = "00:10:00"
{queue}
[node]
ranks = 2
[launch]
command = {command}
setup = ["export PATH={bin}:$PATH"]
variables = {{ OMP_NUM_THREADS = "1" }}
"""

SRUN = '["srun", "--mpi=pmi2", "--cpu-bind=cores", "-n", "{ranks}"]'
MPIRUN = '["mpirun", "-n", "{ranks}"]'
BIN = Path(sys.executable).parent

ENDLESS = (
    SWEEP.replace("ranks = [1, 2, 4]", "ranks = [2]")
    .replace("min_repeats = 2", "min_repeats = 1")
    .replace("max_repeats = 4", "max_repeats = 1000000\nci_width = 1e-9")
    .replace("max_time = 5", "max_time = 300")
)
"""Two points that measure until they are told to end."""


@dataclass
class Work:
    """A folder on a cluster.

    Attributes
    ----------
    cluster : Cluster
    folder : Path
    """

    cluster: Cluster
    folder: Path

    def write(self, sweep=SWEEP, *, command=SRUN, queue="", exclusive="false", site=None):
        write_project(
            self.folder, sweep, site or SITE.format(command=command, queue=queue, exclusive=exclusive, bin=BIN)
        )

    def command(self, *words, **variables):
        timeout = variables.pop("timeout", 90)
        paths = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
        if paths:
            variables.setdefault("PYTHONPATH", os.pathsep.join(str(Path(part).resolve()) for part in paths))
        path = f"{BIN}:{os.environ['PATH']}"
        return self.cluster.command(*words, cwd=self.folder, timeout=timeout, **{"PATH": path, **variables})

    def slurm(self, action, *flags, **variables):
        """Run ``hpcrnn slurm ACTION tiny.toml``."""
        words = [sys.executable, "-m", "hpcrnn", "slurm", action, "tiny.toml", "--site", "site.toml", *flags]
        return self.command(*words, **variables)

    def submit(self, *flags):
        """Submit the sweep; returns the numbers of the jobs."""
        done = self.slurm("submit", *flags)
        assert done.returncode == 0, done.stderr
        return re.findall(r"^submitted: (\d+) ", done.stdout, re.MULTILINE)

    def sbatch(self, *words, **variables):
        """Submit a script; returns the number of the job."""
        done = self.command("sbatch", "--parsable", *words, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job):
        found = self.command("scontrol", "show", "job", "-o", job).stdout
        return re.search(r"JobState=(\w+)", found)[1] if found else "GONE"

    def log(self, pattern="results/tiny/*.out"):
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob(pattern)))

    def wait_for(self, condition, what, limit_s=60.0):
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                queued = self.command("squeue").stdout
                raise TimeoutError(f"{what}\n{queued}\n{self.log()}\n{self.log('*.out')}")
            time.sleep(0.1)

    def wait_for_log(self, words, count=1):
        self.wait_for(lambda: self.log().count(words) >= count, f"{count} x {words!r}")

    def wait_for_state(self, job, *words, limit_s=60.0):
        self.wait_for(lambda: self.state(job) in words, f"job {job} to be {' or '.join(words)}", limit_s)

    def warn(self, job):
        """Send what ``--signal=B:USR1`` sends, to the script alone."""
        assert self.command("scancel", "--batch", "--signal=USR1", job).returncode == 0

    def start_again(self, job):
        """Let a job that was queued again start soon; Slurm waits for two minutes.

        Not within the same second: its node would take it for the one it was just told to end.
        """
        self.wait_for_state(job, "PENDING")
        assert self.command("scontrol", "update", f"jobid={job}", "starttime=now+2").returncode == 0

    def lose_node(self, node, job):
        """Let a node go as in a power cut: its daemon, what it ran, and what the controller then makes of it."""
        self.cluster.stop_node(node)
        ours = f"SLURM_CONF={self.cluster.folder}/slurm.conf".encode()
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                words = (process / "environ").read_bytes().split(b"\0")
                title = (process / "cmdline").read_bytes()
            except OSError:
                continue
            step = title.startswith(f"slurmstepd: [{job}.".encode())
            if ours in words and (step or f"SLURM_JOB_ID={job}".encode() in words):
                drop_shared_memory(process / "maps")  # which a power cut empties
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
        self.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def end(self):
        self.command("scancel", "--full", "--me")
        self.wait_for(lambda: not self.command("squeue", "-h").stdout.strip(), "the queue to be empty")
