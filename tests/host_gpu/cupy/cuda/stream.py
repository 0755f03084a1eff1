"""Streams: work is done in order, at once or as late as can be (see LATE), or recorded while a stream captures."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from cupy_backends.cuda.api import runtime

from cupy import _settings
from cupy.cuda.graph import Graph

Operation = Callable[[], None]

_current = threading.local()
_numbers = itertools.count(1 << 20)  # raw handles: no stream is number 0 or 1, which mean the default ones
_streams: dict[int, "Stream"] = {}  # for good: work of a stream that nobody holds any more is done all the same
_captures: list["_Capture"] = []


class _Capture:
    """A capture that is going on: what was recorded, and the streams that are drawn into it by events."""

    def __init__(self, origin: "Stream") -> None:
        self.origin = origin
        self.operations: list[Operation] = []
        self.joined: set[Stream] = {origin}
        self.unjoined: set[Stream] = set()


class Stream:
    """A stream; ``null`` is the default one, which waits for all but the non-blocking ones, and they for it."""

    null: "Stream"

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.ptr = 0 if null else next(_numbers)
        self.is_non_blocking, self.priority = non_blocking, priority or 0
        self.device_id = runtime.getDevice() if not null else -1
        self.pending: deque[Operation] = deque()
        self.capture: _Capture | None = None
        self._outer: list[Stream] = []
        _streams[self.ptr] = self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.ptr == self.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> Self:
        self._outer.append(get_current_stream())
        return self.use()

    def __exit__(self, *_: object) -> None:
        self._outer.pop().use()

    def use(self) -> "Stream":
        """Make it the current one."""
        _current.stream = self
        return self

    @property
    def done(self) -> bool:
        """Whether all its work is done."""
        return not self.pending

    def synchronize(self) -> None:
        """Wait for all its work."""
        if self.capture is not None:
            raise runtime.CUDARuntimeError("cudaErrorStreamCaptureUnsupported: a capturing stream cannot be waited for")
        self.drain()

    def drain(self, until: Callable[[], bool] = lambda: False) -> None:
        """Do what is left, in order."""
        while self.pending and not until():
            self.pending.popleft()()

    def record(self, event: "Event | None" = None) -> "Event":
        """Record an event."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        """Do later work only after an event."""
        event.hold_up(self)

    def launch_host_func(self, callback: Callable[[Any], None], arg: Any) -> None:
        """Call a function of the host in the stream's order."""
        submit(lambda: callback(arg), self)

    def begin_capture(self, mode: int | None = None) -> None:
        """Record work from here on instead of doing it."""
        if self.ptr in {0, 1}:
            msg = "cannot capture on the default (legacy) stream"
            raise RuntimeError(msg)
        if self.capture is not None:
            raise runtime.CUDARuntimeError("cudaErrorIllegalState: the stream is capturing already")
        self.capture = _Capture(self)
        _captures.append(self.capture)

    def end_capture(self) -> Graph:
        """Return what was recorded."""
        capture = self.capture
        if capture is None or capture.origin is not self:
            raise runtime.CUDARuntimeError("cudaErrorIllegalState: no capture began on this stream")
        _captures.remove(capture)
        for stream in capture.joined:
            stream.capture = None
        if capture.unjoined:
            raise runtime.CUDARuntimeError(
                "cudaErrorStreamCaptureUnjoined: work of another stream is in the capture, and nobody waits for it"
            )
        return Graph(capture.operations)

    def is_capturing(self) -> bool:
        """Whether work is recorded."""
        return self.capture is not None


Stream.null = Stream(null=True)


class Event:
    """A point in a stream's work."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self._timed = not disable_timing
        self._stream: Stream | None = None
        self._capture: _Capture | None = None
        self._recorded = self._reached = 0
        self._time = float("nan")

    def record(self, stream: Stream | None = None) -> None:
        """Stand behind all the work that a stream has been given."""
        stream = stream or get_current_stream()
        self._stream, self._capture = stream, stream.capture
        if self._capture is None:
            self._recorded += 1
            number = self._recorded
            submit(lambda: self._reach(number), stream)

    def _reach(self, number: int) -> None:
        self._reached, self._time = number, time.perf_counter()

    def hold_up(self, stream: Stream) -> None:
        """Let a stream wait for it."""
        if self._capture is not None:
            self._join(stream, self._capture)
        elif self._stream is not None:
            source, number = self._stream, self._recorded
            submit(lambda: source.drain(lambda: self._reached >= number), stream)

    def _join(self, stream: Stream, capture: _Capture) -> None:
        """An event of a capture draws the streams that wait for it into the capture, or joins them again."""
        if capture not in _captures:
            raise runtime.CUDARuntimeError("cudaErrorInvalidResourceHandle: the event's capture has ended")
        if stream is capture.origin:
            capture.unjoined.discard(self._stream)
        else:
            stream.capture = capture
            capture.joined.add(stream)
            capture.unjoined.add(stream)

    @property
    def done(self) -> bool:
        """Whether the work before it is done."""
        return self._reached >= self._recorded

    def synchronize(self) -> None:
        """Wait for the work before it."""
        if self._capture is not None:
            raise runtime.CUDARuntimeError("cudaErrorCapturedEvent: the event is part of a capture")
        if self._stream is not None:
            number = self._recorded
            self._stream.drain(lambda: self._reached >= number)


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds between two events."""
    for event in (start_event, end_event):
        if event._capture is not None or not event._recorded or not event._timed:
            raise runtime.CUDARuntimeError("cudaErrorInvalidResourceHandle: the event has no time")
        if not event.done:
            raise runtime.CUDARuntimeError("cudaErrorNotReady: the event has not been reached")
    return (end_event._time - start_event._time) * 1e3


def get_current_stream(device_id: int = -1) -> Stream:
    """The stream that work goes to."""
    return getattr(_current, "stream", Stream.null)


def stream_of(ptr: int) -> Stream:
    """The stream of a raw handle."""
    return _streams[ptr]


def submit(operation: Operation, stream: Stream | None = None) -> None:
    """Give work to a stream, the current one unless another is named."""
    stream = stream or get_current_stream()
    if stream.capture is not None:
        stream.capture.operations.append(operation)
        if stream is not stream.capture.origin:
            stream.capture.unjoined.add(stream)
        return
    if stream.ptr == 0 and any(not capture.origin.is_non_blocking for capture in _captures):
        raise runtime.CUDARuntimeError("cudaErrorStreamCaptureImplicit: the default stream would wait for a capture")
    if stream.ptr == 0:
        for other in list(_streams.values()):
            if not other.is_non_blocking and other.capture is None:
                other.drain()
    stream.pending.append(operation)
    if not _settings.LATE or stream.ptr == 0:
        stream.drain()


def refuse_capture(what: str) -> None:
    """Raise where the current stream captures: ``what`` cannot be part of a graph, or should not be."""
    if get_current_stream().capture is not None:
        raise runtime.CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while the stream captures")


def catch_up(what: str) -> None:
    """Do all of the current stream's work, for an operation whose result the caller gets at once."""
    refuse_capture(what)
    get_current_stream().drain()


def synchronize_all() -> None:
    """Do all work of all streams."""
    for stream in list(_streams.values()):
        stream.synchronize()
