"""What has been measured so far is written now and then, so that a run that is killed leaves it behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcrnn.benchmarks.recording import RankPart, Recording, rank_part
from hpcrnn.execution.measurement import Samples, Variant
from hpcrnn.execution.world import World
from hpcrnn.records.hdf5 import encode_record
from hpcrnn.records.output import Output

LEAST_S = 5.0
"""Seconds of measuring between writes at the least, and before the first: shorter runs need none."""

SPARSE = 200.0
"""Time between writes over what the last one took.

Writes take a two-hundredth of the time at the most, and with the latest one, which was not paid for yet and may have
taken as long as those before it together, a hundredth.
"""


class Pace:
    """When the next write is due.

    Parameters
    ----------
    clock : callable
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._since = clock, clock()
        self._last_took_s = 0.0

    def is_due(self) -> bool:
        """Whether enough time has gone by since the last write."""
        return self._clock() - self._since >= max(LEAST_S, SPARSE * self._last_took_s)

    def pay_for(self, write: Callable[[], None]) -> None:
        """Write, and take the time."""
        start = self._clock()
        write()
        self._since = self._clock()
        self._last_took_s = self._since - start


class GrowingRecord:
    """The states of a record before its end; every rank has one.

    Parameters
    ----------
    output : Output
    recording : Recording or None
        On rank 0.
    variants : sequence of Variant
    world : World
    """

    def __init__(self, output: Output, recording: Recording | None, variants: Sequence[Variant], world: World) -> None:
        self._output, self._recording, self._variants, self._world = output, recording, variants, world
        self._pace = Pace()

    def is_due(self) -> bool:
        """Whether it is time for the next; rank 0 decides."""
        return self._pace.is_due()

    def keep(self, samples: Sequence[Samples]) -> None:
        """Write what has been measured so far; all ranks call this together, between steps."""
        self._pace.pay_for(lambda: self._keep(samples))

    def _keep(self, samples: Sequence[Samples]) -> None:
        ranks = self._world.comm.gather(rank_part(self._variants)) or []
        path = self._world.on_root(lambda: self._write(samples, ranks))
        if path is not None:
            self._world.farewell.heard_kept(path)

    def _write(self, samples: Sequence[Samples], ranks: Sequence[RankPart]) -> Path | None:
        """Write on rank 0; None where it cannot be."""
        if self._recording is None:
            return None
        record = self._recording.record(samples, ranks, complete=False)
        return self._world.farewell.keep(self._output, encode_record(record))
