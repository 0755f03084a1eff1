"""In which order a rank takes its tasks.

A rank's tasks are grouped in *units* that run in one go.  Where layers are pipelined a unit is one chunk of one
micro-batch through all blocks of a stage; where only time is cut it is one layer over the rank's whole segment:
the transpose.  A micro-batch has J units on a rank; its backward units come in reverse.

Every order is an interleaving of the same two rows, forward units and backward units, and differs only in how
many forward units go ahead: the ``lead``.  With ``e`` ranks between this one and the end of the network (or of
time)::

    fill_drain   all                 F F F F F F  B B B B B B       GPipe (Huang et al. 2019)
    1f1b         (e + 1) J units     F F  B B  F F  B B  F F  B B   one micro-batch at a time (PipeDream, Megatron)
    seq_1f1b     J + e units         F F F  B F B F B F B  B B      one unit at a time (Seq1F1B, Sun et al. 2024)
    zb_h1        J + e units         F F F  B F B W F B W F B W W   W deferred (zero bubble, Qi et al. 2023)
    interleaved  more, v stages      F0 F0 F1 F1 …                  virtual stages (Narayanan et al. 2021)

In a backward unit all B come before all W: nobody waits for a W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

from hpcrnn.schedules.graph import Task, TaskGraph, TaskKind
from hpcrnn.schedules.placement import Place, Placement, split
from hpcrnn.spec import OrderName

Unit = tuple[Task, ...]
"""Tasks that run in one go."""


@dataclass(frozen=True)
class Rows:
    """The units of a rank, before they are interleaved.

    Attributes
    ----------
    forward, backward, weights : tuple of Unit
        In the order each kind is taken; ``weights[k]`` belongs to ``backward[k]``.
    per_microbatch : int
        Units J of a micro-batch.
    ranks_after : int
        Ranks between this one and the end, of the network or of time.
    units_after : int
        Forward units these ranks must get before the first gradient can come back.
    units_before : int
        Backward units this rank does before the first rank has its first.
    """

    forward: tuple[Unit, ...]
    backward: tuple[Unit, ...]
    weights: tuple[Unit, ...]
    per_microbatch: int
    ranks_after: int
    units_after: int
    units_before: int


def units(graph: TaskGraph, placement: Placement, place: Place, order: OrderName) -> tuple[Unit, ...]:
    """Order the tasks of one place, grouped in units.

    Parameters
    ----------
    graph : TaskGraph
    placement : Placement
    place : Place
    order : {"fill_drain", "1f1b", "seq_1f1b", "zb_h1", "interleaved"}

    Returns
    -------
    tuple of Unit
    """
    if placement.grid.pipeline == 1 and order == "fill_drain":
        return _block_major(graph, placement, place)
    lay_out = _rows_by_chunk if placement.grid.pipeline > 1 else _rows_by_block
    rows = lay_out(graph, placement, place)
    if not graph.backward:
        return rows.forward
    return _ORDERS[order](rows)


def _block_major(graph: TaskGraph, placement: Placement, place: Place) -> tuple[Unit, ...]:
    """Block by block, all micro-batches of each.

    A block's laid-out weights stay in cache, and its gradient is complete, and can be summed, as early as possible.
    """
    blocks, chunks, parts = placement.blocks_at(place), placement.chunks_at(place), range(graph.n_microbatches)
    forward = [tuple(Task("F", block, m, c) for c in chunks) for block in blocks for m in parts]
    if not graph.backward:
        return tuple(forward)
    kinds: tuple[TaskKind, ...] = ("B", "W")
    backward = [
        tuple(Task(kind, block, m, c) for kind in kinds for c in reversed(chunks))
        for block in reversed(blocks)
        for m in parts
    ]
    return tuple(forward + backward)


def _rows_by_chunk(graph: TaskGraph, placement: Placement, place: Place) -> Rows:
    """A unit is a chunk of a micro-batch through the blocks of a virtual stage.

    Where time is cut too, all chunks of the segment are one unit: the segment after needs them all before its
    first.  Virtual stages take turns after as many units as there are pipeline ranks: the first of the next
    stage is then just arriving from the last rank.
    """
    grid, segment, parts = placement.grid, placement.chunks_at(place), range(graph.n_microbatches)
    pieces = [segment] if grid.time > 1 else [range(c, c + 1) for c in segment]
    stages = placement.stages_at(place)
    forward = _in_turns([(m, piece) for m in parts for piece in pieces], stages, grid.pipeline)
    backward = _in_turns([(m, piece) for m in parts for piece in reversed(pieces)], stages[::-1], grid.pipeline)
    later_stages = grid.pipeline - 1 - place.pipeline
    before, after = _windows_around(graph, placement, place)
    # With virtual stages a gradient also passes every rank once more before it is back.
    rounds = 1 if len(stages) == 1 else 2
    return Rows(
        tuple(tuple(Task("F", b, m, c) for c in piece for b in stage) for stage, (m, piece) in forward),
        tuple(tuple(Task("B", b, m, c) for c in piece[::-1] for b in stage[::-1]) for stage, (m, piece) in backward),
        tuple(tuple(Task("W", b, m, c) for c in piece[::-1] for b in stage[::-1]) for stage, (m, piece) in backward),
        per_microbatch=len(pieces) * len(stages),
        ranks_after=later_stages + after,
        units_after=rounds * later_stages + after,
        units_before=place.pipeline + before,
    )


def _rows_by_block(graph: TaskGraph, placement: Placement, place: Place) -> Rows:
    """A unit is a layer of a micro-batch over the rank's segment: the transpose.

    Input layer and head go with the layers beside them: they exchange nothing, so alone they would be units that
    no other rank waits for.
    """
    layers = _layers(graph, placement.blocks_at(place))
    before, after = _windows_around(graph, placement, place)
    chunks, parts = placement.chunks_at(place), range(graph.n_microbatches)
    forward = [(layer, m) for m in parts for layer in layers]
    backward = [(layer[::-1], m) for m in parts for layer in reversed(layers)]
    return Rows(
        tuple(tuple(Task("F", b, m, c) for b in layer for c in chunks) for layer, m in forward),
        tuple(tuple(Task("B", b, m, c) for b in layer for c in reversed(chunks)) for layer, m in backward),
        tuple(tuple(Task("W", b, m, c) for b in layer for c in reversed(chunks)) for layer, m in backward),
        per_microbatch=len(layers),
        ranks_after=after,
        units_after=after,
        units_before=before,
    )


def _windows_around(graph: TaskGraph, placement: Placement, place: Place) -> tuple[int, int]:
    """Windows of time before and after a rank's that it waits for; none where chunks are solved together."""
    return (0, 0) if graph.coupled else (place.time, placement.grid.time - 1 - place.time)


