"""The adding problem: the classic test of a long memory.

Of T random numbers two are marked; the sum of those two is asked for after the last step.  Hochreiter &
Schmidhuber, *Long short-term memory*, Neural Computation 9 (1997), experiment 4, in the form of Le, Jaitly &
Hinton (2015): numbers uniform in [0, 1], one mark in each half, the plain sum as the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcrnn.errors import SpecError
from hpcrnn.spec import DType, RunSpec
from hpcrnn.workloads.base import Batch, Interface, row_range, uniform_rows

INTERFACE = Interface("features", 2, "squared_error", 1)


@dataclass(frozen=True)
class AddingWorkload:
    """Two features a step, one target; only the last step's loss counts.

    Attributes
    ----------
    n_rows, seq, seed : int
        B, T >= 2, and the seed.
    dtype : {"float32", "float64"}
    """

    n_rows: int
    seq: int
    seed: int
    dtype: DType
    name: str = "adding"
    interface: Interface = INTERFACE

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """Make inputs (T, B, 2), value and mark; targets (T, B, 1) and weights (T, B), zero but last."""
        taken = row_range(rows, self.n_rows)
        drawn = uniform_rows(self.seed, step, taken, self.seq + 2)
        half = self.seq // 2
        column = np.arange(len(taken))
        first = (drawn[:, -2] * half).astype(np.int64)
        second = half + (drawn[:, -1] * (self.seq - half)).astype(np.int64)
        inputs = np.zeros((self.seq, len(taken), 2), dtype=self.dtype)
        inputs[:, :, 0] = drawn[:, :-2].T
        inputs[first, column, 1] = inputs[second, column, 1] = 1
        targets = np.zeros((self.seq, len(taken), 1), dtype=self.dtype)
        targets[-1, :, 0] = inputs[first, column, 0] + inputs[second, column, 0]
        weights = np.zeros((self.seq, len(taken)), dtype=self.dtype)
        # Weights average one over a sequence, so that the loss is the mean over sequences.
        weights[-1] = self.seq
        return Batch(inputs, targets, weights)

    def describe(self) -> dict[str, Any]:
        """Return the name, and the error of the best constant answer: the variance of two uniforms' sum."""
        return {"name": self.name, "squared_error_of_a_constant": 1 / 6}


def open_adding(spec: RunSpec) -> AddingWorkload:
    """Open the adding problem.

    Raises
    ------
    SpecError
        T is 1: two marks need two steps. Or states are to be carried: every sequence stands alone.
    """
    problem = spec.problem
    if problem.seq < 2:
        key = "problem.seq"
        raise SpecError(key, problem.seq, "an integer >= 2 for the adding workload")
    if spec.training.carry:
        allowed = "false for the adding workload: its sequences stand alone"
        raise SpecError("training.carry", value=True, allowed=allowed)
    return AddingWorkload(problem.batch, problem.seq, problem.seed, spec.model.dtype)
