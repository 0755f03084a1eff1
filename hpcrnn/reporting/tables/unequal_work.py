"""Tables and lines of what sequences of unequal length cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcrnn.reporting.analysis.unequal_work import WorkCost
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import (
    MISSING,
    format_percent,
    format_percent_interval,
    has_bounds,
    printable,
    significant,
)

QUANTILES = (0.1, 0.5, 0.9, 0.99)


def work_lines(cost: WorkCost) -> list[str]:
    """Say of a case what its padding and its unequal shares cost."""
    work = cost.work
    tokens, slots = (f"{np.median(counts.sum(axis=1)):,.0f}" for counts in (work.tokens, work.slots))
    lines = [
        f"{tokens} tokens in {slots} slots a step, {format_percent(work.waste)} padding; {rate_text(cost)} tokens/s"
    ]
    if cost.waited is not None:
        share = format_percent(cost.waited.median)
        bounds = f" ({format_percent_interval(cost.waited)})" if has_bounds(cost.waited) else ""
        predicted = format_percent(work.slot_imbalance)
        lines.append(f"waiting for unequal work {share}{bounds} by {cost.told_from}, {predicted} predicted from slots")
    return lines


def rate_text(cost: WorkCost) -> str:
    """Write tokens a second: ``1.27 M``."""
    rate = cost.rate.median
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= factor:
            return f"{significant(rate / factor)} {unit}"
    return significant(rate)


def work_table(costs: Sequence[WorkCost], called: Mapping[int, str]) -> Table | None:
    """Tabulate what unequal lengths cost, a row a case; None where there are none."""
    if not costs:
        return None
    rows = []
    for cost in costs:
        case, work, waited = cost.entry.case, cost.work, cost.waited
        several = case.n_ranks > 1
        rows.append(
            [
                str(cost.entry.number),
                called[cost.entry.number],
                how_text(cost),
                str(case.n_ranks),
                f"{np.median(work.tokens.sum(axis=1)):,.0f}",
                f"{np.median(work.slots.sum(axis=1)):,.0f}",
                format_percent(work.waste),
                format_percent(work.token_imbalance) if several else MISSING,
                format_percent(work.slot_imbalance) if several else MISSING,
                format_percent(waited.median) if waited else MISSING,
                format_percent_interval(waited) if waited and has_bounds(waited) else MISSING,
                cost.told_from if waited else MISSING,
                rate_text(cost),
            ]
        )
    columns = ["No.", "Case", "Sequences", "Ranks", "Tokens a step", "Slots a step", "Padding", "Uneven tokens"]
    columns += ["Wait predicted", "Wait", "95 % interval", "Told from", "Tokens/s"]
    note = (
        "A token is a time step of a row that holds a byte, a slot one that is run; padding is the share of slots that "
        "hold none. Wait: the share of the ranks' time that passes while the rank with the longest work of a step is "
        "still at it, 1 - sum over ranks / (ranks times the longest), sums over all steps; its interval is of 1999 "
        "bootstrap replicates of the steps. Predicted: the same of slots; uneven tokens: the same of tokens. Told from "
        "CPU time where each rank has one thread and that was measured, so that ranks that share cores do not seem to "
        "wait for one another; else from the clock. Tokens/s: median over steps. Steps of different batchings hold "
        "different numbers of tokens."
    )
    return Table("Unequal work", columns, rows, text_columns=(1, 2, 11), note=note)


def how_text(cost: WorkCost) -> str:
    """Say what the sequences are and how they are batched: ``lines, packed, skewed:1``."""
    problem = _problem(cost)
    spread = str(problem.get("spread", "even"))
    words = [problem.get("sequences"), problem.get("batching", "naive"), *([] if spread == "even" else [spread])]
    return ", ".join(printable(word) for word in words)


def length_table(costs: Sequence[WorkCost]) -> Table | None:
    """Tabulate the lengths of the data, a row a text and a way to cut it; None where there are none."""
    groups: dict[tuple[str, ...], list[WorkCost]] = {}
    for cost in costs:
        counts = cost.work.n_sequences
        total, tokens = int(counts.sum()), int((counts * np.arange(1, len(counts) + 1)).sum())
        cells = [data_text(cost), f"{total:,}", f"{tokens:,}", f"{tokens / max(total, 1):.1f}"]
        cells += [str(length) for length in cost.work.quantiles(QUANTILES)]
        cells += [str(len(counts)), format_percent(counts[-1] / max(total, 1))]
        groups.setdefault(tuple(cells), []).append(cost)
    if not groups:
        return None
    rows = [[spans([cost.entry.number for cost in members]), *cells] for cells, members in groups.items()]
    columns = ["No.", "Data", "Sequences", "Bytes", "Mean length"]
    columns += [*(f"{100 * q:g} %" for q in QUANTILES), "Longest allowed", "As long"]
    note = "Lengths in bytes, which are time steps, that so many sequences do not exceed; longer ones are cut."
    return Table("Lengths of the sequences", columns, rows, text_columns=(1,), note=note)


def data_text(cost: WorkCost) -> str:
    """Say what was cut into what: ``lines of stdlib``."""
    problem = _problem(cost)
    return f"{printable(problem.get('sequences'))} of {printable(problem.get('workload'))}"


def _problem(cost: WorkCost) -> dict[str, Any]:
    section = cost.entry.case.spec["problem"]
    return section if isinstance(section, dict) else {}
