"""A training kept in a file, all ranks' parts of it, and gone on with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcrnn.backends.base import Array
from hpcrnn.benchmarks.ways import Way
from hpcrnn.errors import FileError, SpecError
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.measurement import Samples
from hpcrnn.execution.world import World
from hpcrnn.records.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from hpcrnn.records.learning import Learning
from hpcrnn.records.output import check_writable
from hpcrnn.spec import to_dict

_SAME = ("model", "problem", "training", "parallel", "recurrence")
"""Sections of a specification that a training goes on with as they are."""
_MAY_GROW = ("training.seeds", "training.max_steps")
"""Keys of these that only say how much of it there is to be: a training may go on for longer than was first asked."""
_OF_SAMPLES = ("time_s", "device_time_s", "cpu_time_s", "loss", "gradient_norm", "sent_bytes", "n_steps")


@dataclass(frozen=True, eq=False)
class Kept:
    """What a training goes on from, as one rank knows it.

    Attributes
    ----------
    seed_index, step : int
        The seed under way, and its steps.
    learning : Learning or None
        Of all seeds so far, on rank 0.
    samples : dict of str to array
        Of all legs so far, on rank 0.
    state : dict of str to array or None
        What this rank's executor goes on from; None where the seed has not begun.
    """

    seed_index: int
    step: int
    learning: Learning | None
    samples: dict[str, Array]
    state: dict[str, Array] | None


class TrainingFile:
    """The checkpoint of a training; every rank has one, rank 0 writes and reads.

    Parameters
    ----------
    path : Path
    way : Way
    world : World
    resume : bool
        Whether to go on from what is there.
    overwrite : bool
        Whether a training that is there may be replaced by one that begins.
    """

    def __init__(self, path: Path, way: Way, world: World, *, resume: bool, overwrite: bool) -> None:
        self._path, self._world = path, world
        self._identity = identity_of(way)
        self._resume, self._overwrite = resume, overwrite
        self._complained = False

    def check(self) -> None:
        """Find out on rank 0 whether the file can be written, before anything is trained.

        Raises
        ------
        SpecError
        """
        check_writable(self._path, self._overwrite or self._resume, "measure.checkpoint")

    def read(self) -> Kept | None:
        """Read what to go on from; None where a training is to begin.  All ranks call this.

        Raises
        ------
        FileError
            The file is damaged, or no checkpoint.
        SpecError
            It is of another training.
        """
        is_there = self._world.on_root(lambda: self._resume and self._path.exists())
        if not is_there:
            return None
        checkpoints: list[Checkpoint] = []
        self._world.on_root(lambda: checkpoints.append(self._read()))  # it stays on rank 0
        seed_index, step, states = 0, 0, None
        if checkpoints:
            (checkpoint,) = checkpoints
            seed_index, states = checkpoint.seed_index, list(checkpoint.ranks)
            step = int(checkpoint.learning.curves[-1].step[-1]) if states else 0
        seed_index, step = self._world.comm.bcast((seed_index, step))
        state = self._world.comm.scatter(states or [None] * self._world.size if states is not None else None)
        if not checkpoints:
            return Kept(seed_index, step, None, {}, state)
        return Kept(seed_index, step, checkpoints[0].learning, checkpoints[0].samples, state)

    def _read(self) -> Checkpoint:
        checkpoint = read_checkpoint(self._path)
        if allowed := fault(checkpoint, self._identity):
            raise SpecError("measure.checkpoint", str(self._path), allowed)
        return checkpoint

    def write(self, seed_index: int, executor: Executor | None, samples: Samples) -> None:
        """Keep the training as it is now, or say once that it cannot be kept and go on; all ranks call this.

        Parameters
        ----------
        seed_index : int
            The seed to go on with.
        executor : Executor or None
            What trains it; None where it has not begun.
        samples : Samples
            With the learning so far, on rank 0.
        """
        states = self._world.comm.gather(executor.state()) if executor is not None else []
        if self._world.is_root:
            try:
                self._write(seed_index, states or [], samples)
            except FileError as error:
                if not self._complained:
                    sys.stderr.write(f"hpcrnn: warning: {error}; a kill would lose what is learned from here on\n")
                self._complained = True
        self._world.quiet_barrier()

    def _write(self, seed_index: int, states: Sequence[dict[str, Array]], samples: Samples) -> None:
        if samples.learning is None:
            raise TypeError("nothing has been learned")
        kept = {name: np.array(getattr(samples, name)) for name in _OF_SAMPLES if getattr(samples, name)}
        if samples.staleness is not None:
            kept["staleness"] = samples.staleness
        write_checkpoint(Checkpoint(self._identity, seed_index, samples.learning, kept, tuple(states)), self._path)


def fault(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> str:
    """What a checkpoint would have to be for this training to go on from it; empty where it does.

    Parameters
    ----------
    checkpoint : Checkpoint
    identity : mapping
        Of :func:`identity_of`, of the training that is to go on.
    """
    for key, wanted in identity.items():
        found = checkpoint.identity.get(key)
        if found == wanted or (key in _MAY_GROW and isinstance(found, int) and found < wanted):
            continue
        return f"a checkpoint of this training: its {key} is {found}, here it is {wanted}"
    most = checkpoint.identity["training.max_steps"]
    if most < identity["training.max_steps"]:
        ended = [curve.seed for curve in checkpoint.learning.curves if curve.ending == "max_steps"]
        if ended:
            return f"one of which no seed has ended at its max_steps, {most}: seed {ended[0]} has, and would not go on"
    n_ranks, n_curves = identity["ranks"], len(checkpoint.learning.curves)
    whole = len(checkpoint.ranks) in (0, n_ranks) and n_curves == checkpoint.seed_index + bool(checkpoint.ranks)
    return "" if whole and 0 <= checkpoint.seed_index <= identity["training.seeds"] else "a checkpoint that is whole"


def take_back(samples: Samples, kept: Mapping[str, Array]) -> None:
    """Set samples to those that a checkpoint has."""
    for name, array in kept.items():
        if name in _OF_SAMPLES:
            plain = array.ndim == 1
            setattr(samples, name, array.tolist() if plain else list(array))
    samples.staleness = kept.get("staleness")


def identity_of(way: Way) -> dict[str, Any]:
    """What is trained and how, key by key, as a checkpoint holds it."""
    sections = to_dict(way.spec)
    found = {f"{name}.{key}": value for name in _SAME for key, value in sections[name].items()}
    found |= {
        "machine.backend": list(way.backends),
        "ranks": way.n_ranks,
        "machine.precision": way.spec.machine.precision,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain
