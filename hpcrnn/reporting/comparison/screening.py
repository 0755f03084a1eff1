"""Equal runs on many nodes beside one another: which node is slower than the others, and which one computes wrong.

A node is held against the *other* nodes: ratio of its median step to the median of their medians.  With nothing assumed
of how nodes differ, a node is ``slow`` where the whole interval of its median lies above the others' median by more
than the tolerance, ``fast`` where it lies below it likewise, ``undecided`` where the interval straddles the limit or n
is too small for one, else ``ok``.  A node whose case is not VALID is ``wrong``, however fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hpcrnn.errors import EXIT_GATE_FAILED, EXIT_INVALID, EXIT_VALID, HpcrnnError
from hpcrnn.records.record import Record
from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.analysis.scaling import scaled
from hpcrnn.reporting.describe import case_name, describe_problem, host_dicts, host_names
from hpcrnn.reporting.units import has_bounds, printable

Result = Literal["ok", "slow", "fast", "undecided", "wrong"]
TOLERANCE = 0.05
"""By how much a node may differ from the others: equal nodes differ by a few per cent in clock and memory alone."""


@dataclass(frozen=True)
class Screened:
    """One node's run of one case.

    Attributes
    ----------
    node : str
    entry : Entry
    ratio : Interval or None
        Its step over the median of the other nodes' medians; None where there is nothing to compare.
    result : {"ok", "slow", "fast", "undecided", "wrong"}
    """

    node: str
    entry: Entry
    ratio: Interval | None
    result: Result


@dataclass(frozen=True)
class Screening:
    """What was seen of all nodes.

    Attributes
    ----------
    rows : tuple of Screened
        By case, then slowest node first.
    tolerance : float
    """

    rows: tuple[Screened, ...]
    tolerance: float

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node, once."""
        return tuple(sorted({row.node for row in self.rows}))

    def named(self, *results: Result) -> tuple[str, ...]:
        """Nodes that one of these results was found of."""
        return tuple(sorted({row.node for row in self.rows if row.result in results}))

    @property
    def exit_code(self) -> int:
        """2 where a node computes wrong, 3 where one is slow, else 0."""
        if self.named("wrong"):
            return EXIT_INVALID
        return EXIT_GATE_FAILED if self.named("slow") else EXIT_VALID


def screen(records: Sequence[Record], tolerance: float = TOLERANCE) -> Screening:
    """Hold nodes against one another.

    Parameters
    ----------
    records : sequence of Record
        Of one node each.
    tolerance : float
        By which fraction a node may differ from the others.

    Raises
    ------
    HpcrnnError
        A file was measured on several nodes, or all were on one.
    """
    for record in records:
        if len(nodes := _nodes(record)) != 1:
            message = f"{record.source}: was measured on {len(nodes)} nodes; a screening takes files of one node each"
            raise HpcrnnError(message)
    entries = make_entries(records)
    if len({_node(entry) for entry in entries}) < 2:
        message = "nothing to screen: the files are of one node; a node is held against others"
        raise HpcrnnError(message)
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.case.problem_id, entry.case.id), []).append(entry)
    rows = [row for members in groups.values() for row in _screen_case(members, tolerance)]
    return Screening(tuple(rows), tolerance)


def _screen_case(members: Sequence[Entry], tolerance: float) -> list[Screened]:
    rows = []
    for entry in members:
        others = [e.step.median for e in members if e.included and _node(e) != _node(entry)]
        if not entry.included:
            rows.append(Screened(_node(entry), entry, None, "wrong"))
        elif not others:
            rows.append(Screened(_node(entry), entry, None, "undecided"))
        else:
            ratio = scaled(entry.step, 1.0 / float(np.median(others)))
            rows.append(Screened(_node(entry), entry, ratio, _result(ratio, tolerance)))
    return sorted(rows, key=lambda row: (row.result != "wrong", -(row.ratio.median if row.ratio else 0.0), row.node))


def _result(ratio: Interval, tolerance: float) -> Result:
    slow, fast = 1.0 + tolerance, 1.0 - tolerance
    if not has_bounds(ratio):
        return "undecided"
    if ratio.low > slow:
        return "slow"
    if ratio.high < fast:
        return "fast"
    return "ok" if fast <= ratio.low and ratio.high <= slow else "undecided"


def _node(entry: Entry) -> str:
    return next(iter(_nodes(entry.record)))


def _nodes(record: Record) -> list[str]:
    """Return the nodes of a record, by the names that Slurm knows them by where that is known of each rank.

    An ``mpirun`` hands the name of one node to the ranks of all: only under ``srun`` it is that of the rank.
    """
    launcher = record.environment.get("launcher")
    if isinstance(launcher, dict) and launcher.get("kind") == "srun":
        names = [printable(host["slurm_node"]) if host.get("slurm_node") else "" for host in host_dicts(record)]
        if names and all(names):
            return list(dict.fromkeys(names))
    return list(host_names(record))


def to_json(screening: Screening) -> dict[str, Any]:
    """Return plain values for programs."""
    return {
        "tolerance": screening.tolerance,
        "nodes": list(screening.nodes),
        "slow": list(screening.named("slow")),
        "wrong": list(screening.named("wrong")),
        "exit_code": screening.exit_code,
        "rows": [
            {
                "node": row.node,
                "case": case_name(row.entry.case),
                "problem": describe_problem(row.entry.case),
                "n": row.entry.step.n,
                "median_s": row.entry.step.median if row.entry.step.n else None,
                "ratio": row.ratio.median if row.ratio else None,
                "ratio_low": row.ratio.low if row.ratio and has_bounds(row.ratio) else None,
                "ratio_high": row.ratio.high if row.ratio and has_bounds(row.ratio) else None,
                "result": row.result,
                "reason": row.entry.exclusion,
            }
            for row in screening.rows
        ],
    }
