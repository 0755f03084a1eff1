"""Tables and words of time to a target loss: who got there, when, in how many steps, and what the losses were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isinf, isnan, log

import numpy as np

from hpcrnn.records.learning import Ending, Learning
from hpcrnn.records.record import Case
from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import Goal, Needed, Outcome, Ranked, band, outcome_of
from hpcrnn.reporting.analysis.standing import Finding
from hpcrnn.reporting.describe import case_name, common_problem, short_source
from hpcrnn.reporting.tables.table import Table
from hpcrnn.reporting.units import (
    MISSING,
    TOO_FEW,
    format_bytes,
    format_joules,
    format_percent,
    format_ratio,
    format_seconds,
    plural,
    printable,
    significant,
)

NATS_PER_BYTE = "nats per byte"
ENDING_NAMES: dict[Ending, str] = {
    "target": "target",
    "max_steps": "most steps",
    "max_time": "most time",
    "diverged": "diverged",
    "asked": "asked to end",
    "unfinished": "unfinished",
}
MOST_AGES = 8
"""Ages of gradients that have a column of their own; older ones share one."""


def format_steps(value: float) -> str:
    """Write a number of steps, whole where it is."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e7 else significant(value)


def loss_text(loss: float, unit: str) -> str:
    """Write a loss with its unit: ``2.50 nats per byte (3.61 bits)``; the bits are those of a byte too."""
    if unit == NATS_PER_BYTE:
        return f"{significant(loss)} {unit} ({significant(bits(loss))} bits)"
    return f"{significant(loss)} {printable(unit)}".rstrip()


def bits(nats: float) -> float:
    """Turn nats into bits."""
    return nats / log(2)


def target_text(goal: Goal | Learning) -> str:
    """Name a target: ``2.50 nats per byte (3.61 bits) on 256 held-out sequences``."""
    held_out = f" on {printable(goal.held_out)}" if goal.held_out else ""
    return f"{loss_text(goal.target_loss, goal.unit)}{held_out}"


def reached_text(outcome: Outcome) -> str:
    """Count the seeds that reached the target: ``2 of 5 seeds``."""
    return f"{outcome.learning.n_reached} of {plural(outcome.n_seeds, 'seed')}"


def needed_text(needed: Needed, write: Callable[[float], str]) -> str:
    """Write the median over seeds; what it is at most, or beyond, where seeds were stopped: ``over 300 s``."""
    median = needed.interval.median
    if isnan(median):
        return MISSING
    if not isinf(median):
        return write(median) if needed.median_known else f"at most {write(median)}"
    beyond = needed.median_at_least
    return "never" if isinf(beyond) else f"over {write(beyond)}"


def time_text(outcome: Outcome) -> str:
    """Write the median time to the target: ``41.2 s``, ``not reached (over 300 s)``."""
    shown = needed_text(outcome.time, format_seconds)
    return f"not reached ({shown})" if isinf(outcome.time.interval.median) else shown


def span_text(needed: Needed, write: Callable[[float], str]) -> str:
    """Write what the quickest and the slowest seed needed: ``38.1 s to 44.0 s``, ``120 s to over 300 s``."""
    if np.isnan(needed.least).any():
        return MISSING
    reached, used = needed.most[np.isfinite(needed.most)], needed.least[np.isinf(needed.most)]
    ends = [write(float(reached.min()))] if reached.size else []
    if used.size:
        most = float(used.max())
        ends.append("never" if isinf(most) else f"over {write(most)}")
    elif reached.max() > reached.min():
        ends.append(write(float(reached.max())))
    return " to ".join(ends)


def ends_text(interval: Interval, write: Callable[[float], str]) -> str:
    """Write the ends of a median's interval: ``38.1 s to 44.0 s``, ``from 120 s``, or that there are too few seeds."""
    if isnan(interval.low):
        return TOO_FEW
    if isinf(interval.high):
        return "never" if isinf(interval.low) else f"from {write(interval.low)}"
    return f"{write(interval.low)} to {write(interval.high)}"


