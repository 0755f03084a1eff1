"""What replicas of the network exchange: the data methods, what belongs to each, and whether one fits.

=========================  ==========================================================  =========================
method                     what crosses                                                a step computes
=========================  ==========================================================  =========================
``allreduce_bucketed``     gradients, a block's as soon as it is complete              the serial step
``allreduce_flat``         gradients, all at the end                                   the serial step
``hierarchical``           gradients: summed in the node, across nodes, handed back    the serial step
``parameter_server_sync``  gradients to rank 0, which updates; parameters back         the serial step
``parameter_server_async`` the same, each worker by itself, within a bound             its own rows' step, late
``local_sgd``              parameters, every ``sync_every`` steps: their average       its own rows' step
``diloco``                 the same; the average's way is a gradient for momentum      its own rows' step
``ensemble``               nothing: models of their own, each on its own rows          its own rows' step
``subsequence``            nothing: the same, each on its own piece of every row       its own piece's step
=========================  ==========================================================  =========================
"""

from __future__ import annotations

from hpcrnn.errors import SpecError
from hpcrnn.spec import DataMethodName, Grid, ParallelSpec, RunSpec, option

ALLREDUCE: tuple[DataMethodName, ...] = ("allreduce_flat", "allreduce_bucketed")
"""Methods for any grid and any backend."""

EXACT: tuple[DataMethodName, ...] = (*ALLREDUCE, "hierarchical", "parameter_server_sync")
"""Methods whose step is that of the whole batch."""

SERVED: tuple[DataMethodName, ...] = ("parameter_server_sync", "parameter_server_async")
"""Methods in which rank 0 has no rows: it keeps the parameters."""

AVERAGED: tuple[DataMethodName, ...] = ("local_sgd", "diloco")
"""Methods that average parameters now and then."""

INDEPENDENT: tuple[DataMethodName, ...] = ("ensemble", "subsequence")
"""Methods whose ranks train models of their own."""

BELONGS: dict[str, tuple[DataMethodName, ...]] = {
    "sync_every": AVERAGED,
    "outer_lr": ("diloco",),
    "outer_momentum": ("diloco",),
    "staleness": ("parameter_server_async",),
    "node_size": ("hierarchical",),
}
"""Keys that mean something to some methods only."""


LATE_LEG_STEPS = 8
"""Steps of a leg in which workers go their own ways: if they met after each, none could be late."""


def leg_steps(method: str, sync_every: int) -> int:
    """Steps from one meeting of the replicas to the next, which is what is timed: a cycle, or some while."""
    if method in AVERAGED:
        return sync_every
    return LATE_LEG_STEPS if method == "parameter_server_async" else 1


SERVER = 0
"""The rank that keeps the parameters, where there is a server."""


def n_servers(parallel: ParallelSpec) -> int:
    """Ranks without rows, the first ones."""
    return 1 if parallel.data_method in SERVED else 0


def check_data_method(spec: RunSpec, grid: Grid) -> None:
    """Refuse a data method that does not fit, and keys of another.

    Raises
    ------
    SpecError
        Naming what would be allowed.
    """
    parallel, method = spec.parallel, spec.parallel.data_method
    for key, methods in BELONGS.items():
        value, default = getattr(parallel, key), option(key).default
        if value != default and method not in methods:
            allowed = f"{'nothing' if default is None else default} with data_method {method}; it belongs to "
            raise SpecError(f"parallel.{key}", value, allowed + " and ".join(methods))
    _check_codec(spec, grid)
    if method in ALLREDUCE:
        return
    if grid.n_ranks != grid.data:
        raise SpecError("parallel.grid", str(grid), f"the axis data alone with data_method {method}")
    if set(spec.machine.backend) != {"numpy"}:
        allowed = f"numpy with data_method {method}; {' and '.join(ALLREDUCE)} run on every backend"
        raise SpecError("machine.backend", ",".join(spec.machine.backend), allowed)
    if spec.recurrence.method != "chain":
        raise SpecError("recurrence.method", spec.recurrence.method, f"chain with data_method {method}")
    if method != "hierarchical" and spec.training.step_mode != "train":
        raise SpecError("training.mode", spec.training.mode, f"train with data_method {method}")
    if parallel.node_size is not None and parallel.node_size > grid.data:
        raise SpecError("parallel.node_size", parallel.node_size, f"at most the {grid.data} ranks of the data axis")
    if method in SERVED:
        _check_served(spec, grid)
    if method == "subsequence":
        _check_subsequence(spec, grid)


def _check_codec(spec: RunSpec, grid: Grid) -> None:
    """Refuse compressed gradients where they are not what one collective sums over replicas on the host."""
    codec, method = spec.parallel.grad_codec, spec.parallel.data_method
    if codec == "none":
        return
    if method not in ALLREDUCE:
        allowed = f"none with data_method {method}; codecs are for {' and '.join(ALLREDUCE)}"
        raise SpecError("parallel.grad_codec", codec, allowed)
    if grid.n_ranks != grid.data:
        raise SpecError("parallel.grid", str(grid), f"the axis data alone with grad_codec {codec}")
    backends = spec.machine.rank_backends or spec.machine.backend
    if set(backends) != {"numpy"}:
        raise SpecError("machine.backend", ",".join(backends), f"numpy with grad_codec {codec}")
    if spec.recurrence.method != "chain":
        raise SpecError("recurrence.method", spec.recurrence.method, f"chain with grad_codec {codec}")


def _check_served(spec: RunSpec, grid: Grid) -> None:
    if grid.data == 1:
        allowed = "another one on one rank: a server needs a worker"
        raise SpecError("parallel.data_method", spec.parallel.data_method, allowed)


def _check_subsequence(spec: RunSpec, grid: Grid) -> None:
    if spec.training.carry:
        allowed = "false with data_method subsequence: a rank's piece does not follow on its last one"
        raise SpecError("training.carry", value=True, allowed=allowed)
    least = grid.data * spec.parallel.chunks
    if spec.problem.seq < least:
        allowed = f"at least {least} with data_method subsequence: a step for each of the chunks of {grid.data} pieces"
        raise SpecError("problem.seq", spec.problem.seq, allowed)
