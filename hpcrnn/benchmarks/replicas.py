"""What replicas know of a step, put so that it can be held against one serial step.

Ranks of an exact method all know the whole gradient.  Others do not: a worker knows that of its own rows, its server
the sum; and where every rank has a loss of its own, a mean over its own rows, the gradient of the whole batch is the
mean of theirs, weighted by their shares.  That is what is checked: the machinery is right, whatever the method then
makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcrnn.backends.base import Array, Part, Piece
from hpcrnn.benchmarks.comparison import relative_error
from hpcrnn.benchmarks.one_step import Boundary
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.workloads import Batch, Interface, Workload


@dataclass(frozen=True)
class PieceOfWorkload:
    """A workload whose sequences are pieces of another's.

    Attributes
    ----------
    whole : Workload
    piece : slice
        Time steps.
    """

    whole: Workload
    piece: slice

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def interface(self) -> Interface:
        return self.whole.interface

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        whole = self.whole.batch(step, rows)
        weights = None if whole.weights is None else whole.weights[self.piece]
        return Batch(whole.inputs[self.piece], whole.targets[self.piece], weights)

    def describe(self) -> dict[str, Any]:
        return self.whole.describe()


GRADIENT = "gradient "
"""What names of gradients of parameters begin with."""


def shared_boundary(plan: Plan, rank: int, boundary: Boundary) -> Boundary:
    """What a rank starts from so that its gradients, times its share, are its part of the whole batch's.

    Gradients of final states are of the loss of the whole batch; a rank whose loss is a mean over its own rows needs
    them as much larger as its share is small.
    """
    if plan.is_exact or plan.cut.pieces or plan.serves(rank):
        return boundary
    initial, cotangent = boundary
    return initial, {name: array / plan.share(rank) for name, array in cotangent.items()}


def as_parts_of_one_step(plan: Plan, parts: Sequence[Part]) -> list[Part]:
    """Turn what each rank knows, in the order of ranks, into its part of one step on the whole batch."""
    if plan.schedule.workers and plan.is_exact:
        return [part if plan.serves(rank) else _without_gradient(part) for rank, part in enumerate(parts)]
    if plan.is_exact:
        return list(parts)
    with_rows = [(rank, part) for rank, part in enumerate(parts) if not plan.serves(rank)]
    shared = [_times(part, plan.share(rank)) for rank, part in with_rows]
    loss, gradient = sum(part.loss for part in shared), _sum_of_gradients(shared)
    states = [Part(loss, {n: p for n, p in part.pieces.items() if not n.startswith(GRADIENT)}) for part in shared]
    with_gradient = Part(loss, states[0].pieces | gradient)
    filled = iter([with_gradient, *states[1:]])
    return [Part(loss) if plan.serves(rank) else next(filled) for rank in range(len(parts))]


def _without_gradient(part: Part) -> Part:
    return Part(part.loss, {name: piece for name, piece in part.pieces.items() if not name.startswith(GRADIENT)})


def _times(part: Part, share: float) -> Part:
    """Everything that is linear in the loss, times a share; states are as they are."""
    scaled = {
        name: piece if name.startswith("state ") else Piece(piece.index, piece.value * share)
        for name, piece in part.pieces.items()
    }
    return Part(part.loss * share, scaled)


def _sum_of_gradients(parts: Sequence[Part]) -> dict[str, Piece]:
    """Gradients added up in float64, in the order of the ranks."""
    total: dict[str, Piece] = {}
    for part in parts:
        for name, piece in part.pieces.items():
            if name.startswith(GRADIENT):
                before = total[name].value if name in total else 0.0
                total[name] = Piece(piece.index, before + piece.value.astype(np.float64))
    return total


def disagreement(models: Sequence[Mapping[str, Array]]) -> float:
    """Largest relative difference between a parameter of some rank and that of the first."""
    return max(
        (relative_error(model[name], models[0][name]) for model in models[1:] for name in model),
        default=0.0,
    )
