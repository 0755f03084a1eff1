"""Timelines: what an instruction is, which belong together, and whose fault a wait is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import EXCHANGE, make_case, make_timeline

from hpcrnn.records.bubble import account_waits, measured_bubble
from hpcrnn.records.messages import reductions, transfers
from hpcrnn.records.split import Split
from hpcrnn.records.timeline import Message, Sum, awaited, kind_of, read_post

PIPELINE = {"grid": {"data": 1, "pipeline": 2}}


def pipeline_case(n_ranks=2, **changes):
    return make_case(n_ranks, strategy="pipeline", overrides={"grid": {"data": 1, "pipeline": n_ranks}}, **changes)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("F(1,0,0)", "forward"),
        ("B(1,0,0)", "backward"),
        ("W(10,2,3)", "weight gradient"),
        ("Update", "update"),
        ("Carry", "update"),
        ("PostSend y(2,0,1) to 1, 65536 B", "communication"),
        ("PostRecv halo(1,0,0) from 0, 100 B", "communication"),
        ("AllReduce(2:3) over data, 66560 B", "communication"),
        ("AllReduce(loss) over pipeline,time, 8 B", "communication"),
        ("Wait recv y(1,0,0)", "waiting"),
        ("Wait AllReduce(2:3)", "waiting"),
    ],
)
def test_kinds(text, kind):
    assert kind_of(text) == kind


def test_posts_are_read():
    assert read_post("PostSend y(2,0,1) to 1, 65536 B") == Message(True, "y(2,0,1)", 1, 65536)
    assert read_post("PostRecv halo(1,0,0) from 30, 100 B").handle == "recv halo(1,0,0)"
    assert read_post("AllReduce(2:3) over data,time, 66560 B") == Sum("AllReduce(2:3)", ("data", "time"), 66560)
    assert read_post("F(1,0,0)") is read_post("Wait recv y(1,0,0)") is None
    assert awaited("Wait send dy(1,0,0)") == "send dy(1,0,0)"
    assert awaited("Update") == ""


def test_the_two_ends_of_a_message():
    sent, never = sorted(transfers(make_timeline(EXCHANGE)), key=lambda t: -t.n_bytes)
    assert (sent.sender, sent.receiver, sent.value, sent.n_bytes) == (0, 1, "y(0,0,0)", 128)
    assert (sent.send, sent.send_wait, sent.receive, sent.receive_wait) == (2, 3, 8, 9)
    # A receive that was posted, and never sent to nor waited for.
    assert (never.sender, never.receiver, never.receive) == (1, 0, 0)
    assert never.send is never.send_wait is never.receive_wait is None


def test_a_value_sent_twice_is_two_messages():
    rows = []
    for start in (0.0, 10.0):
        rows += [(0, "PostSend y(0,0,0) to 1, 8 B", start, start), (0, "Wait send y(0,0,0)", start, start + 1)]
        rows += [(1, "PostRecv y(0,0,0) from 0, 8 B", start, start), (1, "Wait recv y(0,0,0)", start, start + 1)]
    rows.sort(key=lambda row: row[0])
    first, second = transfers(make_timeline(rows))
    assert (first.send, first.receive_wait) == (0, 5)
    assert (second.send, second.receive_wait) == (2, 7)


def test_sums_run_over_their_group():
    rows = [(rank, "AllReduce(0:1) over data, 8 B", 0.0, 0.0) for rank in range(4)]
    rows += [(3, "Wait AllReduce(0:1)", 1.0, 2.0)]
    first, second = reductions(make_timeline(rows), Split((("data", 2), ("pipeline", 2))))
    assert (first.members, second.members) == ((0, 2), (1, 3))
    assert second.posts == {1: 1, 3: 3}
    assert second.waits == {3: 4}


def test_waits_by_hand():
    account = account_waits(pipeline_case(), make_timeline(EXCHANGE))
    # Rank 1 waited 2..5 for y, which rank 0 posted at 3.
    np.testing.assert_allclose(account.late_sender, [1.0, 0.0])
    # Rank 0's own wait, 3.5..6, began after rank 1 had posted: all of it is transfer.
    np.testing.assert_allclose(account.transfer, [2.5, 2.0])
    np.testing.assert_allclose(account.late_receiver, [0.0, 0.0])
    # The sum: rank 0 waited 6..9, rank 1 began at 8 and waited 8.5..9.25.
    np.testing.assert_allclose(account.late_rank, [0.0, 2.0])
    np.testing.assert_allclose(account.reduction, [1.0, 0.75])
    assert account.total_s == pytest.approx(2.5 + 3.0 + 3.0 + 0.75)


def test_a_late_receiver_is_charged():
    rows = [
        (0, "PostSend y(0,0,0) to 1, 8 B", 0.0, 0.0),
        (0, "Wait send y(0,0,0)", 0.0, 5.0),
        (1, "PostRecv y(0,0,0) from 0, 8 B", 4.0, 4.0),
        (1, "Wait recv y(0,0,0)", 4.0, 5.0),
    ]
    account = account_waits(pipeline_case(), make_timeline(rows))
    np.testing.assert_allclose(account.late_receiver, [0.0, 4.0])
    np.testing.assert_allclose(account.transfer, [1.0, 1.0])


def test_nobody_is_charged_for_what_the_timeline_does_not_hold():
    rows = [(0, "PostRecv y(0,0,0) from 1, 8 B", 0.0, 0.0), (0, "Wait recv y(0,0,0)", 0.0, 2.0)]
    account = account_waits(pipeline_case(), make_timeline(rows))
    assert account.transfer[0] == account.total_s == 2.0


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_second_of_waiting_is_charged_once(data):
    """Whatever the order in which two ranks do things: what is charged is what was waited."""
    rows = []
    for rank in range(2):
        handles = [f"{end} {kind}(0,0,{c})" for end in ("recv", "send") for kind in ("y", "dy") for c in range(2)]
        posts = data.draw(st.permutations([*handles, "AllReduce(loss)"]))
        texts = [_post(handle, 1 - rank) for handle in posts]
        texts += [f"Wait {handle}" for handle in data.draw(st.permutations(posts))]
        clock = 0.0
        for text in texts:
            duration = data.draw(st.floats(0, 3))
            rows.append((rank, text, clock, clock + duration))
            clock += duration
    timeline = make_timeline(rows)
    account = account_waits(pipeline_case(), timeline)
    waits = [row[3] - row[2] for row in rows if row[1].startswith("Wait")]
    assert account.total_s == pytest.approx(sum(waits))
    assert min(account.late_sender.min(), account.late_rank.min(), account.transfer.min()) >= 0


def _post(handle, peer):
    end, _, value = handle.partition(" ")
    if not value:
        return f"{handle} over pipeline, 8 B"
    return f"PostRecv {value} from {peer}, 8 B" if end == "recv" else f"PostSend {value} to {peer}, 8 B"


def test_the_measured_bubble_by_hand():
    phases = ("step", "forward", "wait_recv", "weight_gradient", "update", "other")
    case = pipeline_case(n=2, phases=phases)
    case.time_s[...] = 0.0
    case.time_s[0, :, :5] = [[10.0, 4.0, 3.0, 2.0, 1.0], [8.0, 2.0, 4.0, 1.0, 0.0]]
    case.time_s[1, :, :5] = [[5.0, 5.0, 0.0, 0.0, 0.0], [5.0, 5.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(measured_bubble(case), [1 - (7 + 3) / 2 / 10, 0.0])


def test_no_bubble_without_phases_or_time():
    assert np.isnan(measured_bubble(pipeline_case(phases=("step", "other")))).all()
    case = pipeline_case()
    case.time_s[...] = 0.0
    assert np.isnan(measured_bubble(case)).all()