def _layers(graph: TaskGraph, blocks: Sequence[int]) -> list[tuple[int, ...]]:
    """Recurrent blocks, each with the others before it; the last also with those after it."""
    heavy = [at for at, block in enumerate(blocks) if graph.recurrent[block]]
    bounds = [0, *(at + 1 for at in heavy[:-1]), len(blocks)]
    return [tuple(blocks[start:stop]) for start, stop in pairwise(bounds)]


def _in_turns(
    items: Sequence[tuple[int, range]], stages: Sequence[range], group: int
) -> list[tuple[range, tuple[int, range]]]:
    """Take items in groups of at least ``group``, each group through all stages before the next."""
    groups = [items] if len(stages) == 1 else [items[part] for part in turns(len(items), group)]
    return [(stage, item) for members in groups for stage in stages for item in members]


def turns(n_items: int, n_positions: int) -> tuple[slice, ...]:
    """Cut chunks of micro-batches into the groups in which virtual stages take turns.

    As many groups as can be, each of at least ``n_positions`` items: of fewer, the first would not be back from the
    last rank in time.  All in one group where there are fewer than that.
    """
    return split(n_items, max(1, n_items // n_positions))


def _fill_drain(rows: Rows) -> tuple[Unit, ...]:
    return _interleaved(rows.forward, _fused(rows), len(rows.forward))


def _one_forward_one_backward(rows: Rows) -> tuple[Unit, ...]:
    """Whole micro-batches take turns."""
    J = rows.per_microbatch
    return _interleaved(_joined(rows.forward, J), _joined(_fused(rows), J), 1 + rows.ranks_after)


def _sequence_one_forward_one_backward(rows: Rows) -> tuple[Unit, ...]:
    return _interleaved(rows.forward, _fused(rows), _lead(rows))


def _zero_bubble(rows: Rows) -> tuple[Unit, ...]:
    """B at once, W only after as many more B as there are ranks before this one: they fill the gaps of the drain."""
    late: list[Unit] = [()] * min(rows.units_before, len(rows.weights)) + list(rows.weights)
    backward = [b + w for b, w in zip_longest(rows.backward, late[: len(rows.backward)], fillvalue=())]
    rest = late[len(rows.backward) :]
    return _interleaved(rows.forward, backward, _lead(rows)) + tuple(unit for unit in rest if unit)


def _lead(rows: Rows) -> int:
    """Forward units before the first backward unit.

    On the last rank as many as the backward units need that follow, however stages and chunks take turns; on
    others ``units_after`` more.
    """
    index = {(unit[0].block, unit[0].microbatch, unit[0].chunk): k for k, unit in enumerate(rows.forward)}
    needed = (index[unit[-1].block, unit[-1].microbatch, unit[-1].chunk] - k for k, unit in enumerate(rows.backward))
    return 1 + max(needed) + rows.units_after


def _fused(rows: Rows) -> list[Unit]:
    return [b + w for b, w in zip(rows.backward, rows.weights, strict=True)]


def _joined(row: Sequence[Unit], J: int) -> list[Unit]:
    """J units made one."""
    return [tuple(task for unit in row[start : start + J] for task in unit) for start in range(0, len(row), J)]


def _interleaved(forward: Sequence[Unit], backward: Sequence[Unit], lead: int) -> tuple[Unit, ...]:
    """``lead`` forward units, then backward and forward units in turn."""
    found = list(forward[:lead])
    for b, f in zip_longest(backward, forward[lead:]):
        found += [unit for unit in (b, f) if unit is not None]
    return tuple(found)


_ORDERS: dict[OrderName, Callable[[Rows], tuple[Unit, ...]]] = {
    "fill_drain": _fill_drain,
    "1f1b": _one_forward_one_backward,
    "seq_1f1b": _sequence_one_forward_one_backward,
    "zb_h1": _zero_bubble,
    "interleaved": _sequence_one_forward_one_backward,
}