def speedup_text(one: Ranked) -> str:
    """Write the speedup to the target: ``2.9×``; where either never got there, what it is beyond: ``over 2.1×``."""
    speedup = one.speedup
    if not isnan(speedup.median):
        return format_ratio(speedup.median)
    if one.finding == "faster" and not isinf(speedup.low):
        return f"over {format_ratio(speedup.low)}"
    return f"below {format_ratio(speedup.high)}" if one.finding == "slower" and speedup.high > 0 else MISSING


def ratio_ends_text(ratio: Interval) -> str:
    """Write the ends of a ratio: ``2.4–3.3×``, ``from 2.4×``, ``up to 0.8×``, or that there are too few seeds."""
    low, high = ratio.low, ratio.high
    if isnan(low) and isnan(high):
        return TOO_FEW
    if isnan(low) or isnan(high) or isinf(low) or high == 0.0:
        return MISSING
    if isinf(high):
        return f"from {format_ratio(low)}" if low > 0 else MISSING
    return f"{significant(low)}–{format_ratio(high)}" if low > 0 else f"up to {format_ratio(high)}"


def finding_text(one: Ranked) -> str:
    """Say what a case is beside its base: ``faster``, ``undecided: n too small``; a dash where there is no base."""
    if one.base is None:
        return MISSING
    if one.finding in ("faster", "slower"):
        return f"{one.finding} than no. {one.base.entry.number}"
    return f"undecided: {TOO_FEW}" if one.too_few else one.finding


def _aim(goal: Goal) -> str:
    return f"{common_problem([entry.case for entry in goal.entries])}. Target: {target_text(goal)}."


def goal_sentences(goal: Goal, called: Mapping[int, str]) -> str:
    """Sum a goal up: who is faster to the target than which base, who slower, of whom it is not decided, who never."""
    base = next((one.base for one in goal.ranked if one.base), None)
    said = [_aim(goal)]
    if base is None:
        return f"{said[0]} No VALID serial run to compare with."
    of_files = len({one.base.entry.number for one in goal.ranked if one.base}) > 1
    others = "; cases of other files that hold a serial run have that" if of_files else ""
    took = f"{time_text(base)}, {reached_text(base)}"
    said.append(f"Base: no. {base.entry.number}, {called[base.entry.number]}, {took}{others}.")
    findings: tuple[tuple[Finding, str], ...] = (
        ("faster", "Faster"),
        ("slower", "Slower"),
        ("undecided", "Undecided"),
    )
    for finding, word in findings:
        named = [
            f"{called[one.entry.number]}" + (f" ({speedup_text(one)})" if speedup_text(one) != MISSING else "")
            for one in goal.ranked
            if one.base and one.finding == finding
        ]
        if named:
            more = f" and {len(named) - 6} more" if len(named) > 6 else ""
            said.append(f"{word}: {', '.join(named[:6])}{more}.")
    return " ".join(said)


def target_table(goal: Goal, called: Mapping[int, str]) -> Table:
    """Rank the cases of a goal, the fastest to the target first; cases go by these names."""
    rows = []
    for one in goal.ranked:
        o, is_base = one.outcome, one.finding == "base"
        cells = {
            "No.": str(one.entry.number),
            "Case": called[one.entry.number],
            "Reached": f"{o.learning.n_reached} of {o.n_seeds}",
            "Time": time_text(o),
            "Its seeds": span_text(o.time, format_seconds),
            "95 % interval": ends_text(o.time.interval, format_seconds),
            "Speedup": MISSING if is_base else speedup_text(one),
            "Interval of it": MISSING if is_base or one.base is None else ratio_ends_text(one.speedup),
            "To the target": finding_text(one),
            "Steps": needed_text(o.steps, format_steps),
            "Time a step": format_seconds(o.step_s.median),
            "By its steps": MISSING if is_base else format_ratio(one.by_steps),
            "By a step's time": MISSING if is_base else format_ratio(one.by_step_time),
            "Sent, all ranks": needed_text(o.sent, format_bytes),
            "Energy": needed_text(o.energy, format_joules),
        }
        rows.append(cells)
    silent = {"95 % interval": TOO_FEW, "Energy": MISSING}
    columns = [name for name in rows[0] if any(cells[name] != silent.get(name) for cells in rows)]
    note = (
        f"{_aim(goal)} Medians over all seeds: a seed that did not reach the target would have taken "
        "longer than it had, and so would the median where half of them did not; at most: of others that were stopped "
        "earlier it is not known. Speedup: over the VALID serial case "
        "that is fastest to the target. By its steps: steps of the base over those of the case; by a step's time: the "
        "same of the time of a step; of a single seed the product of both is the speedup. Decided where the whole "
        "interval lies on one side of 1; it takes 4 seeds of each."
    )
    texts = (columns.index("Case"), columns.index("To the target"))
    return Table("Time to the target", columns, [[cells[name] for name in columns] for cells in rows], texts, note)


