"""What runs attained of what their ranks could do, and what that is, in tables."""

from __future__ import annotations

from collections.abc import Sequence

from hpcrnn.records.statistics import Interval
from hpcrnn.reporting.analysis.roofline import Ceilings, Reached, Rooflines
from hpcrnn.reporting.tables.cases import names
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import (
    GIGA,
    MISSING,
    TOO_FEW,
    format_percent,
    format_percent_interval,
    has_bounds,
    plural,
    significant,
)

BOUNDS = {"products": "products", "memory": "memory", "open": "memory, or products if cached"}
"""What limits a case, in words."""

INTENSITY_NOTE = (
    "The intensity is the model's: matrix-product operations over compulsory bytes, from the recurrent weights read at "
    "every time step to the same weights kept in a cache."
)
RATE_NOTE = (
    "Rates are of all ranks of a case together, over its median step. The ceiling is the lesser of their rate of "
    "products and intensity times their rate of memory, both measured on all of them at once in the case's own run. "
    "The share is of the ceiling with cached weights."
)
IN_CACHE_NOTE = (
    "The arrays of the memory's rate were no larger than the last-level cache, as there was no time to touch more: the "
    "rate may be the cache's."
)


def roofline_table(found: Rooflines) -> Table | None:
    """Tabulate what each case attained and its ceiling; None where no case has one."""
    if not found.reached:
        return None
    called = names([one.entry for one in found.reached])
    rows = [
        [
            str(one.entry.number),
            called[one.entry.number],
            ends(one.streamed, one.cached),
            gflops(one.rate.median),
            interval_text(one.rate),
            ends(one.ceilings.at(one.streamed) / GIGA, one.ceilings.at(one.cached) / GIGA),
            BOUNDS[one.bound],
            format_percent(one.share.median),
            format_percent_interval(one.share),
        ]
        for one in found.reached
    ]
    columns = ["No.", "Case", "FLOP/byte", "GFLOP/s", "95 % interval", "Ceiling, GFLOP/s", "Limited by", "Share"]
    columns.append("95 % interval")
    return Table("Below the roofline", columns, rows, text_columns=(1, 6), note=roofline_note(found))


def roofline_note(found: Rooflines) -> str:
    """Say what the numbers of the table are, what stands out in them, and which cases are not in it."""
    parts = [INTENSITY_NOTE, RATE_NOTE]
    if beyond := [one.entry.number for one in found.reached if one.streamed_share.median > 1]:
        parts.append(
            f"Faster than weights from memory allow, so that some of them stayed in a cache: no. {spans(beyond)}."
        )
    if above := [one.entry.number for one in found.reached if one.share.median > 1]:
        parts.append(
            f"Above the ceiling, so that what the model counts stayed in a cache or the machine was slower when it was "
            f"measured: no. {spans(above)}."
        )
    parts += [
        f"Not shown, {reason}: no. {spans(sorted(numbers))}." for reason, numbers in found.left_out.items() if numbers
    ]
    return " ".join(parts)


def ceiling_table(found: Rooflines) -> Table | None:
    """Tabulate the ceilings, a row for the ranks that measured together; None where there are none."""
    groups: dict[tuple[int, Ceilings], list[int]] = {}
    for one in found.reached:
        groups.setdefault((one.entry.file, one.ceilings), []).append(one.entry.number)
    if not groups:
        return None
    rows = [
        [
            spans(numbers),
            f"{c.backend}, {c.precision}",
            c.library,
            f"{plural(c.n_ranks, 'rank')} × {plural(c.threads, 'thread')}",
            spread(c.flop_per_s),
            spread(c.bytes_per_s) + (" *" if c.in_cache else ""),
            significant(c.ridge),
        ]
        for (_, c), numbers in groups.items()
    ]
    columns = ["No.", "Backend", "Products by", "At once", "GFLOP/s a rank", "GB/s a rank", "Ridge, FLOP/byte"]
    note = (
        "The best of a few repetitions of a square product, and of passes over long arrays (every array read or "
        "written counts once), least to most over the ranks. At the ridge both take as long."
    )
    if any(c.in_cache for _, c in groups):
        note += f" * {IN_CACHE_NOTE}"
    return Table("Ceilings, measured before the steps", columns, rows, text_columns=(1, 2, 3), note=note)


def gflops(rate: float) -> str:
    """Write operations a second as a bare number of GFLOP/s."""
    return significant(rate / GIGA)


def interval_text(rate: Interval) -> str:
    """Write the bounds of a rate in GFLOP/s, or that n is too small."""
    return ends(rate.low / GIGA, rate.high / GIGA) if has_bounds(rate) else TOO_FEW


def ends(low: float, high: float) -> str:
    """Write both ends of a range, or the one number they are."""
    texts = [significant(low), significant(high)]
    return texts[0] if texts[0] == texts[1] else "–".join(texts)


def spread(rates: Sequence[float]) -> str:
    """Write the least and the most of rates, in thousands of millions a second."""
    return ends(min(rates) / GIGA, max(rates) / GIGA) if rates else MISSING


def bound_words(one: Reached) -> str:
    """Say for a picture's text what a case attained: ``92 GFLOP/s, 51 % of its ceiling``."""
    return f"{gflops(one.rate.median)} GFLOP/s, {format_percent(one.share.median)} of its ceiling"
