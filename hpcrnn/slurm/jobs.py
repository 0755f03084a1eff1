"""Which jobs a sweep becomes: points on the same number of ranks share one, as a Slurm job has one size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hpcrnn.benchmarks.sweep import Point, Sweep
from hpcrnn.errors import SpecError
from hpcrnn.slurm.site import NodeSection

Shape = Literal["jobs", "array"]
"""``jobs``: a job for each number of ranks, its points one after another; ``array``: a task for each point."""


@dataclass(frozen=True)
class Job:
    """What is asked of Slurm at once.

    Attributes
    ----------
    name : str
        ``NAME-n8``: the sweep and the ranks.
    n_ranks, n_nodes : int
    ranks_per_node : int
        On the fullest node.
    tasks : tuple of int
        Of an array: numbers of the points among those of as many ranks, from 0. Empty where it is no array.
    """

    name: str
    n_ranks: int
    n_nodes: int
    ranks_per_node: int
    tasks: tuple[int, ...] = ()


def jobs_of(sweep: Sweep, node: NodeSection, shape: Shape) -> tuple[Job, ...]:
    """Return the jobs that run what is left of a sweep, smallest first.

    Parameters
    ----------
    sweep : Sweep
    node : NodeSection
    shape : {"jobs", "array"}

    Raises
    ------
    SpecError
        A point wants more threads a rank than the site gives cores.
    """
    for point in sweep.points:
        threads = point.spec.machine.threads
        if threads > node.cpus_per_rank:
            allowed = f"at most node.cpus_per_rank = {node.cpus_per_rank} of the site file"
            raise SpecError("machine.threads", threads, allowed)
    jobs = []
    for n_ranks in sorted({point.ranks for point in sweep.points}):
        todo = [k for k, point in enumerate(on_ranks(sweep.points, n_ranks)) if not point.is_done()]
        if todo:
            n_nodes = math.ceil(n_ranks / node.ranks)
            per_node = math.ceil(n_ranks / n_nodes)
            tasks = tuple(todo) if shape == "array" else ()
            jobs.append(Job(f"{sweep.section.name}-n{n_ranks}", n_ranks, n_nodes, per_node, tasks))
    return tuple(jobs)


def on_ranks(points: Iterable[Point], n_ranks: int) -> list[Point]:
    """Return the points on so many ranks, in the order of the sweep: what ``--ranks N --point K`` counts in."""
    return [point for point in points if point.ranks == n_ranks]
