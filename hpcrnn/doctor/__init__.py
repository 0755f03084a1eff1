"""What this machine can run, and what is wrong with it: each finding with the line that mends it.

========  ===================================================================
room      holds
========  ===================================================================
finding   what a finding is, how it is written
asking    programs started with a time limit, and the end of all they started
host      Python, cores, memory, BLAS, files
ranks     the MPI library; what ``mpirun`` and ``srun`` make of two ranks
devices   GPUs, and whether MPI takes their memory
slurm     partitions, nodes, and the way into a job
========  ===================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hpcrnn.doctor import devices, host, ranks, slurm
from hpcrnn.doctor.finding import Finding, render

__all__ = ["Finding", "examine", "render"]

CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    host.python,
    host.cores,
    host.memory,
    ranks.ranks,
    slurm.slurm,
    host.blas,
    host.packed_products,
    host.torch_peer,
    devices.gpus,
    devices.mpi_and_gpus,
    host.hdf5,
    host.results,
)


def examine() -> list[Finding]:
    """Look at everything a run needs; nothing found raises. What waits for programs waits at the same time."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        found = list(pool.map(_safely, CHECKS))
    return [finding for findings in found for finding in findings]


def _safely(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Run a check; that it cannot be run is a finding too."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a machine on which something is broken is what the doctor is for
        topic = check.__name__.replace("_", " ")
        return [Finding(topic, "problem", f"could not be looked at: {type(error).__name__}: {error}")]
