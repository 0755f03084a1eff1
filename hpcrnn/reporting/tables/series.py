"""What a series is called, in every legend and table."""

from __future__ import annotations

from collections.abc import Sequence

from hpcrnn.reporting.analysis.scaling import Series
from hpcrnn.reporting.describe import distinctions, shortfalls


def series_names(series: Sequence[Series]) -> list[str]:
    """Name each series by strategy and backend, and by what else sets it apart from the others."""
    if not series:
        return []
    ignore = ("problem.batch",) if series[0].batch_per_rank else ()
    extras = distinctions([s.widest.entry.case for s in series], ignore)
    labels = []
    for one, extra in zip(series, extras, strict=True):
        per_rank = f"B{float(one.batch_per_rank):g} a rank" if one.batch_per_rank else ""
        marks = [*(["simulated"] if one.widest.entry.case.simulated else []), *series_shortfalls(one)]
        labels.append(" · ".join(filter(None, (one.strategy, one.backend, per_rank, extra, *marks))))
    return labels


def series_shortfalls(series: Series) -> list[str]:
    """Say what sets some point of a series apart from the chain."""
    return list({text: None for point in series.points for text in shortfalls(point.entry.case)})
