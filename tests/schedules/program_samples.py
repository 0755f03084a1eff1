"""Small networks, their programs, and how to check them."""

from dataclasses import replace
from typing import NamedTuple

from hypothesis import settings

from hpcrnn.model.network import Network, build_network
from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.lowering import build_programs
from hpcrnn.schedules.placement import Placement
from hpcrnn.schedules.program import Program
from hpcrnn.schedules.validation import validate
from hpcrnn.spec import build_spec
from hpcrnn.workloads import Interface

fixed_examples = settings(derandomize=True, deadline=None, max_examples=60)


def token_network(layers=2):
    """Blocks ``input``, ``layer0``, ..., ``head``, each with parameters; no two of the same size."""
    spec = build_spec({}, {"cell": "elman", "hidden": 5, "embed": 3, "layers": layers})
    return build_network(spec, Interface("tokens", 7, "cross_entropy", 7))


def bare_network():
    """Blocks ``layer0``, ``head``; the head has no parameters."""
    spec = build_spec({}, {"cell": "lstm", "hidden": 2, "layers": 1, "input": "direct", "workload": "synthetic"})
    return build_network(spec, Interface("features", 3, "linear", 2))


class Built(NamedTuple):
    """Programs of all ranks, and what a validator needs to judge them."""

    network: Network
    graph: TaskGraph
    programs: tuple[Program, ...]
    update: bool

    @property
    def sizes(self):
        return [4 * block.n_parameters for block in self.network.blocks]

    def check(self, programs=None):
        validate(programs or self.programs, self.graph, self.sizes, update=self.update)

    def with_rank(self, rank, instructions):
        """The programs with one rank's instructions replaced."""
        changed = list(self.programs)
        changed[rank] = replace(changed[rank], instructions=tuple(instructions))
        return changed

    def with_all(self, change):
        """The programs with every rank's instructions changed by a function."""
        return [replace(p, instructions=tuple(change(list(p.instructions)))) for p in self.programs]


def build(network=None, ranks=1, microbatches=1, chunks=1, mode="train", allreduce="bucketed"):
    network = network or token_network()
    graph, programs = build_programs(
        network,
        Placement(ranks),
        n_microbatches=microbatches,
        n_chunks=chunks,
        mode=mode,
        allreduce=allreduce,
    )
    return Built(network, graph, programs, mode == "train")
