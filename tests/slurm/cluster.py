"""A Slurm cluster of two nodes on this machine: munge, slurmctld and two slurmd in one folder, on ports of their own.

Works for root and for any other user (Slurm then runs jobs of that user alone), and beside a Slurm that is already
there: the daemons have their own configuration, key, sockets and ports.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo")
STARTS_IN_S = 30.0
CPUS = 4
"""Of each node, as Slurm sees it; the cores behind them are shared."""


def missing() -> list[str]:
    """Return the programs of Slurm and munge that are not installed."""
    return [name for name in NEEDED if program(name) is None]


def program(name: str) -> str | None:
    """Find a program, daemons too, which lie where not every user looks."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


@dataclass
class Cluster:
    """Two nodes, ``n1`` and ``n2``, in one partition ``main``.

    Attributes
    ----------
    folder : Path
        Of everything it writes. Its name must be short: sockets lie in it.
    gpus : int
        Devices of each node that Slurm takes for GPUs; needs root.
    """

    folder: Path
    gpus: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment, with this cluster the one that Slurm's commands speak to."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return outside | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start all daemons; returns when both nodes are idle."""
        for name in ("state", "spool-n1", "spool-n2", "log"):
            (self.folder / name).mkdir(parents=True)
        self._start_munge()
        self._configure()
        self._daemon("slurmctld", program("slurmctld"), "-D")
        for node in ("n1", "n2"):
            self.start_node(node)
        self._wait_for(lambda: self._idle() == 2, "both nodes to be idle")

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._daemon(node, program("slurmd"), "-D", "-N", node)

    def stop_node(self, node: str) -> None:
        """Kill the daemon of a node, as a power cut does."""
        process = self.processes.pop(node)
        process.kill()
        process.wait(timeout=10)

    def stop(self) -> None:
        """End all jobs and daemons."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.command("scancel", "--full", f"--user={getpass.getuser()}", timeout=10)
            self._wait_for(lambda: not self.command("squeue", "-h", timeout=10).stdout.strip(), "jobs to end")
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)
        self.processes.clear()

    def command(
        self, *words: object, timeout: float = 60.0, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this cluster's environment; its exit code is the caller's business."""
        return subprocess.run(
            [str(word) for word in words],
            env=self.environment | variables,
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def wait_for_jobs(self, *jobs: object, timeout: float = 120.0) -> None:
        """Wait until jobs have left the queue."""
        listed = ",".join(str(job) for job in jobs)
        self._wait_for(lambda: not self._queued(listed), f"jobs {listed} to end", timeout)

    def _queued(self, listed: str) -> bool:
        found = self.command("squeue", "-h", "-o", "%i", "-j", listed)
        return bool(found.returncode == 0 and found.stdout.strip())

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = {"key-file": key, "socket": self.folder / "munge.socket", "seed-file": self.folder / "munge.seed"}
        names |= {"pid-file": self.folder / "munge.pid", "log-file": self.folder / "log" / "munge.log"}
        flags = [f"--{name}={path}" for name, path in names.items()]
        # Who may write above the folder is the machine's business: /tmp is enough for a test.
        self._daemon("munged", program("munged"), "--foreground", "--force", *flags)
        self._wait_for((self.folder / "munge.socket").exists, "munge")

    def _configure(self) -> None:
        host, user, (controller, *ports) = socket.gethostname().split(".")[0], getpass.getuser(), _free_ports(3)
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            # MPI names its shared memory by job and step: numbers of clusters of one machine must differ.
            f"FirstJobId={1 + int.from_bytes(os.urandom(3))}",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.folder}/munge.socket",
            "CryptoType=crypto/munge",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1",
            "MpiDefault=pmi2",
            "ReturnToService=2",
            "EnforcePartLimits=ALL",
            "SlurmdParameters=config_overrides",
            "InactiveLimit=0",
            "KillWait=5",
            "MinJobAge=300",
            "Waittime=0",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={self.folder}/log/slurmctld.log",
            f"SlurmdLogFile={self.folder}/log/slurmd-%n.log",
        ]
        gres = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        if self.gpus:
            lines.append("GresTypes=gpu")
            devices = [self._fake_gpu(index) for index in range(self.gpus)]
            entries = [f"NodeName=n1,n2 Name=gpu File={device}" for device in devices]
            (self.folder / "gres.conf").write_text("\n".join(entries) + "\n", encoding="utf-8")
        for node, port in zip(("n1", "n2"), ports, strict=True):
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS}{gres}")
        lines.append("PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP")
        lines.append("PartitionName=short Nodes=n1 MaxTime=5 State=UP")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _fake_gpu(self, index: int) -> Path:
        """Make what Slurm takes for a GPU: a character device, in truth /dev/null."""
        device = self.folder / f"gpu{index}"
        os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
        return device

    def _daemon(self, name: str, path: str | None, *flags: str) -> None:
        if path is None:
            raise FileNotFoundError(name)
        log = (self.folder / "log" / f"{name}.out").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                [path, *flags],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _idle(self) -> int:
        return self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%T", timeout=20).stdout.split().count("idle")

    def _wait_for(self, condition, what: str, limit_s: float = STARTS_IN_S) -> None:
        """Ask until it holds; a daemon that died, or the time that is up, ends it with what the logs say."""
        end = time.monotonic() + limit_s
        while not condition():
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "\n".join(
                    f"== {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in (self.folder / "log").iterdir()
                )
                cause = f"{', '.join(dead)} ended" if dead else f"not within {limit_s:g} s"
                message = f"waiting for {what}: {cause}\n{logs}"
                raise TimeoutError(message)
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    """Return ports nobody listens on; held until all are found, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
