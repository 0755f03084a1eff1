"""What is said of the samples of a case beyond median and interval: its tail, and whether they are independent."""

from __future__ import annotations

from collections.abc import Sequence

from hpcrnn.records.statistics import Dependence, Interval, Percentile
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.describe import sample_steps
from hpcrnn.reporting.tables.table import spans
from hpcrnn.reporting.units import TOO_FEW, format_interval, format_percent, format_seconds


def percentile_text(percentile: Percentile) -> str:
    """Write a percentile with its interval: ``431 ms (425–440 ms)``, or that n is too small.

    Where n is too small for the interval alone, the percentile stands alone.
    """
    if not percentile.known:
        return TOO_FEW
    shown = format_seconds(percentile.value)
    if not percentile.has_interval:
        return shown
    return f"{shown} ({format_interval(Interval(percentile.n, percentile.value, percentile.low, percentile.high))})"


def dependence_text(found: Dependence | None) -> str:
    """Say in a few words how samples depend on one another: ``drift +38 %``, ``in runs, 9 of 16``; empty where not."""
    if found is None:
        return ""
    drift = [f"drift {_signed(found.shift)}"] if found.drifts else []
    runs = [f"in runs, {found.n_runs} of {found.expected_runs:.0f}"] if found.clusters else []
    return "; ".join([*drift, *runs])


def dependence_sentence(found: Dependence | None) -> str:
    """Say that samples are not independent, and what follows; empty where nothing speaks against it."""
    if found is None:
        return ""
    if found.drifts:
        way = "slower" if found.shift > 0 else "faster"
        what = f"samples drift: the second half is {format_percent(abs(found.shift))} {way}"
    else:
        what = f"samples come in {found.n_runs} runs about the median, {found.expected_runs:.0f} are expected"
    return f"{what}; the interval may be too narrow"


def leg_note(entries: Sequence[Entry]) -> str:
    """Say of which cases a sample is a mean over several steps, with a space before; empty where it is of none."""
    found: dict[int, list[int]] = {}
    for entry in entries:
        if (steps := sample_steps(entry.case)) > 1:
            found.setdefault(steps, []).append(entry.number)
    said = [f"of no. {spans(numbers)} over {steps}" for steps, numbers in sorted(found.items())]
    between = "the steps between two meetings of all ranks, or two evaluations"
    return f" A sample is a mean {', '.join(said)} steps: {between}." if said else ""


def _signed(share: float) -> str:
    return f"{'−' if share < 0 else '+'}{format_percent(abs(share))}"
