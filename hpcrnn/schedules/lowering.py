"""From ordered tasks to a program: the communication, derived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hpcrnn.model.network import Network
from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.order import block_major
from hpcrnn.schedules.placement import Placement
from hpcrnn.schedules.program import AllReduce, AllReduceLoss, Instruction, Post, Program, Update, Wait
from hpcrnn.spec import Mode


def build_programs(
    network: Network,
    placement: Placement,
    *,
    n_microbatches: int,
    n_chunks: int,
    mode: Mode,
    allreduce: Literal["bucketed", "flat"],
) -> tuple[TaskGraph, tuple[Program, ...]]:
    """Build the program of every rank.

    Parameters
    ----------
    network : Network
    placement : Placement
    n_microbatches, n_chunks : int
    mode : {"train", "gradient", "forward"}
    allreduce : {"bucketed", "flat"}
        Sum a block's gradients as soon as they are complete, or all of them at the end.

    Returns
    -------
    graph : TaskGraph
    programs : tuple of Program
        One a rank.
    """
    graph = TaskGraph(network.recurrent, n_microbatches, n_chunks, backward=mode != "forward")
    programs = []
    for rank in range(placement.n_ranks):
        tasks = block_major(placement.tasks(graph, rank))
        instructions: list[Instruction] = list(tasks)
        if placement.n_replicas > 1:
            instructions = lower_reductions(tasks, network, flat=allreduce == "flat")
        if mode == "train":
            instructions.append(Update())
        names = tuple(block.name for block in network.blocks)
        programs.append(Program(rank, placement.n_ranks, names, tuple(instructions)))
    return graph, tuple(programs)


def lower_reductions(tasks: Sequence[Task], network: Network, *, flat: bool) -> list[Instruction]:
    """Begin each sum right after the task that completes its operand; wait for all at the end.

    Waits come in the order of the posts: the first sum begun has had the longest to arrive.
    """
    itemsize = 4 if network.dtype == "float32" else 8
    sizes = [block.n_parameters * itemsize for block in network.blocks]
    last = {(task.kind, task.block): index for index, task in enumerate(tasks)}

    posts: dict[int, Post] = {last["F", len(sizes) - 1]: AllReduceLoss()}
    if ("W", 0) in last:
        buckets = [(0, len(sizes))] if flat else [(block, block + 1) for block in range(len(sizes))]
        for start, stop in buckets:
            n_bytes = sum(sizes[start:stop])
            if n_bytes:
                complete = max(last["W", block] for block in range(start, stop))
                posts[complete] = AllReduce(start, stop, n_bytes)

    instructions: list[Instruction] = []
    for index, task in enumerate(tasks):
        instructions.append(task)
        if index in posts:
            instructions.append(posts[index])
    waits: list[Instruction] = [Wait(posts[index]) for index in sorted(posts)]
    return instructions + waits
