"""From a specification to executors: network, placement, validated programs, engines."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import cast

import numpy as np

from hpcrnn.backends.base import Array, Extent
from hpcrnn.backends.registry import make_engine
from hpcrnn.benchmarks.cut import Cut, cut_time
from hpcrnn.compression.codecs import memory_bytes, parse_codec
from hpcrnn.compression.stages import CompressedSum, FlatLayout
from hpcrnn.data_methods import AVERAGED, EXACT, INDEPENDENT, leg_steps, n_servers
from hpcrnn.errors import SpecError
from hpcrnn.execution.executor import Executor, Replica
from hpcrnn.execution.handicap import Slowdown
from hpcrnn.execution.models import Outer
from hpcrnn.execution.transport import GridCommunicators, Transport
from hpcrnn.model.network import Network, build_network, initial_parameters
from hpcrnn.model.sharding import Shard
from hpcrnn.schedules.graph import TaskGraph, TaskKind
from hpcrnn.schedules.lifetimes import assign_slots
from hpcrnn.schedules.nodes import Nodes, in_turn
from hpcrnn.schedules.placement import UNKNOWN, Layout, Place, imbalance, make_placement
from hpcrnn.schedules.program import AllReduce, Program, SumStage
from hpcrnn.schedules.schedule import Schedule
from hpcrnn.schedules.shares import share_out, speeds_of
from hpcrnn.schedules.validation import validate, validate_rank
from hpcrnn.simulation.unit_cost import Cost, operation_cost, simulate
from hpcrnn.spec import HALVED, Axis, BackendName, Grid, ParallelSpec, RunSpec
from hpcrnn.spec.unequal import parse_handicap
from hpcrnn.workloads import Workload

_VALIDATED_TOGETHER = 64
"""Up to so many ranks, every rank checks all programs; beyond, its own and those of its neighbours."""


@dataclass(frozen=True)
class Plan:
    """A problem and one way to split it: everything but arrays.

    Attributes
    ----------
    spec : RunSpec
    network : Network
    cut : Cut
    schedule : Schedule
    layout : Layout
        What the machine tells of its ranks.
    """

    spec: RunSpec
    network: Network
    cut: Cut
    schedule: Schedule
    layout: Layout = UNKNOWN

    @property
    def grid(self) -> Grid:
        """Ranks per axis."""
        return self.schedule.placement.grid

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.grid.n_ranks

    @cached_property
    def cycle(self) -> tuple[Schedule, ...]:
        """The steps after which the kinds of step repeat: all alike, but the last where models are averaged."""
        if self.n_ranks == 1 or self.spec.parallel.data_method not in AVERAGED:
            return (self.schedule,)
        return (self.schedule,) * (self.leg_steps - 1) + (replace(self.schedule, averages=True),)

    @property
    def programs(self) -> tuple[Program, ...]:
        """Validated programs of all ranks, of the first step of a cycle."""
        return self._programs(self.cycle[0])

    def program(self, rank: int) -> Program:
        """Program of one rank in the first step of a cycle, validated."""
        return self._program(self.cycle[0], rank)

    def _program(self, schedule: Schedule, rank: int) -> Program:
        if self.n_ranks <= _VALIDATED_TOGETHER:
            return self._programs(schedule)[rank]
        key = schedule.averages, rank
        if key not in self._validated:
            self._validated[key] = validate_rank(schedule, rank)
        return self._validated[key]

    def _programs(self, schedule: Schedule) -> tuple[Program, ...]:
        if schedule.averages not in self._validated_together:
            programs = schedule.programs()
            validate(programs, schedule)
            self._validated_together[schedule.averages] = programs
        return self._validated_together[schedule.averages]

    @cached_property
    def _validated(self) -> dict[tuple[bool, int], Program]:
        """Programs of a large run that this rank has asked for."""
        return {}

    @cached_property
    def _validated_together(self) -> dict[bool, tuple[Program, ...]]:
        """Programs of all ranks, of steps that end in an average and of those that do not."""
        return {}

    @property
    def leg_steps(self) -> int:
        """Steps from one meeting of the ranks to the next: until all have the same model again, or some while."""
        parallel = self.spec.parallel
        return leg_steps(parallel.data_method, parallel.sync_every) if self.n_ranks > 1 else 1

    @property
    def nodes(self) -> Nodes | None:
        """Nodes that sums go through."""
        return self.schedule.nodes

    @property
    def is_exact(self) -> bool:
        """Whether a step is that of the whole batch: the loss is then summed in it, and gradients are the batch's."""
        return self.spec.parallel.data_method in EXACT

    def share(self, rank: int) -> float:
        """Share of a rank's replica in the terms of the loss."""
        return self.cut.terms(self.place(rank)) / (self.spec.problem.seq * self.spec.problem.batch)

    def place(self, rank: int) -> Place:
        """Coordinates of a rank."""
        return self.schedule.placement.place(rank)

    def rows(self, rank: int) -> slice:
        """Rows of the global batch that a rank works on."""
        return self.cut.rows(self.place(rank))

    def extent(self, rank: int) -> Extent:
        """What a rank's engine works on."""
        problem, placement, place = self.spec.problem, self.schedule.placement, self.place(rank)
        segment = placement.chunks_at(place)
        return Extent(
            steps=problem.seq,
            microbatches=self.cut.microbatches(place),
            chunks=self.cut.chunks_of(place),
            scale=1.0 / (problem.seq * problem.batch if self.is_exact else max(1, self.cut.terms(place))),
            mode=self.spec.training.step_mode,
            blocks=placement.blocks_at(place),
            segment=segment,
            shard=self.cut.shard(place),
            slots=None if self.serves(rank) else assign_slots(self.program(rank), self.schedule.graph, segment),
            recurrence=self.spec.recurrence,
        )

    def executor(self, rank: int, backend: BackendName, communicators: GridCommunicators) -> Executor:
        """Build a rank's engine with its initial parameters, and bind its program to it."""
        engine = make_engine(
            backend,
            self.network,
            self.extent(rank),
            self.spec,
            communicators.exchange,
            communicators.line,
            direct=self.spec.machine.transport == "direct",
            local_rank=communicators.local_rank,
        )
        engine.load_parameters(self.initial_parameters(rank))
        programs = [self._program(schedule, rank) for schedule in self.cycle]
        parallel = self.spec.parallel
        outer = Outer(parallel.outer_lr, parallel.outer_momentum) if parallel.data_method == "diloco" else None
        replica = Replica(self.share(rank), outer, self._compressor(rank))
        slowdown, goes_on = self._slowdown(rank), self.spec.training.mode == "target"
        return Executor(programs, engine, Transport(communicators), slowdown, replica, goes_on=goes_on)

    def _compressor(self, rank: int) -> Callable[[int, int, Array], CompressedSum] | None:
        """What compresses a rank's gradients."""
        codec = parse_codec(self.schedule.codec)
        if codec is None:
            return None

        def compress(start: int, stop: int, gradient: Array) -> CompressedSum:
            layout = self.cut.gradient_layout(start, stop)
            return codec.bind(gradient, layout, self.place(rank).data, self.grid.data)

        return compress

    def summed_layouts(self) -> tuple[FlatLayout, ...]:
        """What lies in each gradient that is summed by a collective of its own, in a step of a grid of data."""
        sums = {(i.start, i.stop) for i in self.program(0).instructions if isinstance(i, AllReduce | SumStage)}
        return tuple(self.cut.gradient_layout(start, stop) for start, stop in sorted(sums))

    def serves(self, rank: int) -> bool:
        """Whether a rank has no rows, and keeps the parameters."""
        return self.schedule.is_server(rank)

    def initial_parameters(self, rank: int) -> dict[str, Array]:
        """Parameters that a rank starts from: its own where it trains a model of its own."""
        member = rank if self.spec.parallel.data_method in INDEPENDENT else 0
        return initial_parameters(self.network, self.spec.problem.seed, member)

    def _slowdown(self, rank: int) -> Slowdown | None:
        """What slows a rank down on purpose."""
        handicap = parse_handicap(self.spec.machine.handicap).get(rank)
        if handicap is None:
            return None
        before = (self.spec.measure.warmup + handicap.from_step) * self.leg_steps if handicap.from_step else 0
        return Slowdown(handicap.speed, before)

    def flops(self) -> float:
        """Operations of a step, all ranks together."""
        backward = self.spec.training.mode != "forward"
        return self.network.flops(self.spec.problem.seq, self.spec.problem.batch, backward=backward)

    def shares(self) -> dict[Axis, tuple[float, ...]]:
        """What each coordinate of each axis has to do: rows, operations, steps, units."""
        grid, placement = self.grid, self.schedule.placement
        costs = block_costs(self.network, self.spec)
        stages = [sum(costs[b] for b in placement.blocks_at(Place(pipeline=p))) for p in range(grid.pipeline)]
        steps = []
        for segment in placement.segments:
            parts = [self.cut.chunks[c] for c in segment]
            steps.append(float(parts[-1].stop - parts[0].start))
        return {
            "data": tuple(self._data_share(Place(data=d)) for d in range(placement.n_servers, grid.data)),
            "pipeline": tuple(stages),
            "time": tuple(steps),
            "tensor": tuple(float(Shard(k, grid.tensor).count(self.network.hidden)) for k in range(grid.tensor)),
        }

    def imbalance(self) -> dict[Axis, float]:
        """Fraction of the step that each axis loses because its shares do not fit the ranks' speeds, if any."""
        lost = {
            axis: imbalance([share / v for share, v in zip(shares, self._speeds(axis), strict=True)])
            for axis, shares in self.shares().items()
        }
        return {axis: fraction for axis, fraction in lost.items() if fraction > 0}

    def _speeds(self, axis: Axis) -> tuple[float, ...]:
        """Speeds of the positions along an axis that have a share."""
        placement = self.schedule.placement
        return placement.speeds.along(axis, self.grid)[placement.n_servers if axis == "data" else 0 :]

    def _data_share(self, place: Place) -> float:
        """Rows of a replica; where all have all rows, its time steps."""
        return self.cut.terms(place) / (self.spec.problem.batch if self.cut.pieces else self.spec.problem.seq)

    def bubble_bound(self) -> float:
        """Fraction of the ranks' time that must idle even if every task takes exactly its operations' share.

        Of ranks whose speeds are known, at these speeds.
        """
        if self.n_ranks == 1:
            return 0.0
        shares = cast("dict[TaskKind, float]", dict.fromkeys(self.schedule.graph.kinds, 1.0))
        cost = operation_cost(block_costs(self.network, self.spec), self.cut, shares=shares)
        return simulate(self.schedule, self._at_their_speeds(cost)).bubble

    def _at_their_speeds(self, cost: Cost) -> Cost:
        """Costs of tasks over the speed of the rank, or of the slowest of its tensor group, which waits for it."""
        placement, weights = self.schedule.placement, self.layout.weights
        if not weights:
            return cost

        @cache
        def speed(place: Place) -> float:
            return min(weights[rank] for rank in placement.group(place, ("tensor",)))

        return lambda place, task: cost(place, task) / speed(place)

    def memory_bytes(self, rank: int) -> int:
        """Estimate of what a rank allocates."""
        extent = self.extent(rank)
        window = extent.window
        return self._codec_bytes() + self.network.memory_bytes(window.stop - window.start, extent.rows, extent.blocks)

    def _codec_bytes(self) -> int:
        """Bound of what a codec allocates on a rank."""
        if self.schedule.codec == "none":
            return 0
        return memory_bytes(self.schedule.codec, self.summed_layouts(), self.cut.itemsize, self.grid.data)


