"""Our data parallelism beside PyTorch's: ``mpirun -n 2 python -m hpcrnn.benchmarks.peer_data``.

The same byte-level network from the same weights on the same rows of the same ranks, one thread each: forward,
backward, the sum of the gradients, Adam.  Ours is ``allreduce_bucketed`` and ``allreduce_flat`` through MPI; the peer
is ``DistributedDataParallel`` over gloo at its best: gradients as views of the buckets, a static graph, Adam fused,
and the better two of three sizes of a bucket (PyTorch's default, that of a recurrent layer, all in one).  The base is
the serial run of each, on rank 0.  Our step makes the sum of the loss over the ranks and tests that the gradient is
finite; the peer's does neither.  How they are screened, checked (here the losses of the steps that follow, too) and
measured: :mod:`hpcrnn.benchmarks.peer_contest`.  All ranks must share one node: gloo is told to use the loopback.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from hpcrnn.backends.base import Part
from hpcrnn.backends.registry import check_backends
from hpcrnn.benchmarks.arguments import add_output, output_of, positive, positive_seconds
from hpcrnn.benchmarks.peer_contest import (
    Contender,
    Contest,
    Maker,
    best,
    check,
    check_launch,
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
from hpcrnn.errors import EXIT_VALID
from hpcrnn.execution.world import World
from hpcrnn.grid import check_cut
from hpcrnn.model.network import initial_parameters
from hpcrnn.records.statistics import Interval
from hpcrnn.spec import DataMethodName, Grid, ParallelSpec, RunSpec, build_spec
from hpcrnn.workloads import open_workload

_METHODS: tuple[DataMethodName, ...] = ("allreduce_bucketed", "allreduce_flat")
_CHECKED_STEPS = 5
"""Steps of training after which losses must still agree."""
_NAT = 1.0
"""What errors of the loss are relative to: it is a mean over symbols, of about five nats at first."""
_MIB = 2**20


def ours(contest: Contest) -> list[Maker]:
    """Our two ways to sum gradients."""
    return [
        Maker(f"ours {method}", partial(contest.executed, f"ours {method}", "ours", _data(contest, method)))
        for method in _METHODS
    ]


def _data(contest: Contest, method: DataMethodName) -> ParallelSpec:
    """All ranks along the batch."""
    return ParallelSpec(grid=Grid(data=contest.world.size), data_method=method)


def peers(contest: Contest) -> list[Maker]:
    """PyTorch's, with buckets of several sizes."""
    cut = contest.plan(_data(contest, "allreduce_flat")).cut
    place = cut.placement.place(0)
    n_bytes = [cut.gradient_bytes(block, place) for block in range(len(cut.network.blocks))]
    sizes = {"default bucket": None, "bucket a layer": max(n_bytes), "one bucket": sum(n_bytes)}
    return [Maker(f"torch DDP, {text}", partial(_peer, contest, text, size)) for text, size in sizes.items()]


def _peer(contest: Contest, text: str, bucket_bytes: int | None) -> Contender:
    bucket_mib = None if bucket_bytes is None else bucket_bytes / _MIB
    return replica(contest, f"torch DDP, {text}", _data(contest, "allreduce_bucketed"), bucket_mib)


def replica(contest: Contest, name: str, parallel: ParallelSpec, bucket_mib: float | None = None) -> Contender:
    """PyTorch alone, on all ranks or on rank 0.

    Parameters
    ----------
    contest : Contest
    name : str
    parallel : ParallelSpec
        Of one rank, or of all along the batch.
    bucket_mib : float, optional
        ``bucket_cap_mb`` of ``DistributedDataParallel``.
    """
    from hpcrnn.backends.torch.engine import TorchEngine
    from hpcrnn.backends.torch.replica import TorchReplica

    spec, world, plan = contest.spec, contest.world, contest.plan(parallel)
    if plan.n_ranks == 1 and not world.is_root:
        return Contender.absent(name, "torch")
    rank = world.rank if plan.n_ranks > 1 else 0
    extent, rows = plan.extent(rank), plan.rows(rank)
    engine = TorchEngine(plan.network, extent, spec.training, spec.machine.threads)
    engine.load_parameters(initial_parameters(plan.network, spec.problem.seed))
    trained = TorchReplica(engine, plan.network, extent, spec.training.lr, plan.n_ranks, bucket_mib)

    def load(step: int) -> None:
        trained.load_batch(contest.workload.batch(step, rows))

    def part() -> Part:
        own = trained.part()
        return Part(world.comm.allreduce(own.loss) if plan.n_ranks > 1 else own.loss, own.pieces)

    return Contender(name, "torch", plan.n_ranks, load, trained.step, part)


