"""How many cores the ranks of a case had: more ranks than that share them, and are timed sharing them."""

from __future__ import annotations

from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import host_dicts, threads_of
from hpcrnn.reporting.units import printable


def cores_of(entry: Entry) -> int | None:
    """Return how many physical cores the ranks of a case could use together, at the most.

    Ranks of a host with the same affinity share its cores; those with another one are taken to have others. Where
    affinities overlap this counts a core twice, so that whoever is called oversubscribed is.

    Returns
    -------
    int or None
        None where a rank's cores were not recorded.
    """
    hosts = host_dicts(entry.record)[: entry.case.n_ranks]
    counts: dict[tuple[str, str], int] = {}
    for host in hosts:
        count = host.get("n_physical_cores")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1 or "affinity" not in host:
            return None
        counts[printable(host.get("hostname")), printable(host["affinity"])] = count
    return sum(counts.values()) if len(hosts) == entry.case.n_ranks else None


def oversubscribed(entry: Entry) -> bool:
    """Whether a case ran more threads than it had cores; False where that is not known, or a GPU did the work."""
    case = entry.case
    if case.on_gpu or case.simulated:
        return False
    cores = cores_of(entry)
    return cores is not None and case.n_ranks * threads_of(case) > cores
