"""Random features and random cotangents: nothing is learnt, and nothing but the network is timed.

Making T·B·(F + H) normal numbers costs as much as a small network's step.  So they are made once, for
T + 3 time steps, and step s of the training sees those from ``s mod 4`` on:

    pool     0 1 2 3 4 ... T-1  T  T+1 T+2
    step 0   |---------------|
    step 1     |----------------|
    step 2       |-------------------|
    step 3         |---------------------|     step 4 is step 0 again

A step's arrays are views of the pool and cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcrnn.errors import SpecError
from hpcrnn.spec import DType, RunSpec
from hpcrnn.workloads.base import Array, Batch, Interface, row_range

N_DISTINCT = 4
"""Training steps that differ before the first comes again."""

_LARGEST_STREAM = 2**18
"""Normal numbers drawn for a row and a kind, about 5 ms; what goes beyond in time repeats them."""

_KEPT_POOLS = 64
"""More sets of rows than that are not asked for in a run; dropping them bounds the memory."""


@dataclass(frozen=True, eq=False)
class SyntheticWorkload:
    """Standard normal inputs (T, B, F) and cotangents (T, B, H), the loss linear in the output.

    Attributes
    ----------
    n_rows, seq, seed : int
        B, T and the seed.
    features, hidden : int
        F and H.
    dtype : {"float32", "float64"}
    """

    n_rows: int
    seq: int
    seed: int
    features: int
    hidden: int
    dtype: DType
    name: str = "synthetic"
    _pools: dict[range, tuple[Array, Array]] = field(default_factory=dict, repr=False)

    @property
    def interface(self) -> Interface:
        """F features in; no head."""
        return Interface("features", self.features, "linear", self.hidden)

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """Return inputs and cotangents: views of a pool that is made when these rows are first asked for."""
        inputs, cotangents = self._pool(row_range(rows, self.n_rows))
        now = slice(step % N_DISTINCT, step % N_DISTINCT + self.seq)
        return Batch(inputs[now], cotangents[now])

    def describe(self) -> dict[str, Any]:
        """Return what the numbers are, and after how many steps they come again."""
        return {
            "name": self.name,
            "distribution": "standard normal",
            "distinct_training_steps": N_DISTINCT,
            "distinct_time_steps": min(self._period(self.features), self._period(self.hidden)),
        }

    def _pool(self, rows: range) -> tuple[Array, Array]:
        if rows not in self._pools:
            if len(self._pools) >= _KEPT_POOLS:
                self._pools.clear()
            self._pools[rows] = (self._normal(rows, 0, self.features), self._normal(rows, 1, self.hidden))
        return self._pools[rows]

    def _normal(self, rows: range, kind: int, width: int) -> Array:
        """Draw (T + 3, len(rows), width) normal numbers; each row has a stream of its own, whoever asks."""
        n_steps = self.seq + N_DISTINCT - 1
        period = self._period(width)
        pool = np.empty((n_steps, len(rows), width), dtype=self.dtype)
        single = self.dtype == "float32"
        for column, row in enumerate(rows):
            stream = np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(kind, row)))
            generator = np.random.Generator(stream)
            drawn = generator.standard_normal((period, width), dtype=np.float32 if single else np.float64)
            for start in range(0, n_steps, period):
                pool[start : start + period, column] = drawn[: n_steps - start]
        return pool

    def _period(self, width: int) -> int:
        """Time steps after which the numbers of a row repeat."""
        return min(self.seq + N_DISTINCT - 1, max(2 * N_DISTINCT, _LARGEST_STREAM // width))


def open_synthetic(spec: RunSpec) -> SyntheticWorkload:
    """Open the synthetic workload: F is ``problem.features``, or the input size of the first layer."""
    problem = spec.problem
    features = problem.features or spec.embed
    return SyntheticWorkload(problem.batch, problem.seq, problem.seed, features, spec.model.hidden, spec.model.dtype)


def check_features(spec: RunSpec) -> None:
    """Refuse ``problem.features`` where the data already say how many there are.

    Raises
    ------
    SpecError
        It is set, and the workload is another one.
    """
    if spec.problem.features is not None and spec.problem.workload != "synthetic":
        allowed = f"left out with workload {spec.problem.workload}: only synthetic asks for it"
        key = "problem.features"
        raise SpecError(key, spec.problem.features, allowed)