def block_costs(network: Network, spec: RunSpec) -> tuple[float, ...]:
    """Operations of every block in a step."""
    problem, backward = spec.problem, spec.training.mode != "forward"
    return tuple(
        network.block_flops(index, problem.seq, problem.batch, backward=backward)
        for index in range(len(network.blocks))
    )


def make_plan(spec: RunSpec, workload: Workload, grid: Grid, layout: Layout = UNKNOWN) -> Plan:
    """Lay out a problem over a grid."""
    network = build_network(spec, workload.interface)
    parallel = spec.parallel
    serial = grid.n_ranks == 1
    graph = TaskGraph(
        network.recurrent,
        parallel.microbatches,
        parallel.chunks * grid.time,
        backward=spec.training.mode != "forward",
        coupled=spec.recurrence.method != "chain",
    )
    n_virtual = parallel.virtual_stages if grid.pipeline > 1 else 1
    speeds = speeds_of(grid, layout.weights)
    costs, servers = block_costs(network, spec), n_servers(parallel)
    placement = make_placement(graph, grid, costs, n_virtual=n_virtual, speeds=speeds, n_servers=servers)
    segments = share_out(spec.problem.seq, speeds.along("time", grid), _least_steps(spec))
    pieces: tuple[tuple[slice, ...], ...] = ()
    if parallel.data_method == "subsequence" and not serial:
        parts = share_out(spec.problem.seq, speeds.along("data", grid), parallel.chunks)
        pieces = tuple(cut_time([part], parallel.chunks) for part in parts)
    cut = Cut(
        network,
        placement,
        spec.problem.batch,
        parallel.microbatches,
        pieces[0] if pieces else cut_time(segments, parallel.chunks),
        2 if spec.machine.precision in HALVED else int(np.dtype(network.dtype).itemsize),
        pieces,
    )
    schedule = Schedule(
        graph,
        placement,
        "fill_drain" if serial and parallel.order == "interleaved" else parallel.order,
        spec.training.step_mode,
        parallel.data_method,
        spec.training.carry,
        tuple(block.name for block in network.blocks),
        cut,
        nodes=_nodes(parallel, layout, grid.n_ranks),
        staleness=parallel.staleness,
        codec=parallel.grad_codec,
    )
    return Plan(spec, network, cut, schedule, layout)


