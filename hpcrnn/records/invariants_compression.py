"""What must hold of what a gradient codec did."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import numpy as np

from hpcrnn.records.compression import NO_CODEC
from hpcrnn.records.layout_stored import StoredCase
from hpcrnn.records.record import Case
from hpcrnn.records.wrong import Wrong, first_wrong


def check_compression_presence(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """There where a codec compressed the gradients of some step, and nowhere else."""
    wanted = case.grad_codec != NO_CODEC and len(case.loss) > 0
    if (case.compression is not None) != wanted:
        found = "there" if case.compression is not None else "not there"
        expected = f"{'one' if wanted else 'none'}: grad_codec {case.grad_codec}, {len(case.loss)} steps"
        yield Wrong("compression", found, expected)


def check_compression_numbers(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """Bytes were sent, errors are finite, and steps are those of the case, ascending."""
    if (compression := case.compression) is None:
        return
    for name in ("plain_bytes", "coded_bytes", "plain_wire_bytes", "coded_wire_bytes"):
        n_bytes = getattr(compression, name)
        if not (isfinite(n_bytes) and n_bytes > 0):
            yield Wrong(f"compression@{name}", f"{n_bytes:g}", "bytes > 0")
    steps = compression.training_step
    wrong = (steps < 0) | (steps >= len(case.loss)) | (np.diff(steps, prepend=-1) <= 0)
    yield from first_wrong("compression/watched_step", steps, wrong, f"ascending, below {len(case.loss)}", ("row",))
    for name, axes in (("error", ("row",)), ("backlog", ("row",)), ("held_back", ("row", "rank"))):
        numbers = getattr(compression, name)
        wrong = ~(np.isfinite(numbers) & (numbers >= 0))
        yield from first_wrong(f"compression/{name}", numbers, wrong, "a finite number >= 0", axes)
