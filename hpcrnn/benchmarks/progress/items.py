"""Progress of a list of work: points of a sweep, cases of a benchmark, rows of a study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from hpcrnn.benchmarks.progress.estimates import Ledger, State, TimeLeft
from hpcrnn.benchmarks.progress.screen import Line, Screen
from hpcrnn.benchmarks.progress.words import duration, shortened

T = TypeVar("T")


class Items:
    """A context in which is shown how many items are done, which one runs, and how long the rest will take.

    Parameters
    ----------
    title : str
        Of the whole.
    kinds : sequence of str
        Of each item, as words: ``on 4 ranks``. Items of a kind are taken to last alike.
    noun : str
        What an item is called.
    most_s : float, optional
        Seconds after which no further item begins.
    has_lines : bool
        Each item is told by lines of its own, so that no others are needed where there is no terminal.
    screen : Screen, optional
        Another one in tests.
    """

    def __init__(
        self,
        title: str,
        kinds: Sequence[str],
        noun: str,
        *,
        most_s: float = float("inf"),
        has_lines: bool = False,
        screen: Screen | None = None,
    ) -> None:
        self._title = title
        self._noun = noun
        self._ledger = Ledger(kinds, noun)
        self._most_s = most_s
        self._has_lines = has_lines
        self._screen = screen or Screen(enabled=True)
        self._running: int | None = None
        self._n_made = 0
        self._name = self._since = self._note = ""
        self._begun_s = 0.0

    def __enter__(self) -> Self:
        self._screen.__enter__()
        self._show(now=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.__exit__(kind, error, trace)

    @property
    def is_live(self) -> bool:
        """Whether a view is drawn on a terminal."""
        return self._screen.is_live

    def each(self, made: Iterable[T], name: str) -> Iterator[T]:
        """Hand on what is made one by one, of items that are to go; all are told under one name."""
        makes = iter(made)
        while True:
            index = self._n_made
            if index < len(self._ledger.states):
                self.begin(index, name, now=not index)
            try:
                thing = next(makes)
            except StopIteration:
                self._running = None
                self._show()
                return
            self._n_made += 1
            if self._running is not None:
                self._settle(State.DONE, self._running)
            yield thing

    def begin(self, index: int, name: str, *, now: bool = True) -> None:
        """Begin an item; ``now`` is drawn at once."""
        self._running, self._name, self._note = index, name, ""
        self._begun_s = self._screen.elapsed_s()
        self._since = f"{datetime.now().astimezone():%H:%M:%S}"
        self._show(now=now)

    def note(self, text: str) -> None:
        """Pass on what the running item says of its own progress; on a terminal only."""
        self._note = text
        self._show(now=True)

    def end(self, state: State, index: int | None = None) -> float:
        """End the running item, or settle another that never began; return how long it took."""
        index = self._running if index is None else index
        took_s = 0.0 if index is None else self._settle(state, index)
        self._show()
        return took_s

    def _settle(self, state: State, index: int) -> float:
        took_s = self._screen.elapsed_s() - self._begun_s if index == self._running else 0.0
        self._ledger.settle(index, state, took_s)
        self._running, self._note = None, ""
        return took_s

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self._screen.line(text)

    def result(self, text: str) -> None:
        """Write lines to standard output."""
        self._screen.result(text)

    def so_far(self) -> str:
        """Say how much is done, in how long, and what is left."""
        return ", ".join(filter(None, [f"{duration(self._screen.elapsed_s())} so far", str(self._left() or "")]))

    def _left(self) -> TimeLeft | None:
        elapsed = self._screen.elapsed_s()
        left = self._ledger.time_left(elapsed - self._begun_s if self._running is not None else 0.0)
        bound = self._most_s - elapsed
        if left is not None and left.seconds > bound:
            # The item that runs when time is up is finished.
            return TimeLeft(max(bound, 0.0), basis=f"then no {self._noun} begins any more")
        return left

    def _show(self, *, now: bool = False) -> None:
        if self.is_live or not self._has_lines:
            self._screen.show(self._view, self._plain, now=now)

    def _plain(self) -> str:
        n_settled = len(self._ledger.states) - self._ledger.count(State.TO_GO)
        return f"{self._title}: {n_settled} of {len(self._ledger.states)} {self._noun}s, {self.so_far()}"

    def _view(self, columns: int, in_ascii: bool) -> list[Line]:
        dot = "-" if in_ascii else "·"
        ledger = self._ledger
        counts = [(ledger.count(state), state.value) for state in (State.DONE, State.DONE_BEFORE, State.FAILED)]
        told = [f"{n} {words}" for n, words in counts if n] + [f"{ledger.count(State.TO_GO)} to go"]
        head = f"{self._title} {dot} {f' {dot} '.join(told)}"
        lines: list[Line] = [[(shortened(head, columns, in_ascii=in_ascii), "bold")]]
        lines.append(_states(ledger, min(columns, 60), in_ascii=in_ascii))
        lines.append([(shortened(self.so_far(), columns, in_ascii=in_ascii), "")])
        if self._running is not None:
            number = f"[{self._running + 1}/{len(ledger.states)}] "
            running = f"{number}{self._name} {dot} since {self._since}"
            lines.append([(shortened(running, columns, in_ascii=in_ascii), "cyan")])
            if self._note:
                lines.append([("  " + shortened(self._note, max(columns - 2, 0), in_ascii=in_ascii), "dim")])
        return lines


def _states(ledger: Ledger, width: int, *, in_ascii: bool) -> Line:
    """Draw a bar of what is settled and what is to go."""
    full, empty = ("#", ".") if in_ascii else ("━", "─")
    failed = "x" if in_ascii else "━"
    parts = [(State.DONE_BEFORE, full, "blue"), (State.DONE, full, "green"), (State.FAILED, failed, "red")]
    total = max(len(ledger.states), 1)
    pieces: list[tuple[str, str]] = []
    drawn = settled = 0
    for state, sign, style in parts:
        settled += ledger.count(state)
        # What is there is seen, were it one of ten thousand; and only all of it fills the bar.
        cells = settled * width // total - drawn
        pieces.append((sign * cells, style))
        drawn += cells
    return [*((text, style) for text, style in pieces if text), (empty * (width - drawn), "dim")]
