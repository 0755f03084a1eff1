"""What must hold of a case's timeline."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hpcrnn.data_methods import leg_steps
from hpcrnn.records.layout_stored import StoredCase
from hpcrnn.records.record import OTHER, STEP, Case
from hpcrnn.records.timeline import Kind, Message, Timeline, awaited, kind_of, read_post
from hpcrnn.records.wrong import CLOSE, TICK_S, Wrong

_PHASE_OF_WORK: dict[Kind, str] = {
    "forward": "forward",
    "backward": "backward",
    "weight gradient": "weight_gradient",
    "update": "update",
}


def phase_of(instruction: str) -> str:
    """Return the phase to which the time of an instruction was counted."""
    if (kind := kind_of(instruction)) in _PHASE_OF_WORK:
        return "post" if instruction == "Carry" else _PHASE_OF_WORK[kind]
    if instruction.startswith("Serve "):
        return "wait_recv"
    if kind == "waiting":
        what = awaited(instruction).partition(" ")[0]
        return f"wait_{what}" if what in ("recv", "send") else "allreduce"
    return "post" if isinstance(read_post(instruction), Message) else "allreduce"


def _leg_steps(case: Case) -> int:
    sync_every = case.spec["parallel"].get("sync_every", 1)
    return leg_steps(case.split.data_method, sync_every)


def check_timeline_repetition(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A timeline shows the repetition that is nearest to the median."""
    if case.timeline is None:
        return
    away = np.abs(case.step_s() - np.median(case.step_s()))
    shown = case.timeline.repetition
    if away[shown] > away.min() + TICK_S:
        yield Wrong("timeline/@repetition", str(shown), f"{int(away.argmin())}, the nearest to the median step")


def check_timeline_times(case: Case, _: StoredCase) -> Iterator[Wrong]:
    """A rank's instructions fit into its step, and those of a phase take what the phase took.

    Of a leg of several steps the timeline has the last, and the times are means.
    """
    if (timeline := case.timeline) is None or _leg_steps(case) > 1:
        return
    phase_of_row = np.array([phase_of(text) for text in timeline.instruction], dtype=object)
    step, times = case.phases.index(STEP), case.time_s[timeline.repetition]
    for rank in range(case.n_ranks):
        rows = timeline.rows_of(rank)
        if not len(rows):
            yield Wrong(f"timeline of rank {rank}", "no instruction", "at least one")
            continue
        yield from _fault_of_span(timeline, rows, float(times[rank, step]), rank)
        lasted = (timeline.end_s - timeline.start_s)[rows]
        for k, phase in enumerate(case.phases):
            if phase in (STEP, OTHER):
                continue
            spent, wanted = float(lasted[phase_of_row[rows] == phase].sum()), float(times[rank, k])
            if abs(spent - wanted) > CLOSE * wanted + TICK_S:
                yield Wrong(f"timeline of rank {rank}, {phase}", f"{spent:.9g} s", f"{wanted:.9g} s, as in time")


def _fault_of_span(timeline: Timeline, rows: npt.NDArray[np.int64], step_s: float, rank: int) -> Iterator[Wrong]:
    span = float(timeline.end_s[rows].max() - timeline.start_s[rows].min())
    if span > step_s + CLOSE * step_s + TICK_S:
        yield Wrong(f"timeline of rank {rank}", f"{span:.9g} s long", f"at most its step, {step_s:.9g} s")
