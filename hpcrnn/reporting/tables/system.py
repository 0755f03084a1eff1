"""The system disclosure: what a run stored of hosts, libraries and settings, said once for all files that agree."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcrnn.records.record import Record
from hpcrnn.reporting.describe import first_of, flatten, host_dicts
from hpcrnn.reporting.tables.table import spans
from hpcrnn.reporting.units import printable


@dataclass(frozen=True)
class Disclosure:
    """A part of the environment, the same in all the files it names."""

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)


def system_disclosures(records: Sequence[Record]) -> list[Disclosure]:
    """Lay the environment out section by section; files that agree in a section share it."""
    sections = list({name: None for record in records for name in record.environment if name not in _ELSEWHERE})
    ordered = [n for n in _SECTION_TITLES if n in sections] + [n for n in sections if n not in _SECTION_TITLES]
    found = []
    for name in ordered:
        groups: dict[str, tuple[list[int], list[tuple[str, str]]]] = {}
        for file, record in enumerate(records, 1):
            parts = _host_parts(record) if name == "hosts" else [_facts(record, name)]
            for rows in filter(None, parts):
                groups.setdefault(json.dumps(rows), ([], rows))[0].append(file)
        for files, rows in groups.values():
            where = "" if len(files) == len(records) else f" (file{'s' * (len(files) > 1)} {spans(files)})"
            found.append(Disclosure(_SECTION_TITLES.get(name, printable(name)) + where, rows))
    return found


_SECTION_TITLES = {
    "hosts": "Hosts",
    "mpi": "MPI",
    "blas": "BLAS",
    "packages": "Packages",
    "git": "Source",
    "clock": "Clock and synchronisation",
    "slurm": "Slurm",
    "launcher": "Launcher",
    "variables": "Environment variables",
}
"""Sections in the order a reader asks for them."""

_ELSEWHERE = ("ceilings",)
"""Sections that have tables of their own."""

_OF_A_RANK = ("hostname", "rank", "local_rank", "pid", "affinity")
"""Facts of a rank, not of its host."""
_OF_A_MOMENT = ("available_memory_bytes", "frequency_hz", "load_average")
"""Facts that differ from rank to rank because they were read a moment apart: the first rank's are shown."""


def _host_parts(record: Record) -> list[list[tuple[str, str]]]:
    """Return rows for each kind of host: its names and ranks, where ranks were bound, what hosts share."""
    kinds: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for rank, host in enumerate(host_dicts(record)):
        lasting = {k: v for k, v in host.items() if k not in _OF_A_RANK and k not in _OF_A_MOMENT}
        kinds.setdefault(json.dumps(lasting, sort_keys=True, default=str), []).append((rank, host))
    parts = []
    for members in kinds.values():
        ranks_of: dict[str, list[int]] = {}
        bound: dict[str, list[int]] = {}
        for rank, host in members:
            ranks_of.setdefault(printable(first_of(host, "hostname") or "unnamed host"), []).append(rank)
            bound.setdefault(printable(host.get("affinity", "")), []).append(rank)
        shared = {k: v for k, v in members[0][1].items() if k not in _OF_A_RANK}
        facts = list(flatten(shared))
        rows = [("name", ", ".join(f"{name} ({_ranks(ranks)})" for name, ranks in ranks_of.items()))]
        if list(bound) != [""]:
            rows.append(("CPUs a rank may use", "; ".join(f"{cpus} ({_ranks(r)})" for cpus, r in bound.items())))
        rows += [(_spoken(key), text) for key, text in facts if text != "unknown"]
        unknown = ", ".join(_spoken(key) for key, text in facts if text == "unknown")
        parts.append(rows + ([("could not be found out", unknown)] if unknown else []))
    return parts


def _facts(record: Record, name: str) -> list[tuple[str, str]]:
    rows = list(flatten(record.environment.get(name)))
    # Packages and variables have names of their own; elsewhere a key is words.
    if name in ("packages", "variables"):
        return rows
    return [(_spoken(key) or "as a whole", text) for key, text in rows]


def _spoken(key: str) -> str:
    """Turn ``libraries[0].num_threads`` into ``libraries 1, num threads``; the unit stands with the value."""
    words = re.sub(r"\[(\d+)\]", lambda found: f" {int(found[1]) + 1}", key)
    return re.sub(r"_(bytes|hz|s)(?=$|\.)", "", words).replace(".", ", ").replace("_", " ")


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {spans(ranks)}"
