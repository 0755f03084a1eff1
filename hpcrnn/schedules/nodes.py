"""Ranks by node, and who owns which part of a sum that goes through nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcrnn.schedules.placement import split


@dataclass(frozen=True)
class Nodes:
    """Which node every rank lies on.

    In a hierarchical sum the first ranks of every node, as many as the smallest node has, own a part each: the part is
    summed on its owner within every node, then over its owners across nodes.

    Attributes
    ----------
    of : tuple of int
        Node of each rank, any number.
    """

    of: tuple[int, ...]

    @cached_property
    def _members(self) -> dict[int, tuple[int, ...]]:
        return {node: tuple(r for r, n in enumerate(self.of) if n == node) for node in dict.fromkeys(self.of)}

    @property
    def n_parts(self) -> int:
        """Parts of a sum: ranks of the smallest node."""
        return min(map(len, self._members.values()))

    @property
    def n_nodes(self) -> int:
        """Nodes there are."""
        return len(self._members)

    def within(self, rank: int) -> tuple[int, ...]:
        """Ranks of a rank's node, itself included."""
        return self._members[self.of[rank]]

    def index(self, rank: int) -> int:
        """Place of a rank in its node; it owns the part of that number, if there is one."""
        return self.within(rank).index(rank)

    def across(self, rank: int) -> tuple[int, ...]:
        """Owners of a rank's part in all nodes, itself included; itself alone where it owns none."""
        index = self.index(rank)
        return tuple(members[index] for members in self._members.values()) if index < self.n_parts else (rank,)

    def counts(self, rank: int, length: int) -> tuple[int, ...]:
        """Elements of a vector that each rank of a rank's node owns."""
        owned = [int(part.stop - part.start) for part in split(length, self.n_parts)]
        return (*owned, *[0] * (len(self.within(rank)) - len(owned)))


def in_turn(n_ranks: int, node_size: int) -> Nodes:
    """Take ranks in turn as nodes of a size; the last may be smaller.

    ``in_turn(5, 2).of`` is ``(0, 0, 1, 1, 2)``.
    """
    return Nodes(tuple(rank // node_size for rank in range(n_ranks)))


def nodes_named(names: Sequence[object]) -> Nodes:
    """Number the nodes of ranks by what names each rank's, in the order in which they first appear."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return Nodes(tuple(numbers[name] for name in names))
