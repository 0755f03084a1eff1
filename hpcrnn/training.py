"""Whether a training to a target loss fits the problem and what it runs on."""

from __future__ import annotations

from hpcrnn.errors import SpecError
from hpcrnn.spec import BackendName, RunSpec, option

TRAINED: tuple[BackendName, ...] = ("numpy", "cupy")
"""Backends that are trained to a target; a peer is there for the times of steps."""

_OF_TARGET = ("target_loss", "seeds", "max_steps", "eval_every", "eval_rows")


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
    training = spec.training
    if training.mode != "target":
        for name in _OF_TARGET:
            value, default = getattr(training, name), option(name).default
            if value != default:
                raise SpecError(f"training.{name}", value, "nothing without mode = target")
        return
    if training.target_loss is None:
        raise SpecError("training.target_loss", None, "a loss > 0 to come to, with mode = target")
    if spec.problem.workload == "synthetic":
        raise SpecError("problem.workload", "synthetic", "stdlib, file:PATH, series:PATH or adding with mode = target")
    if training.carry:
        raise SpecError("training.carry", value=True, allowed="false with mode = target")
    if training.eval_every > training.max_steps:
        raise SpecError("training.eval_every", training.eval_every, f"at most max_steps ({training.max_steps})")
    others = [backend for backend in spec.machine.backend if backend not in TRAINED]
    if others:
        raise SpecError("machine.backend", ",".join(spec.machine.backend), "numpy or cupy with mode = target")
    if spec.measure.trace:
        raise SpecError("measure.trace", value=True, allowed="false with mode = target: a leg is many steps")
