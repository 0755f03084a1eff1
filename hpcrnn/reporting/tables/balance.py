"""What shares by speed gain, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcrnn.reporting.analysis.balance import NOTHING, Recovery
from hpcrnn.reporting.analysis.finding import finding_of
from hpcrnn.reporting.tables.table import Table
from hpcrnn.reporting.units import (
    MISSING,
    format_percent,
    format_percent_interval,
    format_ratio,
    format_ratio_interval,
    format_seconds,
)

_WEIGHTS_SHOWN = 8


def balance_table(found: Sequence[Recovery], called: Mapping[int, str]) -> Table | None:
    """Tabulate cases whose shares follow the ranks' speeds beside those whose shares are even; None without any.

    Parameters
    ----------
    found : sequence of Recovery
    called : mapping of int to str
        Names of the cases, by number.
    """
    if not found:
        return None
    rows = [
        [
            str(one.balanced.number),
            called[one.balanced.number],
            _weights(one.weights),
            format_seconds(one.even.step.median),
            format_seconds(one.balanced.step.median),
            format_seconds(one.ideal.median),
            format_ratio(one.over_even.median),
            format_ratio_interval(one.over_even),
            finding_of(one.over_even, "lower"),
            format_percent(one.recovered.median) if one.recovered else MISSING,
            format_percent_interval(one.recovered) if one.recovered else "nothing to recover",
        ]
        for one in found
    ]
    columns = ["No.", "Case", "Weights", "Even", "Balanced", "Ideal", "Balanced over even", "95 % interval"]
    columns += ["Balanced is", "Recovered", "95 % interval"]
    return Table("Even shares, shares by speed, and the ideal", columns, rows, text_columns=(1, 2, 8), note=_NOTE)


_NOTE = (
    "Median steps; both splits were measured in the same rounds. Weights: speed of each rank over the fastest's, given "
    "or measured before the run. Ideal: all ranks busy for equally long, each at the pace it has under even shares, "
    "and waiting in proportion; rows, steps and layers are whole, and a product of more rows takes less time a row, so "
    "balanced shares may fall short of it or do better. Recovered: round by round, of what even shares lose against "
    f"the ideal the share that balanced ones do not; where they lose less than {100 * NOTHING:.0f} % there is nothing "
    "to recover."
)


def _weights(weights: Sequence[float]) -> str:
    shown = ", ".join(f"{weight:.4g}" for weight in weights[:_WEIGHTS_SHOWN])
    return f"{shown}, …" if len(weights) > _WEIGHTS_SHOWN else shown
