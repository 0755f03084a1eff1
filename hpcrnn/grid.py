"""The grid of a run: as many ranks as MPI started, and a problem that can be cut that often."""

from __future__ import annotations

from hpcrnn.errors import LaunchError, SpecError
from hpcrnn.recurrence import check_recurrence
from hpcrnn.spec import Grid, RunSpec
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
    if problem.batch < grid.data:
        raise SpecError("problem.batch", problem.batch, f"at least one row a rank of data={grid.data}")
    smallest = problem.batch // grid.data
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
    check_recurrence(spec, grid)
    check_training(spec)


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