def _nodes(parallel: ParallelSpec, layout: Layout, n_ranks: int) -> Nodes | None:
    """Nodes that sums go through, where they do."""
    if parallel.data_method != "hierarchical" or n_ranks == 1:
        return None
    if parallel.node_size is not None:
        return in_turn(n_ranks, parallel.node_size)
    return Nodes(layout.nodes or (0,) * n_ranks)


def _least_steps(spec: RunSpec) -> int:
    """Time steps that every time rank has at the least: one a chunk, or one a segment that is run at once."""
    return max(spec.parallel.chunks, spec.recurrence.fold)


def check_memory(plan: Plan, n_variants: int, local_ranks: int) -> None:
    """Refuse a problem that this node's memory cannot hold, before allocating any of it.

    Parameters
    ----------
    plan : Plan
    n_variants : int
        Ways that are computed on the host.
    local_ranks : int
        Of this node.

    Raises
    ------
    SpecError
        With the estimate and what there is.
    """
    weights = plan.layout.weights
    largest = (
        weights.index(max(weights)) if weights else plan.schedule.placement.n_servers
    )  # rank 0 has no less than others where shares are even
    needed = plan.memory_bytes(largest) * n_variants * local_ranks
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        problem = plan.spec.problem
        raise SpecError(
            "problem.batch",
            problem.batch,
            f"what fits this node's {there / 2**30:.1f} GiB; with seq = {problem.seq}, hidden = "
            f"{plan.spec.model.hidden} and layers = {plan.spec.model.layers} this needs about {needed / 2**30:.3g} GiB",
        )
