"""Our layer pipeline beside PyTorch's: ``mpirun -n 2 python -m hpcrnn.benchmarks.peer_pipeline``.

The same recurrent layers with the same parameters on the same ranks, one thread each: forward and backward of one
batch, the loss linear in the output.  Ours goes through MPI in several orders and with several numbers of
chunks; the peer is ``torch.distributed.pipelining`` over gloo, GPipe and 1F1B at several numbers of micro-batches.
The best of each counts.  A serial run of each is the base.  How they are screened, checked and measured:
:mod:`hpcrnn.benchmarks.peer_contest`.  All ranks must share one node: gloo is told to use the loopback.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from hpcrnn.backends.registry import check_backends
from hpcrnn.benchmarks.arguments import add_output, output_of, positive
from hpcrnn.benchmarks.peer_contest import (
    Contender,
    Contest,
    Maker,
    best,
    check,
    check_launch,
    chosen,
    facts,
    headline,
    measure,
    paired_ratio,
    screen,
    serial_runs,
    shown,
    table,
    to_plain,
    torch_group,
    write,
)
from hpcrnn.benchmarks.script import ScriptParser, on_ranks, say
from hpcrnn.errors import EXIT_VALID, HpcrnnError, SpecError
from hpcrnn.execution.world import World
from hpcrnn.grid import check_cut
from hpcrnn.model.network import initial_parameters
from hpcrnn.spec import Grid, OrderName, ParallelSpec, RunSpec, build_spec
from hpcrnn.workloads import open_workload

_PEER_MICROBATCHES = (2, 4, 8)
_PEER_SCHEDULES = ("GPipe", "1F1B")


def orders(contest: Contest, parts: Sequence[int]) -> Iterator[Maker]:
    """Our ways that are worth a try and can be cut like that."""
    tried: tuple[OrderName, ...] = ("seq_1f1b", "zb_h1", "fill_drain", "1f1b")
    for order in tried:
        for n in parts:
            # 1f1b takes turns by whole micro-batches; the others need no more than chunks of time.
            microbatches, chunks = (n, 1) if order == "1f1b" else (1, n)
            grid = Grid(pipeline=contest.world.size)
            parallel = ParallelSpec(grid=grid, order=order, microbatches=microbatches, chunks=chunks)
            try:
                contest.plan(parallel)
            except SpecError:
                continue
            yield Maker(_name(parallel), partial(contest.executed, _name(parallel), "ours", parallel))


def _name(parallel: ParallelSpec) -> str:
    parts = f"M={parallel.microbatches}" if parallel.microbatches > 1 else f"C={parallel.chunks}"
    return f"ours {parallel.order} {parts}"


def peers(contest: Contest) -> list[Maker]:
    """All ways of the peer that cut the batch evenly, as it requires."""
    rows = contest.spec.problem.batch
    possible = [n for n in _PEER_MICROBATCHES if rows % n == 0 and n >= contest.world.size]
    if not possible:
        allowed = f"a multiple of one of {', '.join(map(str, _PEER_MICROBATCHES))}, that being at least the ranks"
        raise SpecError("problem.batch", rows, allowed)
    return [
        Maker(f"torch {schedule} M={n}", partial(_peer, contest, schedule, n))
        for schedule in _PEER_SCHEDULES
        for n in possible
    ]


def _peer(contest: Contest, schedule: str, n_microbatches: int) -> Contender:
    """PyTorch's pipeline."""
    from hpcrnn.backends.torch.engine import TorchEngine
    from hpcrnn.backends.torch.pipeline import TorchPipeline

    spec, rank, n_ranks = contest.spec, contest.world.rank, contest.world.size
    plan = contest.plan(ParallelSpec(grid=Grid(pipeline=n_ranks), microbatches=n_microbatches))
    extent = plan.extent(rank)
    engine = TorchEngine(plan.network, extent, spec.training, spec.machine.threads)
    engine.load_parameters(initial_parameters(plan.network, spec.problem.seed))
    pipeline = TorchPipeline(engine, plan.network, extent, rank, n_ranks, schedule)  # type: ignore[arg-type]

    def load(step: int) -> None:
        pipeline.load_batch(contest.workload.batch(step))

    return Contender(f"torch {schedule} M={n_microbatches}", "torch", n_ranks, load, pipeline.step, pipeline.part)


