"""The loss of a model on held-out data, by all ranks together, whatever the grid it is trained on.

An evaluation is data-parallel: every rank has the whole model and a share of the sequences.  Where ranks train models
of their own, each says what it thinks of all sequences, and the mean of what they say is judged: of the probabilities
of the target, or of the values.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from hpcrnn.backends.base import Array, Piece
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.benchmarks.ways import SERIAL, Way
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.world import World
from hpcrnn.schedules.placement import split
from hpcrnn.spec import Grid, MachineSpec, RecurrenceSpec, RunSpec
from hpcrnn.training import eval_rows
from hpcrnn.workloads import Batch, describe_held_out, open_held_out


class Evaluation:
    """Held-out sequences and this rank's means to evaluate a model on them.

    Parameters
    ----------
    way : Way
        How the model is trained.
    world : World
        All ranks make one, and call its methods together.
    ensemble : bool
        Whether ranks have models of their own.

    Attributes
    ----------
    description : str
        What the model is held against, in words.
    """

    def __init__(self, way: Way, world: World, *, ensemble: bool) -> None:
        self._world, self._ensemble = world, ensemble
        self._n_rows = eval_rows(way.spec)
        held_out = open_held_out(way.spec, self._n_rows)
        self.description = describe_held_out(held_out, self._n_rows, way.spec.problem.seq)
        rows = slice(0, self._n_rows)
        if not ensemble:
            shares = split(self._n_rows, min(world.size, self._n_rows))
            rows = shares[world.rank] if world.rank < len(shares) else slice(0, 0)
        self._own_rows = int(rows.stop - rows.start)
        self._executor: Executor | None = None
        if self._own_rows:
            self._batch: Batch = held_out.batch(0, rows)
            backend = way.backend_of(world.rank)
            forward = Way(backend, _forward_spec(way.spec, self._own_rows))
            self._executor = forward.plan(held_out).executor(0, backend, world.communicators(Grid()))

    def loss(self, parameters: Mapping[str, Array]) -> float:
        """Evaluate a model; the same number on all ranks.

        Parameters
        ----------
        parameters : mapping of str to array
            Whole, by their canonical names: the same on all ranks, or of an ensemble each rank's own.
        """
        own = 0.0
        if self._executor is not None:
            self._executor.engine.load_parameters(parameters)
            self._executor.engine.load_batch(self._batch)
            self._executor.run()
            own = self._executor.engine.loss * self._own_rows / self._n_rows
        if self._ensemble:
            return self._loss_of_mean()
        return float(self._world.comm.allreduce(own))

    def _loss_of_mean(self) -> float:
        """Judge the mean of what the ranks' models say."""
        if self._executor is None:
            raise TypeError("of an ensemble every rank evaluates")
        said = self._executor.engine.predictions()
        if said.ndim == 2:  # logarithms of probabilities, whose mean is taken as it is of numbers near the largest
            largest = self._world.largest(said)
            mean = self._world.total(np.exp(said - largest)) / self._world.size
            return _weighted_mean(-(largest + np.log(mean)), self._batch.weights)
        mean = self._world.total(said.astype(np.float64)) / self._world.size
        return _weighted_mean(((mean - self._batch.targets) ** 2).mean(axis=-1), self._batch.weights)


def _weighted_mean(terms: Array, weights: Array | None) -> float:
    """Mean over time steps and rows; weights are one on average."""
    return float((terms if weights is None else terms * weights).mean(dtype=np.float64))


def _forward_spec(spec: RunSpec, n_rows: int) -> RunSpec:
    """The forward pass of a problem alone, on one rank."""
    problem = msgspec.structs.replace(spec.problem, batch=n_rows, sequences="windows", batching="naive", spread="even")
    training = msgspec.structs.replace(spec.training, mode="forward", target_loss=None)
    machine: MachineSpec = msgspec.structs.replace(spec.machine, handicap=None)
    return msgspec.structs.replace(
        spec, problem=problem, training=training, machine=machine, parallel=SERIAL, recurrence=RecurrenceSpec()
    )


def whole_parameters(pieces: Mapping[str, Piece], plan: Plan, world: World) -> dict[str, Array]:
    """Put the parameters of a model together that ranks share; all ranks get them.

    Of replicas the first counts: of a parameter server that is the server.

    Parameters
    ----------
    pieces : mapping of str to Piece
        This rank's.
    plan : Plan
    world : World
    """
    place = plan.place(world.rank) if world.rank < plan.n_ranks else None
    first = place is not None and place.data == 0 and place.time == 0
    gathered = world.comm.gather(dict(pieces) if first else {})
    whole: dict[str, Array] = {}
    if gathered is not None:
        for block in plan.network.blocks:
            for name, shape in block.shapes.items():
                key = f"{block.name}.{name}"
                whole[key] = np.full(shape, np.nan, dtype=plan.network.dtype)
                for known in gathered:
                    if key in known:
                        whole[key][known[key].index] = known[key].value
    shared: dict[str, Array] = world.comm.bcast(whole)
    return shared
