"""What a halo costs beside a bare MPI ping-pong: ``mpirun -n 2 python -m hpcrnn.benchmarks.halo``.

One exchange is the halo state of one recurrent layer going right and its gradient coming back.  ``suite`` is the
program of two time segments with its tasks left out: the executor runs what is left, clock readings included, on the
buffers of a real engine::

    rank 0   PostRecv dhalo   PostSend halo   Wait recv dhalo   Wait send halo
    rank 1   PostRecv halo    Wait recv halo  PostSend dhalo    Wait send dhalo

``bare`` is the same bytes in one array through mpi4py's buffer calls, blocking and not; the faster of the two
counts.  All three take turns, so that drift of the machine falls on all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcrnn.benchmarks.arguments import positive
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.benchmarks.script import ScriptParser, check_ranks, on_ranks, say
from hpcrnn.errors import EXIT_VALID
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.transport import Transport
from hpcrnn.execution.world import World
from hpcrnn.records.statistics import Interval, median_interval, ratio_interval
from hpcrnn.schedules.program import Instruction, Message, Program, Wait
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import open_workload

GOAL = 1.3
"""A halo exchange should cost at most so many times the bare one."""

SIZES = ((16, 128), (32, 256), (64, 256), (64, 512), (64, 1024))
"""Rows B and hidden units H."""

_EXCHANGES = 10
"""Timed together, after one that is not: a barrier does not let all ranks go at the same moment."""

_WARM_UP = 20

Exchange = Callable[[], float]
"""Makes a few exchanges and returns the seconds of one."""


@dataclass(frozen=True)
class HaloCost:
    """What was measured of one size.

    Attributes
    ----------
    rows, hidden, n_bytes : int
        B, H, and the bytes that go each way.
    suite : Interval
        Seconds of one exchange.
    bare : dict of str to Interval
        The same for each way of calling mpi4py.
    """

    rows: int
    hidden: int
    n_bytes: int
    suite: Interval
    bare: dict[str, Interval]

    @property
    def fastest(self) -> str:
        """The bare way with the smallest median."""
        return min(self.bare, key=lambda name: self.bare[name].median)

    @property
    def ratio(self) -> Interval:
        """Suite over the faster of the bare ways."""
        return ratio_interval(self.suite, self.bare[self.fastest])


def measure_halo(world: World, cell: str, rows: int, hidden: int, rounds: int) -> HaloCost:
    """Measure one size on two ranks; what is returned means something on rank 0.

    Parameters
    ----------
    world : World
    cell : {"elman", "lstm", "gru"}
    rows, hidden : int
        B and H.
    rounds : int
        Turns each way of exchanging gets.
    """
    suite, n_bytes = _suite_exchange(world, cell, rows, hidden)
    exchanges = {"suite": suite} | _bare_exchanges(world, n_bytes)
    samples: dict[str, list[float]] = {name: [] for name in exchanges}
    for turn in range(_WARM_UP + rounds):
        for name, exchange in exchanges.items():
            world.comm.Barrier()
            spent_s = exchange()
            if turn >= _WARM_UP:
                samples[name].append(spent_s)
    found = {name: median_interval(values) for name, values in samples.items()}
    return HaloCost(rows, hidden, n_bytes, found.pop("suite"), found)


def _suite_exchange(world: World, cell: str, rows: int, hidden: int) -> tuple[Exchange, int]:
    """The messages of a real program, on the buffers of a real engine."""
    flags = {"workload": "synthetic", "input": "direct", "mode": "gradient", "cell": cell, "layers": 1, "seq": 2}
    spec = build_spec({}, flags | {"hidden": hidden, "batch": rows, "grid": "time=2"})
    grid = Grid(time=2)
    plan, communicators = make_plan(spec, open_workload(spec), grid), world.communicators(grid)
    program = plan.program(world.rank)
    kept = tuple(i for i in program.instructions if _is_halo(i))
    engine = plan.executor(world.rank, "numpy", communicators).engine
    repeated = Program(world.rank, grid, program.blocks, kept * (1 + _EXCHANGES))
    executor = Executor(repeated, engine, Transport(communicators))

    def exchange() -> float:
        executor.run()
        return float(executor.stamps_ns[-1] - executor.stamps_ns[len(kept)]) * 1e-9 / _EXCHANGES

    return exchange, next(i.n_bytes for i in kept if isinstance(i, Message))


def _is_halo(instruction: Instruction) -> bool:
    begun = instruction.post if isinstance(instruction, Wait) else instruction
    return isinstance(begun, Message) and begun.value.kind in ("halo", "dhalo")


def _bare_exchanges(world: World, n_bytes: int) -> dict[str, Exchange]:
    """Bytes there and back, as short as mpi4py allows it to be written."""
    comm, first, peer = world.comm, world.rank == 0, 1 - world.rank
    # Written to once: untouched memory is one page of zeros, and reading it costs nothing.
    out, into = np.ones(n_bytes, np.uint8), np.ones(n_bytes, np.uint8)

    def blocking() -> None:
        if first:
            comm.Send(out, peer)
            comm.Recv(into, peer)
        else:
            comm.Recv(into, peer)
            comm.Send(out, peer)

    def nonblocking() -> None:
        receive = comm.Irecv(into, peer)
        if first:
            send = comm.Isend(out, peer)
            receive.Wait()
        else:
            receive.Wait()
            send = comm.Isend(out, peer)
        send.Wait()

    def timed(exchange: Callable[[], None]) -> Exchange:
        def run() -> float:
            exchange()
            start = time.perf_counter()
            for _ in range(_EXCHANGES):
                exchange()
            return (time.perf_counter() - start) / _EXCHANGES

        return run

    return {"Send/Recv": timed(blocking), "Isend/Irecv": timed(nonblocking)}


def main(world: World) -> int:
    """Measure all sizes and print a table."""
    parser = ScriptParser(world, "halo", __doc__, 2)
    parser.add_argument("--cell", choices=("elman", "lstm", "gru"), default="lstm")
    parser.add_argument("--rounds", type=positive, default=300, help="turns of each way; default 300")
    arguments = parser.parse_args()
    check_ranks(world, "halo", 2)
    say(world, f"{'B x H':>9}  {'KiB':>5}  {'suite, µs':>22}  {'bare, µs':>22}  {'fastest bare':>12}  ratio")
    missed = []
    for rows, hidden in SIZES:
        cost = measure_halo(world, arguments.cell, rows, hidden, arguments.rounds)
        if cost.ratio.median > GOAL:
            missed.append(f"{rows}x{hidden}")
        bare, ratio = cost.bare[cost.fastest], cost.ratio
        say(
            world,
            f"{f'{rows}x{hidden}':>9}  {cost.n_bytes / 1024:5.0f}  {_microseconds(cost.suite):>22}  "
            f"{_microseconds(bare):>22}  {cost.fastest:>12}  {ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
        )
    say(world, f"goal: at most {GOAL} times the bare one: {'missed at ' + ', '.join(missed) if missed else 'met'}")
    return EXIT_VALID


def _microseconds(interval: Interval) -> str:
    return f"{interval.median * 1e6:.1f} [{interval.low * 1e6:.1f}, {interval.high * 1e6:.1f}]"


if __name__ == "__main__":
    raise SystemExit(on_ranks(main))