def _parse(world: World) -> tuple[RunSpec, Any]:
    parser = ScriptParser(world, "peer_pipeline", __doc__)
    parser.add_argument("--cell", choices=("elman", "lstm", "gru"), default="lstm")
    sizes = {"layers": 4, "hidden": 512, "batch": 64, "seq": 64}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N", help=f"default {default}")
    parts = parser.add_argument("--parts", type=positive, nargs="+", default=[2, 4, 8, 16], metavar="N")
    parts.help = "chunks, or micro-batches, that ours is tried with; default 2 4 8 16"
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="TEXT", help="ways whose name holds one of these, e.g. seq_1f1b GPipe"
    )
    parser.add_argument("--max-time", type=float, default=90.0, metavar="S", help="seconds to measure; default 90")
    add_output(parser, ending=".json")
    arguments = parser.parse_args()
    chosen = {name: getattr(arguments, name) for name in ("cell", *sizes)}
    fixed = {"workload": "synthetic", "input": "direct", "mode": "gradient", "backend": "numpy,torch", "threads": 1}
    return build_spec({}, fixed | chosen), arguments


def main(world: World) -> int:
    """Check, screen, measure, print."""
    spec, arguments = _parse(world)
    output = output_of(arguments)
    check_launch(world, "peer_pipeline", output)
    check_cut(spec, Grid(pipeline=world.size))
    check_backends(spec)
    from hpcrnn.backends.torch.pipeline import check_pipelining

    check_pipelining()
    # The loss is an inner product with random signs, which cancels: an error is relative to the terms' root-sum-square.
    loss_size = (spec.model.hidden / (spec.problem.seq * spec.problem.batch)) ** 0.5
    contest = Contest(spec, open_workload(spec), world, loss_size)
    with torch_group(world) as version, threadpool_limits(limits=spec.machine.threads):
        ours = chosen(orders(contest, arguments.parts), arguments.only)
        theirs = chosen(peers(contest), arguments.only)
        if not ours or not theirs:
            side, known = ("torch", peers(contest)) if ours else ("ours", orders(contest, arguments.parts))
            names = ", ".join(maker.name for maker in known) or "none: --parts cuts neither seq nor batch"
            raise HpcrnnError(f"no way of {side} is left by --parts and --only; there are {names}")
        makers = [*screen(contest, ours), *screen(contest, theirs)]
        serial = [contest.executed(f"{kind} serial", kind, ParallelSpec(grid=Grid())) for kind in ("ours", "torch")]
        contenders = [*serial, *(maker.make() for maker in makers)]
        check(contest, contenders)
        measure(contest, contenders, arguments.max_time)
    known_facts = facts(world, version)
    if world.is_root:
        say(world, headline(spec, world.size, version))
        for line in (*table(contenders), *_ratios(contenders)):
            say(world, line)
    if output is not None:
        world.on_root(lambda: write(output, _plain(contest, contenders, known_facts), world))
        say(world, f"written: {output.path}")
    return EXIT_VALID


def _ratios(contenders: Sequence[Contender]) -> Iterator[str]:
    """The two ratios that matter."""
    ours, torch, serial = best(contenders, "ours"), best(contenders, "torch"), serial_runs(contenders)
    yield f"{torch.name} / {ours.name}: {shown(paired_ratio(torch, ours), 1, 2)}"
    yield f"torch serial / ours serial: {shown(paired_ratio(serial['torch'], serial['ours']), 1, 2)}"


def _plain(contest: Contest, contenders: Sequence[Contender], known: dict[str, Any]) -> dict[str, Any]:
    ours, torch = best(contenders, "ours"), best(contenders, "torch")
    ratio = {"best_torch": torch.name, "best_ours": ours.name, **vars(paired_ratio(torch, ours))}
    return to_plain(contest, contenders, known) | {"torch_over_ours": ratio}


if __name__ == "__main__":
    raise SystemExit(on_ranks(main))
