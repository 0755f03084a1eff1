"""From a specification to executors: network, placement, validated programs, engines."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from hpcrnn.backends.base import Extent
from hpcrnn.backends.registry import make_engine
from hpcrnn.errors import SpecError
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.transport import Communicator, Transport
from hpcrnn.model.network import Network, build_network, initial_parameters
from hpcrnn.schedules.lowering import build_programs
from hpcrnn.schedules.placement import Placement, split
from hpcrnn.schedules.program import Program
from hpcrnn.schedules.validation import validate
from hpcrnn.spec import BackendName, RunSpec
from hpcrnn.workloads import Workload


@dataclass(frozen=True)
class Plan:
    """A problem and one way to split it: everything but arrays.

    Attributes
    ----------
    spec : RunSpec
    network : Network
    placement : Placement
    programs : tuple of Program
        Validated; one a rank.
    """

    spec: RunSpec
    network: Network
    placement: Placement
    programs: tuple[Program, ...]

    def rows(self, rank: int) -> slice:
        """Rows of the global batch that a rank works on."""
        return self.placement.rows(self.spec.problem.batch, rank)

    def extent(self, rank: int) -> Extent:
        """What a rank's engine works on."""
        problem, parallel = self.spec.problem, self.spec.parallel
        rows = self.rows(rank)
        return Extent(
            steps=problem.seq,
            microbatches=split(rows.stop - rows.start, parallel.microbatches),
            chunks=split(problem.seq, parallel.chunks),
            scale=1.0 / (problem.seq * problem.batch),
            mode=self.spec.training.mode,
        )

    def executor(self, rank: int, backend: BackendName, communicator: Communicator) -> Executor:
        """Build a rank's engine with its initial parameters, and bind its program to it."""
        engine = make_engine(backend, self.network, self.extent(rank), self.spec)
        engine.load_parameters(initial_parameters(self.network, self.spec.problem.seed))
        return Executor(self.programs[rank], engine, Transport(communicator))

    def flops(self) -> float:
        """Operations of a step, all ranks together."""
        backward = self.spec.training.mode != "forward"
        return self.network.flops(self.spec.problem.seq, self.spec.problem.batch, backward=backward)

    def memory_bytes(self, rank: int) -> int:
        """Estimate of what a rank allocates."""
        rows = self.rows(rank)
        return self.network.memory_bytes(self.spec.problem.seq, rows.stop - rows.start)


def make_plan(spec: RunSpec, workload: Workload, n_replicas: int) -> Plan:
    """Lay out a problem over replicas and build the validated program of every rank."""
    network = build_network(spec, workload.interface)
    placement = Placement(n_replicas)
    graph, programs = build_programs(
        network,
        placement,
        n_microbatches=spec.parallel.microbatches,
        n_chunks=spec.parallel.chunks,
        mode=spec.training.mode,
        allreduce=spec.parallel.allreduce,
    )
    itemsize = np.dtype(network.dtype).itemsize
    sizes = [block.n_parameters * itemsize for block in network.blocks]
    validate(programs, graph, sizes, update=spec.training.mode == "train")
    return Plan(spec, network, placement, programs)


def check_memory(plan: Plan, n_variants: int, local_ranks: int) -> None:
    """Refuse a problem that this node's memory cannot hold, before allocating any of it.

    Raises
    ------
    SpecError
        With the estimate and what there is.
    """
    needed = plan.memory_bytes(0) * n_variants * local_ranks
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        problem = plan.spec.problem
        raise SpecError(
            "problem.batch",
            problem.batch,
            f"what fits this node's {there / 2**30:.1f} GiB; with seq = {problem.seq}, hidden = "
            f"{plan.spec.model.hidden} and layers = {plan.spec.model.layers} this needs about {needed / 2**30:.3g} GiB",
        )
