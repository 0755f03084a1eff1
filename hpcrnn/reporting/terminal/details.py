"""What ``hpcrnn show`` says of a case beside its row: lines, the loud ones with a style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hpcrnn.records.bubble import busy_s, measured_bubble
from hpcrnn.records.record import STEP, Case
from hpcrnn.records.sparkline import sparkline
from hpcrnn.records.statistics import PERCENTILE_NEEDS, dependence, median_interval, percentile
from hpcrnn.reporting.analysis.accounting import Account
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import Ranked
from hpcrnn.reporting.analysis.onsets import find_onsets
from hpcrnn.reporting.analysis.scaling import phase_breakdown
from hpcrnn.reporting.analysis.stragglers import judge
from hpcrnn.reporting.analysis.unequal_work import work_cost
from hpcrnn.reporting.describe import loss_unit, mode_of, worst_check
from hpcrnn.reporting.tables.accounting import account_lines, cpu_text
from hpcrnn.reporting.tables.certificates import certificate_lines
from hpcrnn.reporting.tables.compression import compression_lines
from hpcrnn.reporting.tables.devices import device_line, held_text, layout_lines
from hpcrnn.reporting.tables.learning import learning_lines, staleness_lines
from hpcrnn.reporting.tables.ranks import onset_sentence, straggler_sentence
from hpcrnn.reporting.tables.samples import dependence_sentence, percentile_text
from hpcrnn.reporting.tables.unequal_work import work_lines
from hpcrnn.reporting.terminal.console import is_ascii
from hpcrnn.reporting.units import format_percent, format_seconds, plural, printable, scientific, significant

if TYPE_CHECKING:
    from rich.console import Console

CASES_IN_FULL = 16
"""Of more cases in a file, what is not loud is said with ``--verbose`` only: nobody reads forty times four lines."""
LOUD = "bold yellow"
CELLS = 24
"""Characters of a sparkline."""
RANKS_BY_NAME = 8


@dataclass(frozen=True)
class Manner:
    """How much is said of each case.

    Attributes
    ----------
    verbose : bool
        Percentiles, ranks, where their time goes, checks and devices too.
    brief : bool
        What is loud only.
    steps : bool
        The sparkline: there was no room for it in the table.
    accounts : mapping of int to Account
        Where the ranks' time went, by the numbers of the cases of which that is to be said.
    ranked : mapping of int to Ranked
        How cases that were trained to a target stand to the base of their goal, by their numbers.
    """

    verbose: bool = False
    brief: bool = False
    steps: bool = False
    accounts: Mapping[int, Account] = field(default_factory=dict)
    ranked: Mapping[int, Ranked] = field(default_factory=dict)


def details(entry: Entry, console: Console, manner: Manner) -> list[tuple[str, str]]:
    """Say what the columns have no room for: a line a subject, with its style."""
    said = (*certificate_lines(entry.case), *compression_lines(entry.case))
    certified = [(line, LOUD if loud else "") for line, loud in said]
    if not entry.included:
        lines = [(line, "red") for line in (entry.exclusion, *(line for line, _ in certified))]
        return lines + [(line, "") for line in (_checks(entry.case) if manner.verbose else ())]
    lines = [*certified, *((line, LOUD) for line in _warnings(entry))]
    if manner.brief:
        return [(line, style) for line, style in lines if style]
    steps = [(_steps(entry, console, manner), "")] if manner.steps or manner.verbose else []
    lines = [*steps, *lines, *((line, "") for line in _plain(entry))]
    if manner.verbose:
        lines += [(line, "") for line in _verbose(entry, manner.accounts.get(entry.number)) if line]
    return [*lines, *((line, "") for line in (*_learning(entry, console, manner), *_ending(entry)))]


def steps_cell(entry: Entry, console: Console) -> str:
    """Draw the steps of a case for its row; empty where it has none."""
    return sparkline(entry.case.step_s() if entry.case.time_s.size else [], CELLS, ascii_only=is_ascii(console))


def _steps(entry: Entry, console: Console, manner: Manner) -> str:
    """Draw the steps with the range they span, and say how long their tail is."""
    steps = entry.case.step_s()
    drawn = f"{steps_cell(entry, console)} " if manner.steps else ""
    tail = [f"p{q} {percentile_text(percentile(steps, q))}" for q in PERCENTILE_NEEDS] if manner.verbose else []
    return "; ".join([f"steps {drawn}{format_seconds(steps.min())} to {format_seconds(steps.max())}", *tail])


def _warnings(entry: Entry) -> list[str]:
    """Say what speaks against the steps: that they are not independent, and who was slow."""
    found = [dependence_sentence(dependence(entry.case.step_s()))]
    if entry.case.n_ranks > 1:
        onsets = find_onsets(entry)
        became = {onset.rank for onset in onsets}
        # Who became slow is not called slow throughout as well.
        found += [straggler_sentence(s) for s in judge(entry).slow if s.is_host or s.ranks[0] not in became]
        found += [onset_sentence(onset) for onset in onsets]
    return [line for line in found if line]


def _plain(entry: Entry) -> list[str]:
    shares = phase_breakdown(entry).shares
    phases = [f"{n.replace('_', ' ')} {100 * s:.0f}" for n, s in shares.items() if s >= 0.005]
    lines = [f"share of the step in %: {', '.join(phases)}"] if phases else []
    if (work := entry.case.work) is not None:
        lines += work_lines(work_cost(entry, work))
    return lines + _split(entry)


def _split(entry: Entry) -> list[str]:
    """Say what the split costs in waiting and saves in memory; of a serial run, what it holds on a GPU."""
    case, parts = entry.case, []
    if case.n_ranks == 1 and not case.on_gpu:
        return []
    if case.n_ranks > 1 and math.isfinite(case.bubble_bound):
        bubble = median_interval(measured_bubble(case)).median
        parts.append(f"bubble {format_percent(bubble)}, bound {format_percent(case.bubble_bound)}")
    if held := held_text(case):
        parts.append(held)
    return ["; ".join(parts)] if parts else []


def _verbose(entry: Entry, account: Account | None) -> list[str]:
    """Say what is asked for with ``--verbose``."""
    case, lost = entry.case, account_lines(account) if account else []
    return [*_ranks(entry), cpu_text(case), *lost, *_checks(case), device_line(case), *layout_lines(case)]


def _ranks(entry: Entry) -> list[str]:
    """Say what each rank was busy and waited, of many ranks what the least and the most; and who had more work."""
    case, busy = entry.case, busy_s(entry.case)
    if case.n_ranks == 1 or busy is None:
        return []
    medians = np.median(busy, axis=0)
    waits = np.median(case.phase_s(STEP) - busy, axis=0)
    ranks = list(range(case.n_ranks))
    if case.n_ranks > RANKS_BY_NAME:
        ranks = [int(np.argsort(medians, kind="stable")[k]) for k in (0, case.n_ranks // 2, -1)]
    each = [f"rank {rank} {format_seconds(medians[rank])} + {format_seconds(waits[rank])}" for rank in ranks]
    which = "" if len(ranks) == case.n_ranks else " of the least, the middle and the most busy"
    judged = judge(entry)
    others = [straggler_sentence(s) for s in judged.stragglers if s.kind != "slower"]
    silent = [f"stragglers were not looked for: {judged.silent}"] if judged.silent else []
    return [f"busy + waiting{which}: {', '.join(each)}", *others, *silent]


def _checks(case: Case) -> list[str]:
    """Say what was checked before the steps were timed, and the check nearest to its tolerance."""
    worst, checks = worst_check(case.verdict), case.verdict.checks
    if worst is None:
        return []
    passed = f"{sum(check.passed for check in checks)} of {plural(len(checks), 'check')} passed"
    errors = f"error {scientific(worst.error)}, allowed {scientific(worst.tolerance)}"
    where = f"checked on {printable(case.verdict.problem)}: {passed}; worst: {printable(worst.quantity)}"
    return [f"{where}, {errors}, serial error {scientific(worst.serial_error)}"]


def _learning(entry: Entry, console: Console, manner: Manner) -> list[str]:
    """Say how a training to a target went."""

    def draw(losses: Sequence[float]) -> str:
        return sparkline(losses, CELLS, ascii_only=is_ascii(console), mark_outliers=False)

    return [*learning_lines(entry, draw, manner.ranked.get(entry.number)), *staleness_lines(entry.case)]


def _ending(entry: Entry) -> list[str]:
    """Say how training went, what was kept, and why measuring ended."""
    loss, parts = entry.case.loss, []
    if mode_of(entry.case) == "train" and loss.size:
        unit = f" {loss_unit(entry.case)}".rstrip()
        parts.append(f"loss {significant(float(loss[0]))} → {significant(float(loss[-1]))}{unit}")
    if entry.n_outliers:
        parts.append(f"{plural(entry.n_outliers, 'outlier')} kept")
    if entry.case.stop_reason:
        parts.append(f"stopped: {printable(entry.case.stop_reason)}")
    return ["; ".join(parts)] if parts else []
