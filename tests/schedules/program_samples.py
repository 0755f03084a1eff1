"""Small schedules of every kind, and sizes that tell every value apart."""

from dataclasses import replace

from hypothesis import settings

from hpcrnn.compression.stages import FlatLayout
from hpcrnn.schedules.graph import TaskGraph
from hpcrnn.schedules.nodes import Nodes
from hpcrnn.schedules.placement import make_placement
from hpcrnn.schedules.schedule import Schedule
from hpcrnn.spec import Grid

fixed_examples = settings(derandomize=True, deadline=None, max_examples=60)

PIPELINE_ORDERS = ("fill_drain", "1f1b", "seq_1f1b", "zb_h1")


class DistinctSizes:
    """No two values, and no two blocks, of the same size; the same on both ends of a message."""

    def value_bytes(self, value, place):
        kind = ("y", "dy", "halo", "dhalo").index(value.kind)
        return 10_000 * (kind + 1) + 1000 * value.block + 100 * value.microbatch + 10 * value.chunk + place.tensor

    def gradient_bytes(self, block, place):
        return 500 + block

    itemsize = 1

    def gradient_layout(self, start, stop):
        shapes = [((f"{block}.W", (10, 50)), (f"{block}.b", (block,))) for block in range(start, stop)]
        names, sizes = zip(*(parameter for block in shapes for parameter in block), strict=True)
        return FlatLayout(names, sizes)


def make_schedule(
    grid="data=1",
    microbatches=1,
    chunks=1,
    order="fill_drain",
    *,
    layers=None,
    n_virtual=1,
    mode="train",
    data_method="allreduce_bucketed",
    carry=False,
    bare=False,
    nodes=None,
    staleness=0,
    averages=False,
    codec="none",
):
    """Input layer, recurrent layers of the same cost, head; ``bare``: no input layer.

    At least one layer a stage; ``chunks`` are those of a segment.
    """
    axes = dict(part.split("=") for part in grid.split(","))
    grid = Grid(**{axis: int(count) for axis, count in axes.items()})
    layers = max(layers or 1, grid.pipeline * n_virtual)
    recurrent = (*([] if bare else [False]), *[True] * layers, False)
    graph = TaskGraph(recurrent, microbatches, chunks * grid.time, backward=mode != "forward")
    placement = make_placement(graph, grid, [float(r) for r in recurrent], n_virtual=n_virtual)
    names = (*([] if bare else ["input"]), *(f"layer{k}" for k in range(layers)), "head")
    known = {"nodes": Nodes(nodes) if nodes else None, "staleness": staleness, "averages": averages, "codec": codec}
    return Schedule(graph, placement, order, mode, data_method, carry, names, DistinctSizes(), **known)


SMALL = {
    "serial train": make_schedule(chunks=2),
    "serial gradient": make_schedule(microbatches=2, mode="gradient"),
    "serial forward": make_schedule(microbatches=2, chunks=2, mode="forward"),
    "serial carry": make_schedule(microbatches=2, carry=True),
    "no input layer": make_schedule("data=2", chunks=2, bare=True),
    "data bucketed": make_schedule("data=2", chunks=2),
    "data flat": make_schedule("data=2", microbatches=2, data_method="allreduce_flat"),
    "data gradient": make_schedule("data=3", mode="gradient"),
    "pipeline": make_schedule("pipeline=2"),
    "pipeline fill_drain": make_schedule("pipeline=2", 2, 1, "fill_drain", mode="gradient"),
    "pipeline 1f1b": make_schedule("pipeline=3", 2, 1, "1f1b"),
    "pipeline seq_1f1b": make_schedule("pipeline=2", 2, 2, "seq_1f1b"),
    "pipeline zb_h1": make_schedule("pipeline=2", 2, 2, "zb_h1"),
    "pipeline forward": make_schedule("pipeline=2", 3, 2, mode="forward"),
    "pipeline interleaved": make_schedule("pipeline=2", 2, 2, "interleaved", n_virtual=2),
    "time": make_schedule("time=2"),
    "time carry": make_schedule("time=2", 2, 1, carry=True),
    "time seq_1f1b": make_schedule("time=2", 2, 2, "seq_1f1b", layers=2),
    "time zb_h1": make_schedule("time=3", 1, 1, "zb_h1", layers=2, carry=True),
    "time forward": make_schedule("time=2", 2, 1, mode="forward", carry=True),
    "tensor": make_schedule("tensor=2", chunks=2),
    "data, pipeline": make_schedule("data=2,pipeline=2", 2, 1, "1f1b"),
    "data, tensor": make_schedule("data=2,tensor=2", data_method="allreduce_flat"),
    "pipeline, time": make_schedule("pipeline=2,time=2", 2, 1, "seq_1f1b", carry=True),
    "pipeline, tensor": make_schedule("pipeline=2,tensor=2", 2, 1, "seq_1f1b"),
    "time, tensor": make_schedule("time=2,tensor=2", 1, 2),
    "one node": make_schedule("data=2", data_method="hierarchical", nodes=(0, 0)),
    "a node each": make_schedule("data=2", data_method="hierarchical", nodes=(0, 1), carry=True),
    "uneven nodes": make_schedule("data=3", data_method="hierarchical", nodes=(0, 1, 0), mode="gradient"),
    "server": make_schedule("data=3", data_method="parameter_server_sync"),
    "server of one": make_schedule("data=2", 2, 1, "zb_h1", data_method="parameter_server_sync", carry=True),
    "late server": make_schedule("data=2", data_method="parameter_server_async", staleness=1),
    "local": make_schedule("data=2", data_method="local_sgd", carry=True),
    "average": make_schedule("data=2", data_method="diloco", averages=True),
    "rounded": make_schedule("data=2", codec="int8"),
    "largest elements": make_schedule("data=2", mode="gradient", data_method="allreduce_flat", codec="topk:3"),
    "low rank": make_schedule("data=2", codec="powersgd:2", bare=True),
}
"""One of everything, small enough to change each instruction."""


def with_instructions(programs, changes):
    """Programs with those of some ranks replaced: ``changes`` is from rank to instructions."""
    return [replace(p, instructions=tuple(changes.get(p.rank, p.instructions))) for p in programs]
