"""Where progress is shown: a view that is drawn over again on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from hpcrnn.benchmarks.progress.terminal import find_terminal, only_ascii, terminal_size

Line = Sequence[tuple[str, str]]
"""Pieces of text, each with a style of rich's."""
View = Callable[[int, bool], Sequence[Line]]
"""From the columns there are, and whether only ASCII can be shown, to lines."""

REDRAW_EVERY_S = 0.5
PLAIN_EVERY_S = 10.0
PLAIN_SHARE = 0.2
"""A plain line comes after at least this share of the time so far: a night's log has dozens, not thousands."""


class Screen:
    """A context in which progress is shown on standard error.

    What cannot be shown is not: a terminal that goes away ends no measurement.

    Parameters
    ----------
    enabled : bool
        False on all ranks but one.
    clock : callable
        Seconds; another one in tests.
    """

    def __init__(self, *, enabled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._clock = clock
        self._begin = clock()
        self._last = 0.0
        self._live: Any = None
        self._view: View | None = None

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal that a view can be drawn on over again."""
        return self._live is not None

    def elapsed_s(self) -> float:
        """Return the seconds since this was made."""
        return self._clock() - self._begin

    def __enter__(self) -> Self:
        terminal = find_terminal(sys.stderr) if self._enabled else None
        if terminal is not None:
            self._quietly(lambda: self._open(terminal))
        return self

    def _open(self, terminal: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        columns, rows = terminal_size(terminal)
        console = Console(file=terminal, force_terminal=True, width=columns, height=rows)
        # rich would draw from a thread of its own, while steps are timed.
        live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=lambda: self._rendered(terminal),
        )
        live.start()
        console.show_cursor()  # a process that is killed would leave the terminal without
        self._live = live

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            self._quietly(live.stop)

    def line(self, text: str) -> None:
        """Show a line that stays."""
        if not self._enabled:
            return
        if self._live is not None:
            self._quietly(lambda: self._live.console.print(text, markup=False, highlight=False, soft_wrap=True))
        else:
            self._quietly(lambda: _write(sys.stderr, f"hpcrnn: {text}\n"))

    def result(self, text: str) -> None:
        """Write lines to standard output, above the view where both are on one terminal."""
        if self._live is None:
            _write(sys.stdout, text)
            return
        view, self._view = self._view, None
        self._quietly(self._refresh)
        _write(sys.stdout, text)
        self._view = view
        self._quietly(self._refresh)

    def show(self, view: View, plain: Callable[[], str], *, now: bool = False) -> None:
        """Draw a view, or write a plain line, where it is time for one; neither is made where it is not.

        Parameters
        ----------
        view : callable
        plain : callable
            Returns the line.
        now : bool
            On a terminal it is time for it in any case.
        """
        if not self._enabled:
            return
        elapsed = self.elapsed_s()
        if self._live is None:
            if elapsed - self._last >= max(PLAIN_EVERY_S, PLAIN_SHARE * elapsed):
                self._last = elapsed
                self.line(plain())
        else:
            self._view = view
            if now or elapsed - self._last >= REDRAW_EVERY_S:
                self._last = elapsed
                self._quietly(self._refresh)

    def _rendered(self, terminal: TextIO) -> Any:
        from rich.text import Text

        view = self._view
        if view is None:
            return Text("")
        lines = view(terminal_size(terminal)[0], only_ascii(terminal))
        return Text("\n", no_wrap=True, overflow="ellipsis").join(Text.assemble(*line) for line in lines)

    def _refresh(self) -> None:
        console = self._live.console
        console.size = terminal_size(console.file)
        self._live.refresh()

    def _quietly(self, show: Callable[[], object]) -> None:
        try:
            show()
        except (OSError, ValueError):  # the terminal is gone, or the stream was closed
            self._enabled, self._live = False, None


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
