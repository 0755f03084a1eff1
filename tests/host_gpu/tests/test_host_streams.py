"""Streams, events and graphs of the stand-in."""

import numpy as np
import pytest
from stand_in import cp

Refused = cp.cuda.runtime.CUDARuntimeError


@pytest.fixture
def stream():
    return cp.cuda.Stream(non_blocking=True)


@pytest.fixture
def late(monkeypatch):
    monkeypatch.setattr("cupy._settings.LATE", True)


def test_a_capture_records_and_does_nothing(stream):
    a, b = cp.zeros(3, np.int32), cp.ones(3, np.int32)
    with stream:
        stream.begin_capture()
        a += b
        a *= np.int32(2)
        b.data.memset_async(0, b.nbytes)
        b += np.int32(3)
        graph = stream.end_capture()
        assert a.get().tolist() == [0, 0, 0]
        graph.launch(stream)
        assert a.get().tolist() == [2, 2, 2]
        graph.launch()
        assert a.get().tolist() == [10, 10, 10]
        assert b.get().tolist() == [3, 3, 3]


FORBIDDEN = {
    "allocating": lambda a, stream: cp.empty(3, np.float32),
    "a new array": lambda a, stream: a + a,
    "a sum": lambda a, stream: a.sum(),
    "a copy to the host": lambda a, stream: a.get(),
    "a number": lambda a, stream: float(a[0]),
    "a copy from the host": lambda a, stream: cp.asarray(np.zeros(3)),
    "waiting": lambda a, stream: stream.synchronize(),
    "capturing again": lambda a, stream: stream.begin_capture(),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_capture_does_not_allow_is_refused(what, stream):
    a = cp.zeros(3, np.float32)
    with stream:
        stream.begin_capture()
        try:
            with pytest.raises(Refused):
                FORBIDDEN[what](a, stream)
        finally:
            stream.end_capture()


def test_the_default_stream_cannot_capture():
    with pytest.raises(RuntimeError, match="default"):
        cp.cuda.Stream.null.begin_capture()


def test_another_stream_joins_a_capture_by_an_event(stream):
    side, a, b = cp.cuda.Stream(non_blocking=True), cp.zeros(1, np.int32), cp.zeros(1, np.int32)
    stream.begin_capture()
    with stream:
        a += np.int32(1)
    side.wait_event(stream.record())
    with side:
        b += a
    stream.wait_event(side.record())
    graph = stream.end_capture()
    assert not side.is_capturing()
    for _ in range(2):
        graph.launch(stream)
    assert (a.item(), b.item()) == (2, 3)


def test_a_stream_that_is_left_in_a_capture_is_seen(stream):
    side = cp.cuda.Stream(non_blocking=True)
    stream.begin_capture()
    side.wait_event(stream.record())
    with pytest.raises(Refused, match="Unjoined"):
        stream.end_capture()


def test_events_measure_time_in_milliseconds(stream, monkeypatch):
    monkeypatch.setattr("time.perf_counter", iter([1.0, 1.25]).__next__)
    begin, end = cp.cuda.Event(), cp.cuda.Event()
    with pytest.raises(Refused):
        cp.cuda.get_elapsed_time(begin, end)
    begin.record(stream)
    end.record(stream)
    end.synchronize()
    assert begin.done
    assert cp.cuda.get_elapsed_time(begin, end) == 250


def test_late_work_is_done_when_it_is_waited_for(late, stream):
    a = cp.zeros(1, np.int32)
    with stream:
        a += np.int32(1)
    assert not stream.done
    assert a.get().item() == 0  # on the default stream, which this one does not wait for
    stream.synchronize()
    assert a.get().item() == 1


def test_late_work_shows_an_event_that_nobody_waits_for(late, stream):
    side = cp.cuda.Stream(non_blocking=True)
    for waits, expected in ((False, 0), (True, 2)):
        a, b = cp.zeros(1, np.int32), cp.zeros(1, np.int32)
        cp.cuda.runtime.deviceSynchronize()
        with stream:
            a += np.int32(2)
            event = stream.record()
            a += np.int32(5)
        if waits:
            side.wait_event(event)
        with side:
            b += a
        side.synchronize()
        assert b.item() == expected
        assert event.done == waits


def test_late_copies_read_pinned_memory_when_it_is_their_turn(late, stream):
    pinned = np.frombuffer(cp.cuda.alloc_pinned_memory(4), np.int32, 1)
    pageable = np.zeros(1, np.int32)
    pinned[0] = 0
    a, b = cp.zeros(1, np.int32), cp.zeros(1, np.int32)
    cp.cuda.runtime.deviceSynchronize()
    a.set(pinned, stream=stream)
    b.set(pageable, stream=stream)
    pinned[0] = pageable[0] = 7
    stream.synchronize()
    assert (a.item(), b.item()) == (7, 0)
    pinned[0] = 0
    a.get(out=pinned, stream=stream, blocking=False)
    assert pinned[0] == 0
    stream.synchronize()
    assert pinned[0] == 7
