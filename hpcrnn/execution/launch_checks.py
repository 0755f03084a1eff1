"""Whether the ranks are the launch that was meant, asked before anything is timed.

Each rank says what it sees (:class:`RankFacts`); rank 0 compares. What cannot give right numbers is refused with the
line that mends it; what gives right numbers of a doubtful kind is a warning. A check is a function of facts alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpcrnn.errors import LaunchError
from hpcrnn.execution.launch_facts import COMPARED_VARIABLES, RankFacts, code_of_ranks, host_name, identity, rank_facts
from hpcrnn.execution.start import is_first, mpi_library
from hpcrnn.records.claim import Claim, Family, claim_of
from hpcrnn.records.host import ranges
from hpcrnn.records.mpi_library import MpiLibrary, how_to_start

if TYPE_CHECKING:
    from hpcrnn.execution.world import World


@dataclass(frozen=True)
class Checked:
    """A launch that was not refused.

    Attributes
    ----------
    warnings : tuple of str
    facts : dict
        For the record: ``claimed``, the number of ranks the launcher spoke of (None where it did not), ``code``, the
        digest of the sources that run, and ``warnings``.
    """

    warnings: tuple[str, ...]
    facts: dict[str, Any]


def check_launch(world: World, threads: int, expected: int | None) -> Checked:
    """Refuse a launch that is not what was meant; all ranks together.

    Parameters
    ----------
    world : World
    threads : int
        BLAS threads of each rank.
    expected : int or None
        Ranks that were asked for; where MPI has started just as many, what a launcher said does not count.

    Raises
    ------
    LaunchError
    """
    check_met(world, expected)
    mine = identity(code_of_ranks(world))
    facts = world.comm.gather(rank_facts(world, mine))
    claim = claim_of()
    problem, tell = "", False
    warnings: tuple[str, ...] = ()
    if facts is not None:
        overcommit = os.environ.get("SLURM_OVERCOMMIT") == "1"
        family = claim.family if claim else "other"
        problem = jobs_problem(facts) or binding_problem(facts, threads, family, overcommit=overcommit)
        warnings = (*alias_warnings(facts), *sharing_warnings(facts, threads))
        tell = len({rank.identity for rank in facts}) > 1
    problem, warnings, tell = world.comm.bcast((problem, warnings, tell))
    if tell:  # rare, so that only digests travel otherwise
        everyone = world.comm.allgather((host_name(), mine))
        problem = identity_problem([who for _, who in everyone], [host for host, _ in everyone])
    if problem:
        raise LaunchError(problem)
    return Checked(
        warnings, {"claimed": claim.size if claim else None, "code": mine["code"], "warnings": list(warnings)}
    )


def check_met(world: World, expected: int | None = None) -> None:
    """Refuse ranks that never met: each runs alone, in the belief that it is all there is.

    Raises
    ------
    LaunchError
        Told by the first of them only; the others end in silence.
    """
    claim = claim_of()
    problem = met_problem(claim, world.size, expected, mpi_library(), os.environ)
    if world.size > 1:  # what they were told may differ
        problem = next(filter(None, world.comm.allgather(problem)), "")
        claim = None  # and they do know of one another
    if problem:
        raise LaunchError(problem, told=is_first(claim))


def met_problem(
    claim: Claim | None, n_ranks: int, expected: int | None, library: MpiLibrary, variables: Mapping[str, str]
) -> str:
    """Say what is wrong where MPI has another number of ranks than its launcher started.

    Parameters
    ----------
    claim : Claim or None
    n_ranks : int
        As MPI has them.
    expected : int or None
        As the user has them: whoever expects one rank may start as many of these as they like.
    library : MpiLibrary
    variables : mapping
        The environment.
    """
    if claim is None or n_ranks in (claim.size, expected):
        return ""
    # The parts of a heterogeneous job are counted each for itself.
    if n_ranks > 1 and claim.family == "srun" and "SLURM_HET_SIZE" in variables:
        return ""
    seen = "each believes to be alone" if n_ranks == 1 else f"MPI sees {n_ranks}"
    start = how_to_start(library, claim.size, variables, under_slurm=claim.family == "srun")
    return (
        f"{claim.launcher} started {claim.size} ranks and {seen}: mpi4py has loaded {library.name}; start with: {start}"
        f" (or say --expect-ranks {n_ranks} if that is meant)"
    )


_BINDING = {
    "srun": "srun --cpus-per-task={0} --cpu-bind=cores",
    "mpich": "mpirun -bind-to core:{0}",
    "openmpi": "mpirun --map-by slot:PE={0} --bind-to core",
    "other": "an option of the launcher, {0} core(s) a rank",
}
"""How a launcher gives each rank so many cores of its own."""


def jobs_problem(facts: Sequence[RankFacts]) -> str:
    """Say what is wrong where ranks were started by different launches, or see different lists of nodes."""
    views = {
        "are in different Slurm jobs": [rank.job[0] for rank in facts if rank.job[0]],
        "see different nodes in their Slurm job": [rank.job[1] for rank in facts if rank.job[1]],
    }
    for what, values in views.items():
        different = sorted(set(values))
        if len(different) > 1:
            return (
                f"ranks {what}: {' and '.join(different[:3])}; start all by one mpirun or srun, "
                "and leave no variables of another job in the environment"
            )
    return ""


def binding_problem(facts: Sequence[RankFacts], threads: int, family: Family, *, overcommit: bool = False) -> str:
    """Say what is wrong where ranks cannot have a core for each thread.

    Several threads of a rank need a core each. Ranks of one thread may share cores, which is right for tests and shown
    by the record: it is refused only where their launcher bound them to fewer cores than it has itself, for then others
    idle, and nobody asked for that.

    Parameters
    ----------
    facts : sequence of RankFacts
    threads : int
    family : Family
        Of the launcher.
    overcommit : bool
        Whether somebody did ask for it, as by ``srun --overcommit``.
    """
    for host, ranks in _by_machine(facts):
        crowds = _crowds(ranks, threads)
        if not crowds:
            continue
        cpus, n_inside = crowds[0]
        bound = f"{n_inside} rank(s) of {threads} thread{'s' if threads > 1 else ''} on {len(cpus)} core(s)"
        room = frozenset().union(*(rank.cpus | rank.launcher_cpus for rank in ranks))
        if threads * len(ranks) <= len(room) and not overcommit:
            return (
                f"{bound} of host {host}, bound to {ranges(sorted(cpus))} where {ranges(sorted(room))} could be had; "
                f"bind each to its own: {_BINDING[family].format(threads)}"
            )
        if threads > 1:
            most = max(1, len(cpus) // n_inside)
            return f"machine.threads = {threads}: {bound} of one node; allowed is at most {most}"
    return ""


def sharing_warnings(facts: Sequence[RankFacts], threads: int) -> tuple[str, ...]:
    """Say where ranks of one thread share cores; the first host of several."""
    if threads > 1:
        return ()
    crowded = [(host, crowds[0]) for host, ranks in _by_machine(facts) if (crowds := _crowds(ranks, threads))]
    if not crowded:
        return ()
    host, (cpus, n_inside) = crowded[0]
    more = f", and likewise on {len(crowded) - 1} more host(s)" if len(crowded) > 1 else ""
    crowd = f"{n_inside} ranks share {len(cpus)} core(s) of host {host}{more}"
    return (f"{crowd}: right for tests, not for timings; start no more ranks than cores",)


def alias_warnings(facts: Sequence[RankFacts]) -> tuple[str, ...]:
    """Say where what MPI takes for several nodes is one machine."""
    nodes: dict[str, dict[int, str]] = {}
    for rank in facts:
        nodes.setdefault(rank.machine, {}).setdefault(rank.node, rank.host)
    return tuple(
        f"MPI takes {len(there)} nodes for different that are one machine: {', '.join(sorted(there.values())[:4])}; "
        "name each machine once in the list of hosts"
        for there in nodes.values()
        if len(there) > 1
    )


def identity_problem(identities: Sequence[Mapping[str, str]], hosts: Sequence[str]) -> str:
    """Say in what the software or the settings of ranks differ; empty where they do not.

    Parameters
    ----------
    identities : sequence of mapping
        :func:`identity` of each rank.
    hosts : sequence of str
        Of each rank.
    """
    for key in dict.fromkeys(key for one in identities for key in one):
        values = [one.get(key, "unknown") for one in identities]
        (common, _), *others = Counter(values).most_common()
        if not others:
            continue
        odd = [rank for rank, value in enumerate(values) if value == others[0][0]]
        who = f"rank(s) {ranges(odd)} on {_named(hosts[rank] for rank in odd)}"
        found = f"{who} have {key} = {others[0][0]}, {'others' if len(others) > 1 else 'the others'} {common}"
        if key in COMPARED_VARIABLES:
            return (
                f"{found}; hand it to all ranks: srun --export=ALL,{key}=N, MPICH's mpirun -genv {key} N, "
                f"Open MPI's mpirun -x {key}=N"
            )
        return f"{found}; start the same Python environment on all nodes, by its full path on a file system they share"
    return ""


def gpu_problem(gpus: Sequence[str], hosts: Sequence[str], *, shared: bool) -> str:
    """Say which ranks have one GPU between them; empty where none have, or where they may.

    Parameters
    ----------
    gpus : sequence of str
        UUID of each rank's; empty where it is not known.
    hosts : sequence of str
        Of each rank.
    shared : bool
        Whether ranks may share one.
    """
    for gpu, n_ranks in Counter(filter(None, gpus)).items():
        if n_ranks > 1 and not shared:
            ranks = [rank for rank, other in enumerate(gpus) if other == gpu]
            return (
                f"machine.backend = cupy: ranks {ranges(ranks)} share {gpu}, {_named(hosts[r] for r in ranks)}; "
                "show each rank all GPUs of its node (srun --gpus-per-node=N and no binding, one CUDA_VISIBLE_DEVICES "
                "for all), start fewer ranks, or say machine.allow_shared_gpu = true"
            )
    return ""


def _by_machine(facts: Sequence[RankFacts]) -> list[tuple[str, list[RankFacts]]]:
    """Return each machine's name, as its first rank has it, and its ranks; those whose cores the system tells."""
    machines: dict[str, list[RankFacts]] = {}
    for rank in facts:
        if rank.cpus:
            machines.setdefault(rank.machine, []).append(rank)
    return [(ranks[0].host, ranks) for ranks in machines.values()]


def _crowds(ranks: Sequence[RankFacts], threads: int) -> list[tuple[frozenset[int], int]]:
    """Return the sets of cores that hold more threads than cores, with the ranks that may run there only; worst first.

    Looked at are the sets that ranks are bound to and all of them together: with bindings that are nested or apart, as
    launchers make them, no other set can be too full if none of these is.
    """
    masks = Counter(rank.cpus for rank in ranks)
    sets = {*masks, frozenset().union(*masks)}
    inside = {cpus: sum(n for mask, n in masks.items() if mask <= cpus) for cpus in sets}
    crowded = [(cpus, n) for cpus, n in inside.items() if n * threads > len(cpus)]
    return sorted(crowded, key=lambda found: (-found[1] / len(found[0]), sorted(found[0])))


def _named(hosts: Iterable[str]) -> str:
    names = list(dict.fromkeys(hosts))
    return f"host {names[0]}" if len(names) == 1 else f"hosts {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
