"""The grid of a run: as many ranks as MPI started, and a problem that can be cut that often."""

from __future__ import annotations

import msgspec

from hpcrnn.data_methods import EXACT, check_data_method, n_servers
from hpcrnn.errors import LaunchError, SpecError
from hpcrnn.recurrence import check_recurrence
from hpcrnn.spec import Grid, MachineSpec, RunSpec
from hpcrnn.spec.unequal import parse_handicap, parse_weights
from hpcrnn.training import check_training


def resolve_grid(spec: RunSpec, n_ranks: int) -> Grid:
    """Return the grid of this run, every rank on ``data`` unless it says otherwise.

    Raises
    ------
    LaunchError
        The grid's product is not the number of ranks MPI started, or that is not the number expected.
    SpecError
        The batch has fewer rows than the data axis has ranks, or a rank fewer rows than micro-batches.
    """
    expected = spec.machine.expect_ranks
    if expected is not None and expected != n_ranks:
        hint = "; each rank believes it is alone, so mpirun and mpi4py use different MPI libraries"
        raise LaunchError(f"machine.expect_ranks = {expected}: MPI started {n_ranks}{hint if n_ranks == 1 else ''}")
    grid = spec.parallel.grid or Grid(data=n_ranks)
    if grid.n_ranks != n_ranks:
        raise LaunchError(
            f"parallel.grid = {grid}: its product is {grid.n_ranks}, allowed is the number of ranks, {n_ranks} "
            f"(mpirun -n {grid.n_ranks}, or a grid of {n_ranks})"
        )
    check_cut(spec, grid)
    return grid


def check_cut(spec: RunSpec, grid: Grid) -> None:
    """Refuse a cut finer than what is cut, and an order that does not fit the grid.

    Raises
    ------
    SpecError
        Naming what would be allowed.
    """
    problem, model, parallel = spec.problem, spec.model, spec.parallel
    check_data_method(spec, grid)
    holders = 1 if parallel.data_method == "subsequence" else grid.data - n_servers(parallel)
    if problem.batch < holders:
        of = f"data={grid.data}" if holders == grid.data else f"the {holders} workers of data={grid.data}"
        raise SpecError("problem.batch", problem.batch, f"at least one row a rank of {of}")
    smallest = problem.batch // holders
    if parallel.microbatches > smallest:
        raise SpecError("parallel.microbatches", parallel.microbatches, f"at most the {smallest} rows of a rank")
    if grid.time > problem.seq:
        raise SpecError("parallel.grid", str(grid), f"at most seq ({problem.seq}) segments of time")
    steps = problem.seq // grid.time
    if parallel.chunks > steps:
        of = f"seq ({problem.seq})" if grid.time == 1 else f"the {steps} steps of a segment"
        raise SpecError("parallel.chunks", parallel.chunks, f"at most {of}")
    if grid.pipeline > model.layers:
        raise SpecError("parallel.grid", str(grid), f"at most layers ({model.layers}) stages of the pipeline")
    if grid.tensor > model.hidden:
        raise SpecError("parallel.grid", str(grid), f"at most hidden ({model.hidden}) tensor ranks")
    _check_order(spec, grid)
    _check_sequences(spec, grid)
    check_recurrence(spec, grid)
    _check_unequal(spec, grid)
    check_training(spec)


def _check_sequences(spec: RunSpec, grid: Grid) -> None:
    """Refuse sequences of unequal length where only rows of one length can be cut."""
    sequences, parallel = spec.problem.sequences, spec.parallel
    if sequences == "windows":
        return
    if grid.n_ranks != grid.data:
        raise SpecError("parallel.grid", str(grid), f"the axis data alone, with sequences = {sequences}")
    if spec.recurrence.method != "chain":
        raise SpecError("recurrence.method", spec.recurrence.method, f"chain, with sequences = {sequences}")
    if parallel.data_method not in EXACT:  # the loss of the others is a mean over a rank's own tokens
        allowed = f"{', '.join(EXACT)}, with sequences = {sequences}"
        raise SpecError("parallel.data_method", parallel.data_method, allowed)


