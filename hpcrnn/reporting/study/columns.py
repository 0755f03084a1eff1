"""The columns of a study's tables as arrays and kinds, and the axes they are drawn on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcrnn.records.study import StudyTable
from hpcrnn.reporting.figures.canvas import SERIES_STYLES, log_ticks, number, set_ticks
from hpcrnn.reporting.units import printable, scientific

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = npt.NDArray[np.float64]


def numbers(table: StudyTable, name: str) -> FloatArray:
    """Return a column as float64; all NaN where it is missing."""
    column = table.columns.get(name)
    return np.full(len(table), np.nan) if column is None else np.asarray(column, dtype=np.float64)


def texts(table: StudyTable, name: str) -> npt.NDArray[np.str_]:
    """Return a column of texts; all empty where it is missing."""
    column = table.columns.get(name)
    return np.full(len(table), "") if column is None else np.asarray(column, dtype=np.str_)


def is_known(table: StudyTable, name: str) -> bool:
    """Whether a column is there and holds a number."""
    return bool(np.isfinite(numbers(table, name)).any())


def kinds_of(table: StudyTable, *names: str) -> list[tuple[str, ...]]:
    """Return what each row is of, as plain texts."""
    columns = [texts(table, name).tolist() for name in names if name in table.columns]
    return [tuple(printable(text) for text in row) for row in zip(*columns, strict=True)]


def styled(kinds: Sequence[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
    """Give every kind, in the order of appearance, its colour, marker and line style."""
    return [(kind, SERIES_STYLES[k % len(SERIES_STYLES)]) for k, kind in enumerate(dict.fromkeys(kinds))]


def positive_range(values: FloatArray) -> tuple[float, float]:
    """Return the least and the largest of what a logarithmic axis can show."""
    shown = values[np.isfinite(values) & (values > 0)]
    return (float(shown.min()), float(shown.max())) if shown.size else (0.1, 1.0)


def log_scale(ax: Axes, which: str, low: float, high: float, most: int = 8) -> None:
    """Make an axis logarithmic, with round numbers on it, at most so many."""
    room = max(1.15, (high / low) ** 0.06)
    low, high = low / room, high * room
    getattr(ax, f"set_{which}scale")("log")
    getattr(ax, f"set_{which}lim")(low, high)
    ticks = log_ticks(low, high)
    ticks = ticks[:: math.ceil(len(ticks) / most)]
    set_ticks(getattr(ax, f"{which}axis"), ticks, _tick_labels(ticks))


def _tick_labels(ticks: Sequence[float]) -> list[str]:
    """Write ticks with no more digits than tell them apart."""
    for digits in (1, 2, 3):
        labels = [number(t) if 1e-3 <= t < 1e6 else scientific(t, digits) for t in ticks]
        if len(set(labels)) == len(labels):
            break
    return labels


def facts_line(table: StudyTable) -> str:
    """Say what holds for the whole table: its plain facts."""
    plain = {k: v for k, v in table.facts.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    return " · ".join(f"{printable(k).replace('_', ' ')} {printable(_shown(v))}" for k, v in plain.items())


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
