"""Which machine a record was measured on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hpcrnn.records.record import Record
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import first_of, host_dicts
from hpcrnn.reporting.units import printable


@dataclass(frozen=True)
class Machine:
    """What records must share to be compared.

    Attributes
    ----------
    hosts : frozenset of str
        The largest set of hosts that holds those of the record.
    models : frozenset of str
        Processors and GPUs.
    """

    hosts: frozenset[str]
    models: frozenset[str]

    @property
    def text(self) -> str:
        """Hosts and models, as far as they are known."""
        hosts = sorted(self.hosts)
        named = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
        return ", ".join(filter(None, (named, *sorted(self.models))))


def machines_of(records: Iterable[Record]) -> dict[str, Machine]:
    """Say which machine each record was measured on, by its uuid.

    Records are of one machine where processors and GPUs are the same models, and the hosts of the one are among those
    of the other: two nodes of a cluster are two machines, unless a run on both makes them one.
    """
    own = {record.uuid: Machine(frozenset(_names(record)), frozenset(_models(record))) for record in records}
    sets = sorted(set(own.values()), key=lambda m: (-len(m.hosts), sorted(m.hosts)))
    return {
        uuid: next(m for m in sets if m.models == machine.models and m.hosts >= machine.hosts)
        for uuid, machine in own.items()
    }


def hosts_of(entry: Entry) -> frozenset[str]:
    """Hosts of the ranks that took part: the first of its run."""
    return frozenset(_names(entry.record)[: entry.case.n_ranks])


def _names(record: Record) -> list[str]:
    return [printable(first_of(host, "hostname", "host", "name", "node") or "") for host in host_dicts(record)]


def _models(record: Record) -> Iterator[str]:
    for host in host_dicts(record):
        yield printable(first_of(host, "cpu_model", "cpu", "model_name", "processor") or "")
        gpus = host.get("gpus")
        for gpu in gpus if isinstance(gpus, list | tuple) else ():
            yield printable((gpu.get("name") if isinstance(gpu, Mapping) else gpu) or "")
