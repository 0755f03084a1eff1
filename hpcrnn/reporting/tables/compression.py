"""What gradient codecs saved and what they left out, in words and in a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcrnn.records.compression import Compression
from hpcrnn.records.record import Case
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import loss_unit, mode_of
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.certificates import error_text
from hpcrnn.reporting.tables.table import Table
from hpcrnn.reporting.units import MISSING, format_bytes, format_ratio, plural, printable, scientific, significant


def compression_lines(case: Case) -> list[tuple[str, bool]]:
    """Say what the codec of a case saved and left out, a line a subject.

    Returns
    -------
    list of (str, bool)
        The flag marks what must not be overlooked. Empty where gradients were summed as they are.
    """
    compression = case.compression
    if compression is None:
        return []
    sent, plain = format_bytes(compression.coded_wire_bytes), format_bytes(compression.plain_wire_bytes)
    saves = f"gradients as {printable(case.grad_codec)}: a rank sends {sent} a step at the least, {plain} without"
    lines = [(f"{saves}, {_fewer(compression)}", compression.saving <= 1)]
    if len(compression.error):
        steps, backlog = plural(len(compression.error), "step"), significant(float(compression.backlog[-1]), 2)
        error = f"error of a step {_range(compression.error)} of the gradient ({steps} looked at)"
        lines.append((f"{error}; held back at last {backlog} of it", False))
    return [(f"APPROXIMATE: {error_text(case)}, in the first step", True), *lines]


def compression_table(entries: Sequence[Entry]) -> Table | None:
    """Tabulate what codecs saved and left out, a row a case; None where no case has one."""
    called = names(entries)
    rows = [
        [
            str(entry.number),
            called[entry.number],
            printable(entry.case.grad_codec),
            format_bytes(compression.plain_wire_bytes),
            format_bytes(compression.coded_wire_bytes),
            _fewer(compression),
            scientific(entry.case.verdict.gradient_error),
            _range(compression.error),
            significant(float(compression.backlog[-1]), 2) if len(compression.backlog) else MISSING,
            _range(compression.held_back[-1]) if len(compression.held_back) else MISSING,
            _loss(entry.case),
        ]
        for entry in entries
        if (compression := entry.case.compression) is not None
    ]
    if not rows:
        return None
    columns = ["No.", "Case", "Codec", "Sent without", "Sent with", "Saved", "First error", "Error of a step"]
    columns += ["Backlog", "Held back", "Loss"]
    note = (
        "Sent: what a rank must send for the gradient sums of a step at the least, on average over the ranks "
        "(bandwidth-optimal collectives, Chan et al. 2007). First error: of the worst parameter's gradient in one step "
        "from scratch, relative, against float64. The rest is relative to the norm of the gradient that all ranks "
        "together computed in that step, on the steps that were looked at, outside the clock. Error of a step: the "
        "gradient less what was applied; median [least, most]. Backlog: what all ranks together hold back for later "
        "steps, after the last of these; held back: each rank by itself, the median rank [least, most]. Nothing is "
        "lost for good: what is held back is added to the next step's gradient. Loss: of the last training step."
    )
    return Table("Compression", columns, rows, text_columns=(1, 2), note=note)


def _fewer(compression: Compression) -> str:
    """``3.98× fewer``, or ``2.4× more`` of a codec that saves nothing."""
    saving = compression.saving
    return f"{format_ratio(saving)} fewer" if saving > 1 else f"{format_ratio(1 / saving)} more"


def _range(numbers: np.ndarray) -> str:
    """Median, least and most."""
    if not len(numbers):
        return MISSING
    low, middle, high = (significant(float(q), 2) for q in np.quantile(numbers, (0, 0.5, 1)))
    return middle if low == high else f"{middle} [{low}, {high}]"


def _loss(case: Case) -> str:
    """``2.31 nats per byte at step 40``."""
    if mode_of(case) == "gradient" or not case.loss.size:
        return MISSING
    return f"{significant(float(case.loss[-1]))} {loss_unit(case)}".rstrip() + f" at step {case.loss.size}"
