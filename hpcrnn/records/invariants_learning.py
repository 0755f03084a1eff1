"""What must hold of the learning curves of a case that was trained to a target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpcrnn.records.layout_stored import StoredCase
from hpcrnn.records.learning import Curve
from hpcrnn.records.record import Case
from hpcrnn.records.wrong import Wrong


def check_learning_presence(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A case of mode ``target`` that was run has learning curves; no other has."""
    wanted = case.spec["training"].get("mode") == "target" and case.verdict.status != "INVALID"
    if (case.learning is not None) != wanted:
        found = "there" if case.learning is not None else "not there"
        yield Wrong("learning", found, "there with mode target, and there only")


def check_learning_curves(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Steps, seconds, bytes and joules grow from nothing; seeds differ; a target reached is a loss at or below it."""
    if (learning := case.learning) is None:
        return
    seeds = [curve.seed for curve in learning.curves]
    if len(set(seeds)) < len(seeds):
        yield Wrong("learning/seed", str(seeds), "each seed once")
    for curve in learning.curves:
        yield from _check_growth(curve)
        at_target = curve.held_out_loss <= learning.target_loss
        if at_target[:-1].any() or curve.reached != bool(at_target[-1:].any()):
            where = f"learning/ending of seed {curve.seed}"
            yield Wrong(
                where, curve.ending, "target where the last loss, and no earlier one, is at or below the target"
            )
    n_legs = sum(max(0, len(curve.step) - 1) for curve in learning.curves)
    if n_legs != len(case.time_s):
        yield Wrong("learning/evaluation", f"{n_legs} after a leg", f"{len(case.time_s)}, one a repetition")


def _check_growth(curve: Curve) -> Iterator[Wrong]:
    for name in ("step", "time_s", "sent_bytes", "energy_j"):
        column = getattr(curve, name)
        known = column[np.isfinite(column)]
        if len(known) and (known[0] != 0 or (np.diff(known) < 0).any()):
            yield Wrong(f"learning/{name} of seed {curve.seed}", f"{known[0]:g}, ...", "0, then nothing smaller")