class Comparison(NamedTuple):
    """A contender held against another."""

    name: str
    rival: str
    ratio: Interval
    """Of the rival's step over its own."""

    @property
    def verdict(self) -> str:
        """``faster`` or ``slower`` where the whole interval lies on that side of 1, else ``undecided``."""
        if self.ratio.low > 1:
            return "faster"
        return "slower" if self.ratio.high < 1 else "undecided"


def comparisons(contenders: Sequence[Contender]) -> list[Comparison]:
    """Ours beside the peer's best, bucketed beside flat, and the serial runs."""
    serial, by_name = serial_runs(contenders), {c.name: c for c in contenders}
    bucketed, flat = (by_name[f"ours {method}"] for method in _METHODS)
    pairs = ((bucketed, best(contenders, "torch")), (bucketed, flat), (serial["ours"], serial["torch"]))
    return [Comparison(own.name, rival.name, paired_ratio(rival, own)) for own, rival in pairs]


def efficiencies(contenders: Sequence[Contender]) -> dict[str, Interval]:
    """Of every parallel contender over the best serial run: its speedup a rank."""
    base = base_of(contenders)
    return {c.name: paired_ratio(base, c, 1 / c.n_ranks) for c in contenders if c.n_ranks > 1}


def base_of(contenders: Sequence[Contender]) -> Contender:
    """The serial run with the smallest median."""
    return min(serial_runs(contenders).values(), key=lambda c: c.interval.median)


def _lines(contenders: Sequence[Contender]) -> Iterator[str]:
    yield from table(contenders)
    base = base_of(contenders)
    yield f"efficiency over {base.name}, {base.interval.median * 1e3:.1f} ms:"
    for name, efficiency in efficiencies(contenders).items():
        yield f"  {name}: {shown(efficiency, 1, 3)}"
    for found in comparisons(contenders):
        yield f"{found.rival} / {found.name}: {shown(found.ratio, 1, 3)}, {found.name} {found.verdict}"


def _plain(contest: Contest, contenders: Sequence[Contender], known: dict[str, Any]) -> dict[str, Any]:
    return to_plain(contest, contenders, known) | {
        "base": base_of(contenders).name,
        "efficiency": {name: vars(interval) for name, interval in efficiencies(contenders).items()},
        "comparisons": [
            {"name": c.name, "rival": c.rival, "rival_over_own": vars(c.ratio), "verdict": c.verdict}
            for c in comparisons(contenders)
        ],
    }


def _parse(world: World) -> tuple[RunSpec, Any]:
    parser = ScriptParser(world, "peer_data", __doc__)
    # No GRU: PyTorch trains two biases where one does, and so takes other steps.
    parser.add_argument("--cell", choices=("elman", "lstm"), default="lstm")
    sizes = {"layers": 2, "hidden": 512, "batch": 64, "seq": 64}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N", help=f"default {default}")
    parser.add_argument(
        "--max-time", type=positive_seconds, default=90.0, metavar="S", help="seconds to measure; default 90"
    )
    add_output(parser, ending=".json")
    arguments = parser.parse_args()
    given = {name: getattr(arguments, name) for name in ("cell", *sizes)}
    return build_spec({}, {"workload": "stdlib", "backend": "numpy,torch", "threads": 1} | given), arguments


def main(world: World) -> int:
    """Check, screen, measure, print."""
    spec, arguments = _parse(world)
    output = output_of(arguments)
    check_launch(world, "peer_data", output)
    check_cut(spec, Grid(data=world.size))
    check_backends(spec)
    contest = Contest(spec, open_workload(spec), world, _NAT)
    with torch_group(world) as version, threadpool_limits(limits=spec.machine.threads):
        serial = ParallelSpec(grid=Grid())
        makers = [*ours(contest), *screen(contest, peers(contest))]
        contenders = [
            contest.executed("ours serial", "ours", serial),
            replica(contest, "torch serial", serial),
            *(maker.make() for maker in makers),
        ]
        check(contest, contenders, _CHECKED_STEPS)
        measure(contest, contenders, arguments.max_time)
    known = facts(world, version)
    if world.is_root:
        say(world, headline(spec, world.size, version))
        for line in _lines(contenders):
            say(world, line)
    if output is not None:
        world.on_root(lambda: write(output, _plain(contest, contenders, known), world))
        say(world, f"written: {output.path}")
    return EXIT_VALID


if __name__ == "__main__":
    raise SystemExit(on_ranks(main))
