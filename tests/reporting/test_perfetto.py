"""The trace that ``hpcrnn export --to perfetto`` writes, and how the command fails."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from factory import make_case, make_record, make_timeline

from hpcrnn.cli import main
from hpcrnn.records.hdf5 import write_record
from hpcrnn.records.messages import transfers
from hpcrnn.reporting.export.as_perfetto import perfetto_trace

CUT = {"order": "1f1b", "microbatches": 4}
REQUIRED = {
    "X": {"ph", "pid", "tid", "ts", "dur", "name", "cat", "args"},
    "M": {"ph", "pid", "name", "args"},
    "s": {"ph", "pid", "tid", "ts", "name", "cat", "id"},
    "f": {"ph", "pid", "tid", "ts", "name", "cat", "id", "bp"},
}
CATEGORIES = {"forward", "backward", "weight gradient", "update", "communication", "waiting", "message"}


def traced_case(grid, **changes):
    return make_case(grid=grid, layers=4, timeline=make_timeline(grid, **CUT), **CUT, **changes)


@pytest.fixture(scope="module")
def record():
    simulated = replace(traced_case({"data": 2, "pipeline": 2}), simulated=True)
    return make_record([make_case(1), traced_case({"pipeline": 4}), simulated])


@pytest.fixture(scope="module")
def events(record):
    trace = json.loads(json.dumps(perfetto_trace([record]), allow_nan=False))
    assert trace["displayTimeUnit"] == "ms"
    return trace["traceEvents"]


def test_every_event_has_the_keys_of_its_kind(events):
    for event in events:
        keys = REQUIRED[event["ph"]]
        assert keys <= set(event) <= keys | {"tid"}
        assert all(isinstance(event[key], int) for key in ("pid", "tid") if key in event)
        assert event.get("cat", "message") in CATEGORIES
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0


def test_every_instruction_is_there_and_times_are_monotone(record, events):
    rows = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            rows[event["pid"], event["tid"]].append(event)
    assert set(rows) == {(pid, tid) for pid in (2, 3) for tid in range(4)}
    for (pid, tid), mine in rows.items():
        timeline = record.cases[pid - 1].timeline
        assert [e["name"] for e in mine] == [timeline.instruction[row] for row in timeline.rows_of(tid)]
        for before, after in pairwise(mine):
            assert before["ts"] + before["dur"] <= after["ts"] + 0.002
    ends = [e["ts"] + e["dur"] for mine in rows.values() for e in mine]
    assert max(ends) == pytest.approx(1e6 * record.cases[1].timeline.end_of_step_s)


def test_flows_begin_and_end_inside_their_events(record, events):
    flows = defaultdict(dict)
    for event in events:
        if event["ph"] in "sf":
            assert event["ph"] not in flows[event["id"]]
            flows[event["id"]][event["ph"]] = event
    assert len(flows) == sum(len(transfers(case.timeline)) for case in record.cases[1:])
    spans = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            spans[event["pid"], event["tid"]].append(event)
    for flow in flows.values():
        begin, end = flow["s"], flow["f"]
        assert begin["ts"] <= end["ts"]
        assert (begin["pid"], begin["name"]) == (end["pid"], end["name"])
        for point, prefix in ((begin, "PostSend"), (end, "Wait recv")):
            around = [e["name"] for e in spans[point["pid"], point["tid"]] if _holds(e, point["ts"])]
            assert any(name.startswith(f"{prefix} {point['name']}") for name in around)


def _holds(event, ts):
    return event["ts"] <= ts <= event["ts"] + event["dur"] + 1e-3


def test_cases_and_ranks_are_named(events):
    named = {(e["pid"], e.get("tid"), e["name"]): e["args"] for e in events if e["ph"] == "M"}
    assert named[2, None, "process_name"] == {"name": "2 pipeline 4 · 1f1b M4 · numpy"}
    assert named[3, None, "process_labels"]["labels"].endswith("simulated, VALID")
    assert named[2, 3, "thread_name"] == {"name": "rank 3"}
    counts = Counter(e["pid"] for e in events if e["ph"] == "M" and e["name"] == "thread_name")
    assert counts == {2: 4, 3: 4}


def test_posts_carry_their_bytes(events):
    post = next(e for e in events if e["ph"] == "X" and e["name"].startswith("PostSend y("))
    assert post["args"] == {"value": post["name"].split()[1], "peer": 1, "bytes": 131072}
    total = next(e for e in events if e["ph"] == "X" and e["name"].startswith("AllReduce(loss)"))
    assert total["args"] == {"axes": "pipeline", "bytes": 8}


def test_the_command_writes_beside_the_file_or_where_it_is_told(record, tmp_path, capsys):
    write_record(record, tmp_path / "a.h5")
    assert main(["export", str(tmp_path / "a.h5"), "--to", "perfetto"]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'a.perfetto.json'}\n"
    other = tmp_path / "new" / "b.json"
    assert main(["export", str(tmp_path / "a.h5"), "--to", "perfetto", "-o", str(other)]) == 0
    assert json.loads(other.read_text()) == json.loads((tmp_path / "a.perfetto.json").read_text())


def test_no_timeline_is_one_line_that_says_what_to_do(tmp_path, capsys):
    write_record(make_record([make_case(1)]), tmp_path / "a.h5")
    assert main(["export", str(tmp_path / "a.h5"), "--to", "perfetto"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith("has a timeline: run it with --trace\n")
    assert output.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5"]


@pytest.mark.parametrize("arguments", [[], ["--to", "xlsx"]])
def test_what_cannot_be_exported_to(tmp_path, capsys, arguments):
    write_record(make_record([make_case(1)]), tmp_path / "a.h5")
    assert main(["export", str(tmp_path / "a.h5"), *arguments]) == 1
    assert "--to" in capsys.readouterr().err


def test_a_trace_that_cannot_be_written(record, tmp_path, capsys):
    write_record(record, tmp_path / "a.h5")
    (tmp_path / "file").write_text("")
    for name, reason in (("file/a.json", "cannot be written: "), ("file", "is there already")):
        assert main(["export", str(tmp_path / "a.h5"), "--to", "perfetto", "-o", str(tmp_path / name)]) == 1
        output = capsys.readouterr()
        assert reason in output.err
        assert output.err.count("\n") == 1
        assert output.out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "file"]