def loss_table(goal: Goal, called: Mapping[int, str]) -> Table:
    """State where the losses of each case began and ended."""
    in_bits = goal.unit == NATS_PER_BYTE
    rows = []
    for o in sorted(goal.outcomes, key=lambda o: o.entry.number):
        curves = o.learning.curves
        first, last = ([float(c.held_out_loss[k]) for c in curves] for k in (0, -1))
        missed = [float(c.held_out_loss[-1]) for c in curves if not c.reached]
        trained = [float(c.train_loss[-1]) for c in curves if len(c.train_loss) > 1]
        rows.append(
            [
                str(o.entry.number),
                called[o.entry.number],
                endings_text(o.learning),
                range_text([float(c.step[-1]) for c in curves], format_steps),
                range_text([c.time_s[-1] for c in curves], format_seconds),
                range_text(first),
                range_text(last),
                *([range_text([bits(loss) for loss in last])] if in_bits else []),
                range_text(missed),
                range_text(trained),
            ]
        )
    unit = f" [{printable(goal.unit)}]" if goal.unit else ""
    columns = ["No.", "Case", "Seeds ended by", "Steps", "Time", f"Untrained{unit}", f"At the end{unit}"]
    columns += [*(["At the end [bits per byte]"] if in_bits else []), f"Not reached{unit}", f"Trained on{unit}"]
    if any(o.learning.restarts for o in goal.outcomes):
        columns.append("Taken up again")
        for row, o in zip(rows, sorted(goal.outcomes, key=lambda o: o.entry.number), strict=True):
            row.append(str(len(o.learning.restarts)))
    note = (
        f"{_aim(goal)} Smallest to largest of the seeds. Held-out losses, of data never trained on; not reached: at "
        "the end of seeds that did not reach the target; trained on: mean over the steps before the last evaluation."
    )
    return Table("Losses on held-out data", columns, rows, text_columns=(1, 2), note=note)


def range_text(values: Sequence[float], write: Callable[[float], str] = significant) -> str:
    """Write the smallest and the largest of some values, or the one they all are; a dash without any."""
    if not values:
        return MISSING
    low, high = write(float(min(values))), write(float(max(values)))
    return low if low == high else f"{low}–{high}"


def endings_text(learning: Learning) -> str:
    """Count why the training of seeds ended: ``target 3, most steps 2``."""
    counts = Counter(curve.ending for curve in learning.curves)
    return ", ".join(f"{ENDING_NAMES[ending]} {counts[ending]}" for ending in ENDING_NAMES if counts[ending])


def staleness_shares(case: Case) -> list[float]:
    """Return the share of gradients that were 0, 1, 2, ... updates old; the last of all older ones. Empty without."""
    counts = case.staleness
    if counts is None or not counts.sum():
        return []
    shares = counts / counts.sum()
    shown = [float(share) for share in shares[: MOST_AGES - 1]]
    return [*shown, float(shares[MOST_AGES - 1 :].sum())] if len(shares) >= MOST_AGES else shown


def age_names(n: int) -> list[str]:
    """Name so many ages of gradients: ``0``, ``1``, ...; the last of :data:`MOST_AGES` stands for all older ones."""
    return [f"{k} or more" if k == MOST_AGES - 1 else str(k) for k in range(n)]


