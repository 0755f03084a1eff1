"""Which way of splitting a problem is the fastest, over ranks and sizes: a map with nothing between its points.

What competes with what::

    a map       cases that differ in ranks, hidden, seq, batch and layers only: one cell type, precision, workload and
                mode, one backend and kernel, one number of threads, one machine
    a cell      of those, the cases of one problem on equal ranks of the same hosts
    a strategy  the axis of the grid that is longer than one (``hybrid``: several; ``folded``: one rank that computes
                segments of time at once), by its fastest variant; a variant measured several times counts with its
                middle measurement, so that none wins for having been tried more often

The fastest strategy is the one with the lowest median step.  That it is the fastest is *decided* only where it is so
against each of the others, by the rule of ``hpcrnn compare``; and, for cases of different files, only where the same
rule decides the same of their speedups, each over its own file's serial run: a machine that slows down between two
files is no merit of either.  Only exact ways compete: one that is not is named where it is faster still, and wins
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hpcrnn.records.record import Case
from hpcrnn.records.statistics import Interval, ratio_interval
from hpcrnn.reporting.analysis.cores import oversubscribed
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.finding import finding_of
from hpcrnn.reporting.analysis.machines import Machine, hosts_of, machines_of
from hpcrnn.reporting.analysis.scaling import SerialRuns, make_point
from hpcrnn.reporting.describe import shortfalls, threads_of
from hpcrnn.reporting.units import has_bounds

RANKS, HOSTS = "ranks", "hosts"
QUANTITIES = {"hidden": "model", "seq": "problem", "batch": "problem", "layers": "model"}
"""What may differ within a map beside the ranks, and its section; of equally many values the first is an axis."""

SERIAL, FOLDED = "serial", "folded"

LEAST_CONTESTS = 2
"""Fewer are no map: the table says who won."""

Reason = Literal["", "intervals overlap", "n too small", "speedups overlap"]
"""Why a duel is undecided; empty where it is decided."""
Place = Mapping[str, int | str]
"""Ranks and quantities to their values; ``hosts`` too where equal ranks of one problem ran on different ones."""


@dataclass(frozen=True)
class Contender:
    """The best variant of a strategy.

    Attributes
    ----------
    strategy : str
        As a case has it, or ``folded``.
    runs : tuple of Entry
        Its measurements, fastest first.
    n_variants : int
        How many variants of the strategy were measured.
    """

    strategy: str
    runs: tuple[Entry, ...]
    n_variants: int

    @property
    def entry(self) -> Entry:
        """The middle measurement, of two the faster."""
        return self.runs[(len(self.runs) - 1) // 2]

    def beside(self, file: int) -> Entry:
        """Return the measurement of this file, where there is one, else the middle one."""
        return next((run for run in self.runs if run.file == file), self.entry)


@dataclass(frozen=True)
class Duel:
    """The fastest strategy of a cell against another.

    Attributes
    ----------
    winner, rival : Contender
    ratio : Interval
        Median step of the rival over that of the winner: above 1 the winner is faster.
    speedups : Interval or None
        Speedup of the winner over that of the rival, each over the serial run of its own file; None within a file,
        and where a file has no serial run.
    """

    winner: Contender
    rival: Contender
    ratio: Interval
    speedups: Interval | None

    @property
    def reason(self) -> Reason:
        """Why it is undecided; empty where it is decided."""
        if not has_bounds(self.ratio):
            return "n too small"
        if finding_of(self.ratio, "higher") != "faster":
            return "intervals overlap"
        drifted = self.speedups is not None and finding_of(self.speedups, "higher") != "faster"
        return "speedups overlap" if drifted else ""


@dataclass(frozen=True)
class Cell:
    """What was measured at one place of a map.

    Attributes
    ----------
    place : Place
    ranking : tuple of Contender
        The exact strategies on these ranks, fastest first; several ranks beside the serial run, which is below.
    duels : tuple of Duel
        The first of the ranking against each of the others, in order.
    serial : Duel or None
        The first of the ranking against the serial run on one rank; None where there is none, or the cell is of one
        rank, where the serial run is in the ranking.
    inexact : Contender or None
        The fastest way that is not exact, where it is faster than the first of the ranking, or has no other beside it.
    oversubscribed : bool
        Whether more threads than logical CPUs took part on a host, as far as the files say.
    """

    place: Place
    ranking: tuple[Contender, ...]
    duels: tuple[Duel, ...]
    serial: Duel | None
    inexact: Contender | None
    oversubscribed: bool

    @property
    def n_ranks(self) -> int:
        """Ranks of every case in it."""
        return int(self.place[RANKS])

    @property
    def contested(self) -> bool:
        """Whether several strategies were measured."""
        return len(self.ranking) > 1

    @property
    def split(self) -> bool:
        """Whether anything but a serial run was measured."""
        return self.inexact is not None or any(c.strategy != SERIAL for c in self.ranking)

    @property
    def serial_leads(self) -> bool:
        """Whether one rank alone is faster than every way of splitting, or as fast as can be told from medians."""
        return self.serial is not None and self.serial.ratio.median < 1.0

    @property
    def pays(self) -> Literal["yes", "no", "undecided", ""]:
        """Whether the fastest way of splitting beats the serial run; empty where that was not measured."""
        if self.serial is None:
            return ""
        finding = finding_of(self.serial.ratio, "higher")
        return "yes" if finding == "faster" else "no" if finding == "slower" else "undecided"

    @property
    def leader(self) -> str:
        """The strategy that wins, the serial run among them; empty where nothing exact was measured."""
        if not self.ranking:
            return ""
        return SERIAL if self.serial_leads else self.ranking[0].strategy

    @property
    def gain(self) -> Interval | None:
        """Step of the runner-up over that of the leader; None where there is no runner-up."""
        if self.serial_leads and self.serial is not None:
            ratio = self.serial.ratio
            return Interval(ratio.n, 1.0 / ratio.median, 1.0 / ratio.high, 1.0 / ratio.low)
        return self.duels[0].ratio if self.duels else None

    @property
    def runner_up(self) -> str:
        """The strategy that the gain is over."""
        if self.serial_leads:
            return self.ranking[0].strategy
        return self.duels[0].rival.strategy if self.duels else ""

    @property
    def undecided(self) -> tuple[tuple[str, str], ...]:
        """The strategies that the leader cannot be told from, each with the reason; empty where all is decided."""
        if self.serial_leads and self.serial is not None:
            if self.pays == "no":
                return ()
            known = has_bounds(self.serial.ratio)
            return ((self.runner_up, "intervals overlap" if known else "n too small"),)
        return tuple((d.rival.strategy, d.reason) for d in self.duels if d.reason)


@dataclass(frozen=True)
class Panel:
    """A part of a map in which two quantities vary.

    Attributes
    ----------
    facet : tuple of (str, int or str)
        What the other quantities are, those that vary in the map.
    cells : dict of (value, value) to Cell
        By the values of the x and of the y axis; the y value is 0 where the map has no y axis.
    """

    facet: tuple[tuple[str, int | str], ...]
    cells: Mapping[tuple[int, int], Cell]

    @property
    def columns(self) -> list[int]:
        """The x values, ascending."""
        return sorted({x for x, _ in self.cells})

    @property
    def rows(self) -> list[int]:
        """The y values, ascending."""
        return sorted({y for _, y in self.cells})


@dataclass(frozen=True)
class StrategyMap:
    """Cells that differ in ranks and sizes only.

    Attributes
    ----------
    cells : tuple of Cell
        By ranks, then by size. The serial runs on one rank are cells only where ranks are an axis: elsewhere they
        stand in every cell as what splitting must beat.
    x, y : str
        The axes; ``y`` is empty where nothing else varies.
    facets : tuple of str
        The other quantities that vary.
    machine : str
        Host and processor, in words.
    """

    cells: tuple[Cell, ...]
    x: str
    y: str
    facets: tuple[str, ...]
    machine: str

    @property
    def contests(self) -> tuple[Cell, ...]:
        """The cells in which several strategies were measured."""
        return tuple(cell for cell in self.cells if cell.contested)

    @property
    def worth_drawing(self) -> bool:
        """Whether there are contests enough for a picture."""
        return len(self.contests) >= LEAST_CONTESTS

    @property
    def cases(self) -> tuple[Case, ...]:
        """Every case that competes or is named."""
        contenders = [c for cell in self.cells for c in (*cell.ranking, cell.inexact) if c is not None]
        return tuple(c.entry.case for c in contenders)

    @cached_property
    def panels(self) -> tuple[Panel, ...]:
        """The cells by what is neither axis, ascending."""
        found: dict[tuple[tuple[str, int | str], ...], dict[tuple[int, int], Cell]] = {}
        for cell in self.cells:
            facet = tuple((name, cell.place[name]) for name in self.facets)
            where = (int(cell.place[self.x]), int(cell.place[self.y]) if self.y else 0)
            found.setdefault(facet, {})[where] = cell
        return tuple(Panel(facet, found[facet]) for facet in sorted(found, key=_ascending))


def strategy_maps(included: Iterable[Entry]) -> tuple[StrategyMap, ...]:
    """Make the maps of all cases that may be plotted.

    The x axis is the ranks where cases that are no serial runs have several counts, else the quantity with the most
    values; the y axis is, of the other quantities, the one with the most. What varies beside sets panels apart.

    Returns
    -------
    tuple of StrategyMap
        Those in which at least one cell is contested, by the number of their first case.
    """
    entries = [entry for entry in included if entry.contends]
    machines = machines_of([e.record for e in entries])
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_map_key(entry, machines[entry.record.uuid]), []).append(entry)
    maps = (_make_map(members, machines[members[0].record.uuid]) for members in groups.values())
    return tuple(m for m in maps if m.contests)


def _map_key(entry: Entry, machine: Machine) -> str:
    """Name everything that cases of one map agree in."""
    case = entry.case
    problem = {
        section: {key: value for key, value in values.items() if QUANTITIES.get(key) != section}
        for section, values in case.problem.items()
    }
    how = [case.backend, case.kernel, threads_of(case), case.simulated]
    return json.dumps([problem, how, sorted(machine.hosts), sorted(machine.models)], sort_keys=True)


def _make_map(members: Sequence[Entry], machine: Machine) -> StrategyMap:
    serial = SerialRuns(members)
    by_place: dict[tuple[int, ...], dict[frozenset[str], list[Entry]]] = {}
    for entry in members:
        hosts = hosts_of(entry) if entry.case.n_ranks > 1 else frozenset()
        by_place.setdefault(_where(entry.case), {}).setdefault(hosts, []).append(entry)
    several_hosts = any(len(by_hosts) > 1 for by_hosts in by_place.values())
    cells = []
    for where in sorted(by_place):
        for hosts, competitors in by_place[where].items():
            place: dict[str, int | str] = dict(zip((RANKS, *QUANTITIES), where, strict=True))
            if several_hosts:
                place[HOSTS] = ", ".join(sorted(hosts)) if len(by_place[where]) > 1 else ""
            cells.append(_make_cell(place, competitors, members, serial))
    split = [cell for cell in cells if cell.split]
    if len({cell.n_ranks for cell in split}) < 2:
        cells = split
    counts = {name: len({cell.place.get(name, "") for cell in cells}) for name in (RANKS, *QUANTITIES, HOSTS)}
    varying = [name for name in QUANTITIES if counts[name] > 1]
    axes = sorted(varying, key=lambda name: -counts[name])  # stable: of equals the first of QUANTITIES
    if counts[RANKS] > 1 or not axes:
        axes.insert(0, RANKS)
    facets = tuple(name for name in (*varying, HOSTS) if name not in axes[:2] and counts[name] > 1)
    return StrategyMap(tuple(cells), axes[0], axes[1] if len(axes) > 1 else "", facets, machine.text)


def _where(case: Case) -> tuple[int, ...]:
    """Ranks, and the quantities in their order."""
    return (case.n_ranks, *(int(case.spec[section][key]) for key, section in QUANTITIES.items()))


def _make_cell(place: Place, competitors: Sequence[Entry], members: Sequence[Entry], serial: SerialRuns) -> Cell:
    exact = _ranked([e for e in competitors if not shortfalls(e.case)])
    others = _ranked([e for e in competitors if shortfalls(e.case)])
    first = exact[0] if exact else None
    faster = [c for c in others if first is None or c.entry.step.median < first.entry.step.median]
    alone = None
    if first is not None and int(place[RANKS]) > 1:
        problem = first.entry.case.problem_id
        runs = [e for e in members if e.case.is_serial_base and e.case.problem_id == problem]
        alone = next((c for c in _ranked(runs) if c.strategy == SERIAL), None)
    return Cell(
        place=place,
        ranking=exact,
        duels=tuple(_duel(first, rival, serial) for rival in exact[1:]) if first is not None else (),
        serial=_duel(first, alone, serial) if first is not None and alone is not None else None,
        inexact=faster[0] if faster else None,
        oversubscribed=any(oversubscribed(e) for e in competitors),
    )


def _ranked(entries: Iterable[Entry]) -> tuple[Contender, ...]:
    """Return the best variant of each strategy, fastest first."""
    strategies: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries:
        strategies.setdefault(strategy_of(entry.case), {}).setdefault(entry.case.id, []).append(entry)
    found = []
    for strategy, variants in strategies.items():
        ordered = [tuple(sorted(runs, key=lambda e: e.step.median)) for runs in variants.values()]
        contenders = [Contender(strategy, runs, len(variants)) for runs in ordered]
        found.append(min(contenders, key=lambda c: c.entry.step.median))
    return tuple(sorted(found, key=lambda c: c.entry.step.median))


def strategy_of(case: Case) -> str:
    """Name what a case competes as: its strategy, or ``folded`` for segments at once on one rank."""
    return FOLDED if case.n_ranks == 1 and not case.is_serial_base else case.strategy


def _duel(winner: Contender, rival: Contender, serial: SerialRuns) -> Duel:
    """Set two contenders against each other, by measurements of the same file where there are such."""
    mine = winner.entry
    theirs = rival.beside(mine.file)
    ratio = ratio_interval(theirs.step, mine.step)
    points = [make_point(entry, serial.base_of(entry)) for entry in (mine, theirs)]
    own = [p.speedup for p in points if p.speedup is not None and p.base is not None and p.base.same_file]
    steadied = mine.file != theirs.file and len(own) == 2
    return Duel(winner, rival, ratio, ratio_interval(*own) if steadied else None)


def _ascending(facet: tuple[tuple[str, int | str], ...]) -> list[tuple[int, str]]:
    """Order numbers by size, and texts after them."""
    return [(value, "") if isinstance(value, int) else (1 << 62, value) for _, value in facet]
