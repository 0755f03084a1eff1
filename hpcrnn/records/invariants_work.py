"""What must hold of what the steps of a case worked on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpcrnn.records.layout_stored import StoredCase
from hpcrnn.records.record import Case
from hpcrnn.records.wrong import Wrong, first_wrong


def check_work_presence(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """There where steps with sequences of unequal length were timed, and nowhere else."""
    sequences = case.spec["problem"].get("sequences", "windows")
    mode = case.spec["training"].get("mode")
    wanted = sequences != "windows" and mode != "target" and len(case.time_s) > 0
    if (case.work is not None) != wanted:
        found = "there" if case.work is not None else "not there"
        expected = f"{'it' if wanted else 'none'}: sequences {sequences}, mode {mode}, {len(case.time_s)} repetitions"
        yield Wrong("work", found, expected)


def check_work_numbers(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """No step fills more slots than it runs, none runs more than the batch has, and there are sequences."""
    if (work := case.work) is None:
        return
    axes = ("rep", "rank")
    yield from first_wrong("work/tokens", work.tokens, work.tokens < 0, "a number >= 0", axes)
    yield from first_wrong("work/slots", work.slots, work.slots < work.tokens, "at least the tokens", axes)
    problem = case.spec["problem"]
    most = problem.get("batch", np.inf) * problem.get("seq", np.inf)
    total = work.slots.sum(axis=1)
    yield from first_wrong("work/slots", total, total > most, f"at most {most} in a step, of all ranks", ("rep",))
    counts = work.n_sequences
    yield from first_wrong("work/n_sequences", counts, counts < 0, "sequences >= 0", ("length",))
    if not counts.any():
        yield Wrong("work/n_sequences", "no sequence", "at least one")
    if len(counts) != problem.get("seq", len(counts)):
        yield Wrong("work/n_sequences", f"{len(counts)} lengths", f"{problem['seq']}, the steps of a sequence")