def _check_order(spec: RunSpec, grid: Grid) -> None:
    order, stages = spec.parallel.order, spec.parallel.virtual_stages
    if order != "interleaved":
        if stages > 1:
            raise SpecError("parallel.virtual_stages", stages, f"1 with order = {order}; more with order = interleaved")
        return
    if grid.pipeline == 1 or grid.time > 1:
        others = "fill_drain, 1f1b, seq_1f1b or zb_h1"
        raise SpecError(
            "parallel.order", order, f"{others} on the grid {grid}; interleaved needs pipeline > 1 and time = 1"
        )
    most = spec.model.layers // grid.pipeline
    if not 1 < stages <= most:
        allowed = f"2 to {most}" if most > 1 else f"none: {spec.model.layers} layers are too few to interleave"
        raise SpecError(
            "parallel.virtual_stages", stages, f"{allowed} (layers = {spec.model.layers} over pipeline={grid.pipeline})"
        )


def with_backends_of_ranks(spec: RunSpec) -> RunSpec:
    """Let ``machine.backend`` name the backends of the ranks, each once, where they are given rank by rank.

    Raises
    ------
    SpecError
        It names others.
    """
    machine = spec.machine
    if machine.rank_backends is None:
        return spec
    theirs = tuple(dict.fromkeys(machine.rank_backends))
    if machine.backend != MachineSpec().backend and set(machine.backend) != set(theirs):
        raise SpecError("machine.backend", ",".join(machine.backend), f"{','.join(theirs)}, those of rank_backends")
    return msgspec.structs.replace(spec, machine=msgspec.structs.replace(machine, backend=theirs))


def _check_unequal(spec: RunSpec, grid: Grid) -> None:
    """Refuse weights, handicaps and backends of other ranks than there are, or where they could do nothing."""
    balance, machine, n_ranks = spec.parallel.balance, spec.machine, grid.n_ranks
    weights = parse_weights(balance)
    if weights and len(weights) != n_ranks:
        raise SpecError("parallel.balance", balance, f"a weight for each of {n_ranks} ranks, not {len(weights)}")
    if balance != "even" and n_ranks > 1 and n_ranks == grid.tensor:
        raise SpecError("parallel.balance", balance, f"even on the grid {grid}: hidden units are shared evenly")
    if machine.rank_backends is not None:
        if len(machine.rank_backends) != n_ranks:
            count = len(machine.rank_backends)
            raise SpecError(
                "machine.rank_backends",
                ",".join(machine.rank_backends),
                f"a backend for each of {n_ranks} ranks, not {count}",
            )
        if n_ranks != grid.data or spec.recurrence.method != "chain":
            raise SpecError("parallel.grid", str(grid), "the axis data alone, and method chain, with rank_backends")
    _check_handicap(spec, grid)


def _check_handicap(spec: RunSpec, grid: Grid) -> None:
    text, machine = spec.machine.handicap, spec.machine
    slowed = parse_handicap(text)
    if not slowed:
        return
    if grid.n_ranks == 1:
        raise SpecError("machine.handicap", text, "none on one rank: a serial run is what others are measured against")
    if max(slowed) >= grid.n_ranks:
        raise SpecError("machine.handicap", text, f"ranks 0 to {grid.n_ranks - 1}")
    if grid.tensor > 1 or spec.recurrence.method != "chain":
        allowed = "none where ranks wait for one another inside a task (tensor > 1, or another method than chain)"
        raise SpecError("machine.handicap", text, allowed)
    on_gpu = [
        r for r in slowed if "cupy" in (machine.rank_backends[r : r + 1] if machine.rank_backends else machine.backend)
    ]
    if on_gpu:
        raise SpecError("machine.handicap", text, f"ranks that compute on a CPU, which rank {on_gpu[0]} does not")
