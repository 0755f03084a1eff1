"""Whether a training to a target loss fits the problem and what it runs on."""

from __future__ import annotations

from hpcrnn.data_methods import AVERAGED
from hpcrnn.errors import SpecError
from hpcrnn.spec import BackendName, RunSpec, option

TRAINED: tuple[BackendName, ...] = ("numpy", "cupy")
"""Backends that are trained to a target; a peer is there for the times of steps."""

_OF_TARGET = (
    "training.target_loss",
    "training.seeds",
    "training.max_steps",
    "training.eval_every",
    "training.eval_rows",
    "measure.checkpoint",
    "measure.checkpoint_every",
    "measure.resume",
)


def eval_rows(spec: RunSpec) -> int:
    """Return the held-out sequences of an evaluation."""
    return spec.training.eval_rows or 4 * spec.problem.batch


def check_training(spec: RunSpec) -> None:
    """Refuse keys of mode ``target`` without it, and a mode ``target`` that cannot end or has nothing to measure.

    Raises
    ------
    SpecError
        Naming what would be allowed.
    """
    if spec.training.mode == "target":
        _check_training(spec)
        _check_what_is_trained(spec)
        _check_checkpoint(spec)
        return
    for key in _OF_TARGET:
        leaf = option(key)
        value = getattr(getattr(spec, leaf.section), leaf.name)
        if value != leaf.default:
            raise SpecError(key, value, "nothing without mode = target")


def _check_training(spec: RunSpec) -> None:
    training = spec.training
    if training.target_loss is None:
        raise SpecError("training.target_loss", None, "a loss > 0 to come to, with mode = target")
    if training.carry:
        raise SpecError("training.carry", value=True, allowed="false with mode = target")
    averaged = spec.parallel.data_method in AVERAGED
    if averaged and training.eval_every % spec.parallel.sync_every:
        allowed = f"a multiple of sync_every ({spec.parallel.sync_every}): what is evaluated is the average"
        raise SpecError("training.eval_every", training.eval_every, allowed)
    if training.eval_every > training.max_steps:
        raise SpecError("training.eval_every", training.eval_every, f"at most max_steps ({training.max_steps})")
    if spec.measure.trace:
        raise SpecError("measure.trace", value=True, allowed="false with mode = target: a leg is many steps")


def _check_what_is_trained(spec: RunSpec) -> None:
    if spec.problem.workload == "synthetic":
        allowed = "stdlib, file:PATH, series:PATH or adding with mode = target: there is nothing to learn in it"
        raise SpecError("problem.workload", "synthetic", allowed)
    if spec.problem.sequences != "windows":
        raise SpecError("problem.sequences", spec.problem.sequences, "windows with mode = target")
    if len(spec.machine.backend) > 1 or spec.machine.backend[0] not in TRAINED:
        allowed = f"{' or '.join(TRAINED)}, one of them, with mode = target"
        raise SpecError("machine.backend", ",".join(spec.machine.backend), allowed)


def _check_checkpoint(spec: RunSpec) -> None:
    if spec.measure.resume and spec.measure.checkpoint is None:
        allowed = "false without measure.checkpoint, the file to go on from"
        raise SpecError("measure.resume", value=True, allowed=allowed)
    if spec.measure.checkpoint is not None and spec.recurrence.method != "chain":
        allowed = f"nothing with method {spec.recurrence.method}: what its solves did is not kept"
        raise SpecError("measure.checkpoint", spec.measure.checkpoint, allowed)
