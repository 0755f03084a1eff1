"""What is said of ranks and hosts that stand out: sentences for the terminal, a table for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.onsets import Onset
from hpcrnn.reporting.analysis.stragglers import EFFECT, Judgement, Straggler
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import MISSING, format_ratio, format_ratio_interval, format_seconds, plural

_BECAUSE = {
    "slower": "slower",
    "more work": "has more work",
    "other work": "does other work",
}
"""What the longer busy time of a rank comes from."""


def straggler_sentence(straggler: Straggler) -> str:
    """Name a straggler: ``rank 3 on node7 is slow: 1.31× the others' busy time, beyond 5 % in 48 of 50 steps``."""
    beyond = f"beyond {100 * EFFECT:.0f} % in {straggler.n_slow} of {straggler.n_steps} steps"
    ratio = format_ratio(straggler.excess.median)
    if straggler.is_host:
        many = plural(len(straggler.ranks), "rank")
        return f"{straggler.host} is slow: its {many} take {ratio} the busy time of other hosts', {beyond}"
    name = _rank_name(straggler.ranks[0], straggler.host)
    if straggler.kind == "slower":
        return f"{name} is slow: {ratio} the others' busy time, {beyond}"
    if straggler.kind == "more work":
        return f"{name} has more work, not a slower pace: {ratio} the others' busy time, {beyond}"
    return f"{name} does other work, alone: {ratio} the others' busy time, {beyond}; slow or not cannot be told"


def onset_sentence(onset: Onset) -> str:
    """Name a rank that became slow: ``rank 1 becomes slow with step 40 of 0 to 99: from 1.01× to 2.02× ...``."""
    before, after = format_ratio(onset.before.median), format_ratio(onset.after.median)
    what = "step" if onset.leg_steps == 1 else f"leg of {onset.leg_steps} steps"
    return (
        f"{_rank_name(onset.rank, onset.host)} becomes slow with {what} {onset.step} of 0 to {onset.n_steps - 1}: "
        f"from {before} to {after} the others' busy time"
    )


def onset_table(found: Sequence[tuple[Entry, Onset]], called: Mapping[int, str]) -> Table | None:
    """Tabulate the ranks that became slow while they were measured; None where there are none.

    Parameters
    ----------
    found : sequence of (Entry, Onset)
    called : mapping of int to str
        Names of the cases, by number.
    """
    rows = [
        [
            str(entry.number),
            called[entry.number],
            str(onset.rank),
            onset.host or MISSING,
            f"{onset.step} of 0–{onset.n_steps - 1}",
            format_ratio(onset.before.median),
            format_ratio(onset.after.median),
            format_ratio(onset.rise.median),
            format_ratio_interval(onset.rise),
        ]
        for entry, onset in found
    ]
    if not rows:
        return None
    columns = ["No.", "Case", "Rank", "Host", "From step", "Before", "From then on", "Rise", "95 % interval"]
    note = (
        "Before, from then on: busy time over the median of all others', step by step, or leg by leg where ranks meet, "
        "or are evaluated, after several steps; counted from 0. Named is a rank whose ratio changes as no random order "
        "of its steps explains (Pettitt's test, one-sided, 5 % over the "
        f"ranks of a case at the most), and rises by more than {100 * EFFECT:.0f} %, as does its own busy time."
    )
    return Table("Ranks that became slow", columns, rows, text_columns=(1, 3), note=note)


def straggler_table(judged: Sequence[Judgement], called: Mapping[int, str]) -> Table | None:
    """Tabulate the ranks that stand out; None where there are none.

    Parameters
    ----------
    judged : sequence of Judgement
    called : mapping of int to str
        Names of the cases, by number.
    """
    rows = [
        [
            str(judgement.entry.number),
            called[judgement.entry.number],
            f"{spans(straggler.ranks)}" + (" (the host)" if straggler.is_host else ""),
            straggler.host or MISSING,
            _BECAUSE[straggler.kind],
            format_seconds(straggler.busy.median),
            format_ratio(straggler.excess.median),
            format_ratio_interval(straggler.excess),
            f"{straggler.n_slow} of {straggler.n_steps}",
            f"{straggler.n_last} of {straggler.n_steps}",
        ]
        for judgement in judged
        for straggler in judgement.stragglers
    ]
    if not rows:
        return None
    columns = ["No.", "Case", "Rank", "Host", "Finding", "Busy a step", "Over the others", "95 % interval"]
    columns += [f"Beyond {100 * EFFECT:.0f} %", "Last to end"]
    return Table("Ranks that stand out", columns, rows, text_columns=(1, 2, 3, 4), note=_note(judged))


def _note(judged: Sequence[Judgement]) -> str:
    note = (
        "Busy: forward, backward, weight gradient and update; the rest of a step is waiting. Over the others: step by "
        "step over their median, those of the same pipeline stage where there are any; of ranks with unequal shares of "
        f"rows or time steps, also per share. Named is who is beyond {100 * EFFECT:.0f} % in more steps than a fair "
        "coin would give (sign test, 5 % over all ranks and hosts of a case)."
    )
    silent: dict[str, list[int]] = {}
    for judgement in judged:
        if judgement.silent:
            silent.setdefault(judgement.silent, []).append(judgement.entry.number)
    reasons = [f"no. {spans(sorted(numbers))}: {reason}" for reason, numbers in silent.items()]
    return f"{note} Not judged: {'; '.join(reasons)}." if reasons else note


def _rank_name(rank: int, host: str) -> str:
    return f"rank {rank} on {host}" if host else f"rank {rank}"