def staleness_table(entries: Sequence[Entry], called: Mapping[int, str]) -> Table | None:
    """Tabulate how old gradients were when a parameter server applied them; None where none did."""
    found = [(e, shares) for e in entries if (shares := staleness_shares(e.case))]
    if not found:
        return None
    most = max(len(shares) for _, shares in found)
    rows = []
    for entry, shares in found:
        total = 0 if entry.case.staleness is None else int(entry.case.staleness.sum())
        cells = [format_percent(share) for share in shares]
        rows.append([str(entry.number), called[entry.number], str(total), *cells, *["0 %"] * (most - len(cells))])
    note = "Share of gradients by the updates that were made between the read of the parameters and theirs; all seeds."
    return Table("Staleness", ["No.", "Case", "Gradients", *age_names(most)], rows, text_columns=(1,), note=note)


def learning_lines(entry: Entry, draw: Callable[[Sequence[float]], str], ranked: Ranked | None = None) -> list[str]:
    """Say of a case that was trained to a target how that went.

    Parameters
    ----------
    entry : Entry
    draw : callable
        Makes a sparkline of losses.
    ranked : Ranked, optional
        The case beside the base of its goal.
    """
    outcome = outcome_of(entry)
    if outcome is None:
        return ["no seed was trained"] if entry.case.learning else []
    learning = outcome.learning
    count = f"reached {loss_text(learning.target_loss, learning.unit)}: {reached_text(outcome)}"
    never = isinf(outcome.time.interval.median)
    needs = [f"median {'not reached: ' if never else ''}{needed_text(outcome.time, format_seconds)}"]
    if learning.n_reached:
        needs[0] += f" ({span_text(outcome.time, format_seconds)})" if outcome.n_seeds > 1 else ""
        needs.append(f"{needed_text(outcome.steps, format_steps)} steps")
        needs += [f"{needed_text(outcome.sent, format_bytes)} sent"] if outcome.sent.least.any() else []
        needs += [needed_text(outcome.energy, format_joules)] if outcome.energy_known else []
    lines = [f"{count}; {', '.join(needs)}"]
    if ranked and ranked.base and ranked.finding != "base":
        lines.append(f"to the target {_beside_base(ranked)}")
    curve = band(learning, "step")
    drawn = f"{draw(curve.middle[~np.isnan(curve.middle)].tolist())} " if curve else ""
    missed = [float(c.held_out_loss[-1]) for c in learning.curves if not c.reached]
    last = f"; without it {plural(len(missed), 'seed')} ended at {range_text(missed)}" if missed else ""
    first = range_text([float(c.held_out_loss[0]) for c in learning.curves])
    lines.append(f"held-out loss {drawn}from {first}{last}")
    if learning.restarts:
        lines.append(f"taken up again from a checkpoint {plural(len(learning.restarts), 'time')}")
    return lines


def staleness_lines(case: Case) -> list[str]:
    """Say how old gradients were when a parameter server applied them; nothing where none did."""
    shares = staleness_shares(case)
    ages = [f"{name}: {format_percent(s)}" for name, s in zip(age_names(len(shares)), shares, strict=True) if s > 0]
    return [f"gradients by the updates they were old: {', '.join(ages)}"] if ages else []


def _beside_base(one: Ranked) -> str:
    """Say what a case is beside its base: ``2.94× (2.64–3.27×), faster than serial · numpy; by its steps ...``."""
    shown, bounds = speedup_text(one), ratio_ends_text(one.speedup)
    if isnan(one.speedup.median):
        shown = bounds if shown == MISSING and not one.too_few else shown
    elif not one.too_few and bounds != MISSING:
        shown += f" ({bounds})"
    name = case_name(one.base.entry.case) if one.base else MISSING
    if one.base and one.base.entry.file != one.entry.file:
        name += f" of another file ({short_source(one.base.entry.record)})"
    few = f" ({TOO_FEW})" if one.too_few else ""
    finding = f"undecided beside {name}{few}" if one.finding == "undecided" else f"{one.finding} than {name}"
    parts = {"by its steps": one.by_steps, "by a step's time": one.by_step_time}
    made_of = [f"{part} {format_ratio(value)}" for part, value in parts.items() if not isnan(value)]
    return "; ".join(filter(None, [", ".join(t for t in (shown, finding) if t != MISSING), ", ".join(made_of)]))
