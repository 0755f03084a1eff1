"""Timelines as Chrome trace events, which https://ui.perfetto.dev and ``chrome://tracing`` open.

A case is a process, a rank a thread, an instruction a complete event; a message is a flow from the post of the
send to the wait of the receive (*Trace Event Format*, Google, 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hpcrnn.errors import FileError
from hpcrnn.records.messages import Transfer, transfers
from hpcrnn.records.record import Record
from hpcrnn.records.timeline import Message, Stage, Sum, Timeline, kind_of, read_post
from hpcrnn.reporting.analysis.entries import Entry, make_entries
from hpcrnn.reporting.describe import case_name, describe_problem

MICROSECONDS = 1e6
Event = dict[str, Any]


def perfetto_trace(records: Sequence[Record]) -> dict[str, Any]:
    """Make the trace of every case that has a timeline.

    Returns
    -------
    dict
        ``traceEvents`` and what viewers show beside them.

    Raises
    ------
    FileError
        No case has one.
    """
    traced = [entry for entry in make_entries(records) if entry.case.timeline is not None]
    if not traced:
        raise FileError("no case of these files has a timeline: run it with --trace")
    return {
        "displayTimeUnit": "ms",
        "otherData": {"generator": f"hpcrnn {records[0].hpcrnn_version}", "clock": "seconds from each step's start"},
        "traceEvents": [event for entry in traced for event in _events(entry)],
    }


def _events(entry: Entry) -> Iterator[Event]:
    timeline = entry.case.timeline
    if timeline is None:
        return
    yield from _names(entry)
    for row in range(len(timeline)):
        yield _complete(entry.number, timeline, row)
    for index, message in enumerate(transfers(timeline)):
        yield from _flow(entry.number, timeline, message, f"{entry.number}.{index}")


def _names(entry: Entry) -> Iterator[Event]:
    """Name a case and its ranks, and put them in order."""
    case, pid = entry.case, entry.number
    kind = "simulated" if case.simulated else "measured"
    named: dict[str, Event] = {
        "process_name": {"name": f"{pid} {case_name(case)}"},
        "process_labels": {"labels": f"{describe_problem(case)}, {kind}, {case.verdict.status}"},
        "process_sort_index": {"sort_index": pid},
    }
    for name, arguments in named.items():
        yield {"ph": "M", "pid": pid, "name": name, "args": arguments}
    for rank in range(case.n_ranks):
        yield {"ph": "M", "pid": pid, "tid": rank, "name": "thread_name", "args": {"name": f"rank {rank}"}}
        yield {"ph": "M", "pid": pid, "tid": rank, "name": "thread_sort_index", "args": {"sort_index": rank}}


def _complete(pid: int, timeline: Timeline, row: int) -> Event:
    start, end = _span(timeline, row)
    text = timeline.instruction[row]
    return {
        "ph": "X",
        "pid": pid,
        "tid": int(timeline.rank[row]),
        "ts": start,
        "dur": round(end - start, 3),
        "name": text,
        "cat": kind_of(text),
        "args": _arguments(text),
    }


def _arguments(text: str) -> dict[str, Any]:
    post = read_post(text)
    if isinstance(post, Message):
        return {"value": post.value, "peer": post.peer, "bytes": post.n_bytes}
    if isinstance(post, Sum):
        return {"axes": ",".join(post.axes), "bytes": post.n_bytes}
    return {"span": post.span, "bytes": post.n_bytes} if isinstance(post, Stage) else {}


def _flow(pid: int, timeline: Timeline, message: Transfer, identity: str) -> Iterator[Event]:
    """Draw a message as an arrow; each end must lie inside the event it belongs to."""
    if message.send is None or message.receive_wait is None:
        return
    posted = _span(timeline, message.send)[0]
    waited, arrived = _span(timeline, message.receive_wait)
    common = {"pid": pid, "name": message.value, "cat": "message", "id": identity}
    yield {**common, "ph": "s", "tid": message.sender, "ts": posted}
    # Not before it was sent, where clocks and the wait allow: an arrow must not point backwards.
    yield {**common, "ph": "f", "bp": "e", "tid": message.receiver, "ts": min(max(posted, waited), arrived)}


def _span(timeline: Timeline, row: int) -> tuple[float, float]:
    """Start and end of an instruction, microseconds, to the nanosecond that clocks tell."""
    return (
        round(float(timeline.start_s[row]) * MICROSECONDS, 3),
        round(float(timeline.end_s[row]) * MICROSECONDS, 3),
    )
