"""Synthetic trainings to a target loss: curves that fall as those of real models do, over several seeds and methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from factory import make_case

from hpcrnn.records.learning import Curve, Learning
from hpcrnn.records.record import Case

UNTRAINED = 5.545
EVERY = 20
"""Steps from one evaluation to the next."""


def make_curve(
    seed: int = 0,
    *,
    target: float = 2.5,
    step_s: float = 0.1,
    pace: float = 1.0,
    floor: float = 1.9,
    max_steps: int = 400,
    ending: str = "max_steps",
    sent_bytes: int = 0,
    watts: float = float("nan"),
) -> Curve:
    """Make the curve of a seed: a power law with noise, until the target or its end.

    Parameters
    ----------
    pace : float
        How fast it learns, against that of a serial run.
    floor : float
        What the loss comes down to at last; above the target, it never gets there.
    """
    random = np.random.default_rng([seed, int(1e4 * pace)])
    steps = np.arange(0, max_steps + 1, EVERY)
    loss = floor + (UNTRAINED - floor) / (1 + steps * pace * random.uniform(0.9, 1.1) / 40)
    loss += np.append(0, 0.02 * random.standard_normal(len(steps) - 1))
    there = np.flatnonzero(loss <= target)
    n = int(there[0]) + 1 if there.size else len(steps)
    steps, loss = steps[:n], loss[:n]
    legs = EVERY * step_s * random.uniform(0.97, 1.06, n - 1)
    time_s = np.append(0.0, np.cumsum(legs))
    return Curve(
        seed=seed,
        ending="target" if there.size else ending,
        step=steps,
        time_s=time_s,
        sent_bytes=steps * sent_bytes,
        energy_j=watts * time_s,
        train_loss=np.append(np.nan, loss[1:] - 0.05),
        held_out_loss=loss,
    )


def with_curves(
    curves: Sequence[Curve],
    n_ranks: int = 1,
    target: float = 2.5,
    *,
    staleness: Sequence[int] | None = None,
    unit: str = "nats per byte",
    data_method: str = "allreduce_bucketed",
    **changes: object,
) -> Case:
    """Make the case of these curves, as a file may hold it: a repetition is a leg."""
    legs = np.concatenate([np.diff(c.time_s) / np.diff(c.step) for c in curves])
    wanted = {"mode": "target", "target_loss": target, "seeds": len(curves), "eval_every": EVERY, **changes}
    case = make_case(n_ranks, 64, samples=legs.tolist(), n_warmup=1, **wanted)
    case.spec["parallel"]["data_method"] = data_method
    counts = None if staleness is None else np.array(staleness)
    learning = Learning(target, unit, "256 sequences of the last tenth", tuple(curves))
    return replace(case, learning=learning, staleness=counts)


def trained(
    n_ranks: int = 1,
    *,
    n_seeds: int = 5,
    target: float = 2.5,
    staleness: Sequence[int] | None = None,
    changes: dict[str, object] | None = None,
    **curve: object,
) -> Case:
    """Make a case of several seeds that were trained alike."""
    curves = [make_curve(seed, target=target, **curve) for seed in range(n_seeds)]
    return with_curves(curves, n_ranks, target, staleness=staleness, **(changes or {}))


def target_cases(n_seeds: int = 5) -> list[Case]:
    """Make a serial run and methods on 2 and 4 ranks: faster, slower, undecided, some seeds or all stopped before."""
    floors = (2.1, 2.6, 2.0, 2.7, 2.65)
    some = [make_curve(k, step_s=0.07, pace=0.8, floor=floors[k % 5], sent_bytes=4_000) for k in range(n_seeds)]
    way = {"n_seeds": n_seeds}
    return [
        trained(1, step_s=0.1, watts=60, **way),
        trained(2, step_s=0.055, sent_bytes=16_800_000, watts=95, **way),
        trained(4, step_s=0.034, sent_bytes=33_600_000, watts=170, **way),
        trained(2, step_s=0.051, pace=0.85, sent_bytes=2_100_000, changes={"data_method": "local_sgd"}, **way),
        trained(4, step_s=0.027, pace=0.6, sent_bytes=4_200_000, changes={"data_method": "local_sgd"}, **way),
        trained(
            4, step_s=0.03, pace=0.55, sent_bytes=25_000_000, staleness=[900, 420, 130, 14],
            changes={"data_method": "parameter_server_async"}, **way,
        ),
        with_curves(some, 4, data_method="ensemble"),
        trained(2, step_s=0.06, floor=2.8, sent_bytes=500_000, changes={"data_method": "subsequence"}, **way),
    ]  # fmt: skip


def curve_of(time_s, loss, ending="target", seed=0, step=None, sent=0):
    """A curve with these evaluations."""
    time_s = np.array(time_s, dtype=float)
    step = np.arange(len(time_s)) * 20 if step is None else np.array(step)
    return Curve(
        seed=seed,
        ending=ending,
        step=step,
        time_s=time_s,
        sent_bytes=step * sent,
        energy_j=np.full(len(time_s), np.nan),
        train_loss=np.array(loss, dtype=float),
        held_out_loss=np.array(loss, dtype=float),
    )


def ends_at(times, n_ranks=1, target=2.0, **changes):
    """A case whose seeds reach the target after these seconds; ``(s, ending)`` for those that end without it."""
    curves = []
    for seed, time in enumerate(times):
        end, ending = time if isinstance(time, tuple) else (time, "target")
        last = target if ending == "target" else 3.0
        curves.append(curve_of([0.0, end], [5.5, last], ending, seed))
    return with_curves(curves, n_ranks, target, **changes)
