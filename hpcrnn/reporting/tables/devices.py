"""What GPUs say of themselves: how kernels are laid out, how long the GPU took of each phase, and what it held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcrnn.records.record import BUSY_PHASES, STEP, Case, FloatArray
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import MISSING, format_bytes, format_percent, format_seconds, printable


def layouts(case: Case) -> list[tuple[str, str]]:
    """Say how a case's kernels are laid out, once for all ranks where it is the same.

    Returns
    -------
    list of (str, str)
        Ranks, as in ``0–2, 4``, and the layout of their kernels; ranks that say nothing are left out.
    """
    ranks: dict[str, list[int]] = {}
    for rank, text in enumerate(case.kernel_details):
        ranks.setdefault(printable(text), []).append(rank)
    return [(spans(members), text) for text, members in ranks.items() if text]


def layout_lines(case: Case) -> list[str]:
    """Say it in lines for the terminal; without the ranks where all have one layout."""
    found = layouts(case)
    if len(found) == 1 and all(case.kernel_details):
        return [f"kernel: {found[0][1]}"]
    return [f"kernel on rank {ranks}: {text}" for ranks, text in found]


def kernel_table(entries: Sequence[Entry]) -> Table | None:
    """List how kernels are laid out at the sizes they ran at, a row a layout; None where no case says it."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for entry in entries:
        for ranks, text in layouts(entry.case):
            groups.setdefault((printable(entry.case.kernel), ranks, text), []).append(entry.number)
    if not groups:
        return None
    rows = [[spans(numbers), *key] for key, numbers in groups.items()]
    columns = ["No.", "Recurrent product", "Ranks", "Laid out as"]
    note = (
        "What was chosen for the rows of a rank. The recurrent product has one name at every size: cases of one curve "
        "may be laid out in different ways."
    )
    return Table("How kernels are laid out", columns, rows, text_columns=(1, 2, 3), note=note)


def device_table(entries: Sequence[Entry]) -> Table | None:
    """Tabulate how long the GPU took of each phase; None where no case measured it."""
    measured = [(entry, found) for entry in entries if (found := _on_device(entry.case))]
    if not measured:
        return None
    phases = [phase for phase in BUSY_PHASES if any(phase in found for _, found in measured)]
    called = names(entries)
    rows = []
    for entry, found in measured:
        total, spent = np.sum(list(found.values()), axis=0)
        step = entry.case.phase_s(STEP).mean(axis=1)
        rows.append(
            [
                str(entry.number),
                called[entry.number],
                *(_share_text(*found[phase]) if phase in found else MISSING for phase in phases),
                _share_text(total, spent),
                format_seconds(float(np.median(spent - total))),
                format_percent(_share(total, step)),
            ]
        )
    columns = ["No.", "Case", *(phase.replace("_", " ") for phase in phases), "together", "not on the GPU"]
    columns += ["of the step"]
    note = (
        "By the GPU's own clock, from where it begins the work of a task to where that is done, its waits for the next "
        "launch included: median over repetitions of the mean over ranks; in brackets the share of the same phase by "
        "the host's clock. Not on the GPU: what these phases took beyond that, by the host's clock. Of the step: the "
        "GPU's time together over the mean rank's step."
    )
    return Table("Phases on the GPU", columns, rows, text_columns=(1,), note=note)


def device_line(case: Case) -> str:
    """Say for the terminal how long the GPU took of each phase; empty where that was not measured."""
    parts = [f"{phase.replace('_', ' ')} {100 * _share(*pair):.0f}" for phase, pair in _on_device(case).items()]
    return f"on the GPU in % of the phase: {', '.join(parts)}" if parts else ""


def _on_device(case: Case) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return seconds by the clocks of GPU and host, mean over ranks, shape (n_repetitions,) each, of measured phases.

    A rank that measured nothing of a phase, beside others that did, had nothing of it to do.
    """
    found: dict[str, tuple[FloatArray, FloatArray]] = {}
    if case.device_time_s is None:
        return found
    for phase in [name for name in BUSY_PHASES if name in case.phases]:
        seconds, by_host = case.device_time_s[:, :, case.phases.index(phase)], case.phase_s(phase).mean(axis=1)
        if np.isfinite(seconds).any() and np.median(by_host) > 0:
            found[phase] = np.nan_to_num(seconds, nan=0.0).mean(axis=1), by_host
    return found


def _share_text(part: FloatArray, whole: FloatArray) -> str:
    """Write a median, and in brackets what share of another it is."""
    return f"{format_seconds(float(np.median(part)))} ({format_percent(_share(part, whole))})"


def _share(part: FloatArray, whole: FloatArray) -> float:
    """Return a median over another."""
    return float(np.median(part) / np.median(whole))


def held_text(case: Case) -> str:
    """Say what the engine of the rank with the most holds, and the most any rank took of its GPU; empty: unknown."""
    parts = []
    if case.memory_known:
        held, where = format_bytes(float(case.memory_bytes.max())), " on the GPU" if case.on_gpu else ""
        parts.append(f"at most {held} a rank{where}" if case.n_ranks > 1 else held + where)
    if case.device_peak_bytes is not None:
        parts.append(f"GPU memory pool of all cases {format_bytes(float(case.device_peak_bytes.max()))}")
    return "; ".join(parts)
