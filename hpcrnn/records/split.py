"""How the work of a case is split: its grid, its order and its pieces, its segments of time, and what that is called.

Read from the specification as it was stored: a file of an earlier version lacks keys, and what it lacks has the
value that version knew no other of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hpcrnn.data_methods import ALLREDUCE
from hpcrnn.records.compression import NO_CODEC
from hpcrnn.spec import AXES

PLAIN_ORDER = "fill_drain"
CHAIN = "chain"
"""The method in which each segment of time waits for the one before."""
_ORDERED_AXES = ("pipeline", "time")
"""Axes along which the order of tasks decides how long ranks wait for one another."""


@dataclass(frozen=True)
class Split:
    """How the work is cut, and over which ranks.

    Attributes
    ----------
    axes : tuple of (str, int)
        Axes of the grid longer than one, slowest first; empty for a serial run.
    order : str
    virtual_stages, microbatches, chunks : int
    method : str
        How segments of time come to the states they start from.
    fold : int
        Segments that each time rank computes together; 1 for the chain.
    exchange : str
        Data method and what it is set to, e.g. ``local_sgd 8``; empty where gradients are summed by MPI's allreduce.
    codec : str
        What gradients are compressed with before ranks sum them; ``none`` where they are not.
    """

    axes: tuple[tuple[str, int], ...] = ()
    order: str = PLAIN_ORDER
    virtual_stages: int = 1
    microbatches: int = 1
    chunks: int = 1
    method: str = CHAIN
    fold: int = 1
    exchange: str = ""
    codec: str = NO_CODEC

    @property
    def name(self) -> str:
        """Grid, pieces and methods: ``pipeline 2 · 1f1b M4 C2``, ``data 4 · local_sgd 8``, ``time 4 · picard 16``."""
        return _joined(self.grid_name, self.pieces, self.exchange, self.codec_name, self.method_name)

    @property
    def grid_name(self) -> str:
        """``data 2 × pipeline 2``, or ``serial``; empty on one rank whose segments run at once."""
        alone = "serial" if self.method == CHAIN else ""
        return " × ".join(f"{axis} {count}" for axis, count in self.axes) or alone

    @property
    def method_name(self) -> str:
        """``picard 16``: method and fold; empty for the chain."""
        if self.method == CHAIN:
            return ""
        return f"{self.method} {self.fold}" if self.fold > 1 else self.method

    @property
    def data_method(self) -> str:
        """What replicas exchange; empty where gradients are summed by MPI's allreduce."""
        return self.exchange.partition(" ")[0]

    @property
    def codec_name(self) -> str:
        """``topk:0.01``; empty where gradients are summed as they are."""
        return "" if self.codec == NO_CODEC else self.codec

    @property
    def series_name(self) -> str:
        """The name without the size of the slowest axis, which grows along a scaling curve.

        ``pipeline · 1f1b M4``; ``data × pipeline 2``; ``time · picard 16``.
        """
        if not self.axes:
            return self.name
        (first, _), *others = self.axes
        grown = " × ".join([first, *(f"{axis} {count}" for axis, count in others)])
        return _joined(grown, self.pieces, self.exchange, self.codec_name, self.method_name)

    @property
    def pieces(self) -> str:
        """Order and pieces, where they are not the plain ones: ``interleaved v2 M4 C2``."""
        cut = self.microbatches * self.chunks > 1
        ordered = any(axis in _ORDERED_AXES and not self._at_once(axis) for axis, _ in self.axes)
        parts = [self.order] if ordered or (cut and self.order != PLAIN_ORDER) else []
        counts = {"v": self.virtual_stages, "M": self.microbatches, "C": self.chunks}
        parts += [f"{letter}{count}" for letter, count in counts.items() if count > 1]
        return " ".join(parts)

    def _at_once(self, axis: str) -> bool:
        """Whether the ranks of an axis start together, so that no order of tasks makes them wait."""
        return axis == "time" and self.method != CHAIN

    def place(self, rank: int) -> dict[str, int]:
        """Coordinates of a rank along every axis, the last axis fastest."""
        counts, place = dict(self.axes), {}
        for axis in reversed(AXES):
            rank, place[axis] = divmod(rank, counts.get(axis, 1))
        return {axis: place[axis] for axis in AXES}

    def members(self, rank: int, axes: Sequence[str]) -> tuple[int, ...]:
        """Ranks that differ from a rank along the given axes only, ascending; itself included."""
        counts, place = dict(self.axes), self.place(rank)
        ranges = [range(counts.get(axis, 1)) if axis in axes else (place[axis],) for axis in AXES]
        found = []
        for coordinates in product(*ranges):
            number = 0
            for axis, coordinate in zip(AXES, coordinates, strict=True):
                number = number * counts.get(axis, 1) + coordinate
            found.append(number)
        return tuple(found)


def read_split(
    parallel: Mapping[str, Any], strategy: str, n_ranks: int, recurrence: Mapping[str, Any] | None = None
) -> Split:
    """Read the ``parallel`` and ``recurrence`` sections of a stored specification.

    Parameters
    ----------
    parallel : mapping
    strategy : str
        Says which axis all ranks lie on where no grid was stored.
    n_ranks : int
    recurrence : mapping, optional
        Files of version 2 and 1 do not have it: they knew the chain only.
    """
    method = str((recurrence or {}).get("method", CHAIN))
    grid = parallel.get("grid")
    stored = grid if isinstance(grid, Mapping) else {}
    axes: tuple[tuple[str, int], ...] = tuple((axis, count) for axis in AXES if (count := _count(stored.get(axis))) > 1)
    if math.prod(count for _, count in axes) != n_ranks:
        axes = ((strategy, n_ranks),) if n_ranks > 1 else ()
    return Split(
        axes=axes,
        order=str(parallel.get("order", PLAIN_ORDER)),
        virtual_stages=_count(parallel.get("virtual_stages")),
        microbatches=_count(parallel.get("microbatches")),
        chunks=_count(parallel.get("chunks")),
        method=method,
        fold=1 if method == CHAIN else _count((recurrence or {}).get("fold")),
        exchange=_exchange(parallel) if dict(axes).get("data", 1) > 1 else "",
        codec=str(parallel.get("grad_codec", NO_CODEC)) if "data" in dict(axes) else NO_CODEC,
    )


_SET_BY = {
    "hierarchical": "node_size",
    "parameter_server_async": "staleness",
    "local_sgd": "sync_every",
    "diloco": "sync_every",
}
"""The key whose number stands behind the name of a data method."""


def _exchange(parallel: Mapping[str, Any]) -> str:
    """``local_sgd 8``; empty for the methods in which MPI sums gradients."""
    method = parallel.get("data_method", ALLREDUCE[0])
    if method in ALLREDUCE:
        return ""
    number = parallel.get(_SET_BY.get(method, ""))
    return str(method) if number is None else f"{method} {number}"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 1


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))
