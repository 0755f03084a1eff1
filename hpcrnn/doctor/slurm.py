"""Slurm: its partitions and nodes, and whether this is a job already."""

from __future__ import annotations

import os
import shutil

from hpcrnn.doctor.asking import ask
from hpcrnn.doctor.finding import Finding
from hpcrnn.doctor.ranks import not_set_up

_SHOWN = 4
"""Partitions that are named; a large site has dozens."""


def slurm() -> list[Finding]:
    """Say what of Slurm is up."""
    if shutil.which("sinfo") is None:
        if "SLURM_JOB_ID" in os.environ:
            text = f"this is job {os.environ['SLURM_JOB_ID']}, and its commands are not on PATH"
            return [Finding("Slurm", "note", text, "export PATH=$PATH:/path/of/slurm/bin")]
        return [Finding("Slurm", "note", "not here: use mpirun")]
    listed = ask(["sinfo", "--noheader", "--format=%R|%a|%F"])
    if listed.code != 0:
        return [Finding("Slurm", "note", f"installed, and it does not answer: {listed.last_line}", not_set_up(listed))]
    version = ask(["sinfo", "--version"]).last_line
    lines = [line.strip().split("|") for line in listed.out.splitlines()]
    partitions = [_Partition(*fields) for fields in lines if len(fields) == 3]
    there = f"{version}; {_named(partitions)}; {_here()}"
    if not any(partition.is_of_use for partition in partitions):
        return [
            Finding("Slurm", "note", there, "sinfo --list-reasons says why; scontrol update NodeName=... State=RESUME")
        ]
    return [Finding("Slurm", "ok", there)]


class _Partition:
    """A line of ``sinfo``.

    Parameters
    ----------
    name : str
    state : str
        ``up``, or why nothing starts there.
    counts : str
        Nodes: ``allocated/idle/other/total``.
    """

    def __init__(self, name: str, state: str, counts: str) -> None:
        self.name, self.state = name, state
        self._allocated, self._idle, _, self._total = (counts.split("/") + ["?"] * 4)[:4]

    @property
    def is_of_use(self) -> bool:
        """Whether a job that is submitted will start some day."""
        return self.state == "up" and (self._allocated, self._idle) != ("0", "0")

    def __str__(self) -> str:
        return f"{self.name} {self.state}, {self._idle} of {self._total} nodes idle"


def _named(partitions: list[_Partition]) -> str:
    if not partitions:
        return "no partition for you"
    shown = "; ".join(map(str, sorted(partitions, key=lambda one: not one.is_of_use)[:_SHOWN]))
    more = f"; {len(partitions) - _SHOWN} more" if len(partitions) > _SHOWN else ""
    return f"partition{'s' if len(partitions) > 1 else ''} {shown}{more}"


def _here() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "no allocation here"
    tasks, nodes = os.environ.get("SLURM_NTASKS"), os.environ.get("SLURM_JOB_NUM_NODES")
    size = [f"{count} {what}(s)" for count, what in ((tasks, "task"), (nodes, "node")) if count]
    return f"inside job {job}{' of ' + ' on '.join(size) if size else ''}"
