"""The ways of running a problem that are measured beside each other: backends, grids, methods."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from hpcrnn.benchmarks.planning import Plan, make_plan
from hpcrnn.data_methods import ALLREDUCE, BELONGS, EXACT, INDEPENDENT
from hpcrnn.recurrence import SEGMENTED
from hpcrnn.schedules.placement import UNKNOWN, Layout
from hpcrnn.spec import BackendName, Grid, ParallelSpec, RecurrenceSpec, RunSpec
from hpcrnn.workloads import Workload

SERIAL = ParallelSpec(grid=Grid())
"""The parallel section of the serial run of a problem: in one piece, as fast as it can be."""


@dataclass(frozen=True)
class Way:
    """One way of running a problem.

    Attributes
    ----------
    backend : {"numpy", "torch", "cupy"}
        Of all ranks, unless the specification gives each its own.
    spec : RunSpec
        With its grid resolved, and as far as it concerns the backend.
    layout : Layout
        What the machine tells of the ranks.
    """

    backend: BackendName
    spec: RunSpec
    layout: Layout = UNKNOWN

    def backend_of(self, rank: int) -> BackendName:
        """What a rank computes with."""
        each = self.spec.machine.rank_backends
        return self.backend if each is None else each[rank]

    @property
    def backends(self) -> tuple[BackendName, ...]:
        """What its ranks compute with, each once."""
        return tuple(dict.fromkeys(self.spec.machine.rank_backends or (self.backend,)))

    @property
    def backend_name(self) -> str:
        """``numpy``; ``cupy+numpy`` where ranks differ."""
        return "+".join(self.backends)

    @property
    def grid(self) -> Grid:
        """Ranks per axis."""
        return self.spec.parallel.grid or Grid()

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.grid.n_ranks

    @property
    def method(self) -> str:
        """How segments of time come to the states they start from."""
        return self.spec.recurrence.method

    @property
    def n_segments(self) -> int:
        """Segments of time that run at once, over all ranks; 1 with method ``chain``."""
        return 1 if self.method == "chain" else self.grid.time * self.spec.recurrence.fold

    @property
    def trains_an_ensemble(self) -> bool:
        """Whether every rank has a model of its own."""
        return self.n_ranks > 1 and self.spec.parallel.data_method in INDEPENDENT

    @property
    def is_exact(self) -> bool:
        """Whether a step is that of the whole batch, so that all ranks know of its loss and gradient."""
        return self.spec.parallel.data_method in EXACT

    @property
    def compresses(self) -> bool:
        """Whether what is applied is not the gradient, for a codec comes between."""
        codec, mode = self.spec.parallel.grad_codec, self.spec.training.mode
        return codec != "none" and self.n_ranks > 1 and mode != "forward"

    @property
    def is_serial(self) -> bool:
        """Whether this is the serial run of the problem."""
        return self.n_ranks == 1 and self.method == "chain"

    @property
    def name(self) -> str:
        """What progress calls it."""
        if self.is_serial:
            return f"{self.backend} serial"
        method = "" if self.method == "chain" else f" {self.method} {self.spec.recurrence.fold}"
        balance = " balanced" if self.layout.weights else ""
        data_method = self.spec.parallel.data_method if self.n_ranks > 1 else ""
        exchange = "" if data_method in ("", *ALLREDUCE) else f" {data_method}"
        exchange += f" {self.spec.parallel.grad_codec}" if self.compresses else ""
        return f"{self.backend_name}{f' {self.grid}' if self.n_ranks > 1 else ''}{exchange}{method}{balance}"

    def plan(self, workload: Workload) -> Plan:
        """Lay the problem out."""
        return make_plan(self.spec, workload, self.grid, self.layout)


def ways_of(spec: RunSpec, layout: Layout = UNKNOWN) -> list[Way]:
    """Every backend on the whole grid, and before it, where a base is wanted, on one rank.

    A peer has no method that runs segments of time at once: it is there for the base. Of such a method on several ranks
    the same segments on one rank are a base too; of uneven shares the even ones are.
    """
    spec = _without_replicas(spec) if (spec.parallel.grid or Grid()).n_ranks == 1 else spec
    backends = spec.machine.backend if spec.machine.rank_backends is None else spec.machine.rank_backends[:1]
    whole = [Way(backend, _for_backend(spec, backend), layout) for backend in backends]
    if whole[0].is_serial or spec.training.mode == "target":
        return whole
    several = whole[0].n_ranks > 1
    chain = spec.recurrence.method == "chain"
    if not chain:
        whole = [way for way in whole if way.backend in SEGMENTED]
    if not spec.measure.baseline:
        return whole
    unhindered = msgspec.structs.replace(spec.machine, handicap=None, rank_backends=None)
    alone = msgspec.structs.replace(spec, parallel=SERIAL, recurrence=RecurrenceSpec(), machine=unhindered)
    base = [Way(b, _with_peer_threads(_for_backend(alone, b), b)) for b in spec.machine.backend]
    if several and not chain:
        fold = spec.recurrence.fold * whole[0].grid.time
        recurrence = msgspec.structs.replace(spec.recurrence, fold=fold, halo_codec="none")
        folded = msgspec.structs.replace(alone, recurrence=recurrence)
        base += [Way(way.backend, _for_backend(folded, way.backend)) for way in whole]
    if layout.weights:
        base += [_with_even_shares(way) for way in whole]
    return base + whole


def _without_replicas(spec: RunSpec) -> RunSpec:
    """What replicas exchange is nothing on one rank: that run is the serial one, whatever was asked for."""
    plain = {key: getattr(SERIAL, key) for key in ("data_method", "grad_codec", *BELONGS)}
    return msgspec.structs.replace(spec, parallel=msgspec.structs.replace(spec.parallel, **plain))


def _with_even_shares(way: Way) -> Way:
    parallel = msgspec.structs.replace(way.spec.parallel, balance="even")
    return replace(
        way, spec=msgspec.structs.replace(way.spec, parallel=parallel), layout=replace(way.layout, weights=())
    )


def _for_backend(spec: RunSpec, backend: BackendName) -> RunSpec:
    """What only a GPU has is nothing to the others."""
    if backend == "cupy":
        return spec
    return msgspec.structs.replace(spec, machine=msgspec.structs.replace(spec.machine, precision="float32"))


def _with_peer_threads(spec: RunSpec, backend: BackendName) -> RunSpec:
    """The peer may have as many cores as the ranks it is measured beside."""
    if backend != "torch" or spec.machine.peer_threads is None:
        return spec
    machine = msgspec.structs.replace(spec.machine, threads=spec.machine.peer_threads)
    return msgspec.structs.replace(spec, machine=machine)
