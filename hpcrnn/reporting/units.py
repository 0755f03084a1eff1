"""The one place that turns seconds, bytes, rates and ratios into text.

Records hold SI values without a prefix.  Three significant digits are shown unless more are needed to tell
the two ends of an interval apart; what is not known is a dash, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hpcrnn.records.statistics import Interval

MISSING = "—"
"""Stands for a number there is not."""
TOO_FEW = "n too small"
"""Stands for an interval that too few samples cannot give."""


@dataclass(frozen=True)
class Unit:
    """A unit to show values in.

    Attributes
    ----------
    factor : float
        What one of it is in the SI unit without a prefix.
    name : str
        Its symbol.
    """

    factor: float
    name: str


SECONDS = (Unit(1.0, "s"), Unit(1e-3, "ms"), Unit(1e-6, "µs"), Unit(1e-9, "ns"))
BYTES = (
    Unit(2.0**40, "TiB"),
    Unit(2.0**30, "GiB"),
    Unit(2.0**20, "MiB"),
    Unit(2.0**10, "KiB"),
    Unit(1.0, "B"),
)
FLOPS = (Unit(1e15, "PFLOP"), Unit(1e12, "TFLOP"), Unit(1e9, "GFLOP"), Unit(1e6, "MFLOP"), Unit(1.0, "FLOP"))
JOULES = (Unit(1e6, "MJ"), Unit(1e3, "kJ"), Unit(1.0, "J"), Unit(1e-3, "mJ"))
HERTZ = (Unit(1e9, "GHz"), Unit(1e6, "MHz"), Unit(1e3, "kHz"), Unit(1.0, "Hz"))
GIGA = 1e9


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, without an exponent where one can do without.

    Parameters
    ----------
    value : float
    digits : int
        Digits at the least; those before the decimal point are never rounded away.

    Returns
    -------
    str
        ``412``, ``12.3``, ``1.93``, ``0.00123``, ``1.2e-9``; a dash for NaN.
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0.0:
        return "0"
    # The digits follow from the rounded value: 9.996 is 10.0, not 10.00.
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if not -5 <= exponent < 9:
        return scientific(value, digits)
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def scientific(value: float, digits: int = 2) -> str:
    """Write a number with an exponent: ``1.2e-7``; errors and tolerances are read this way."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else significant(value)
    if value == 0.0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def choose_unit(value: float, units: Iterable[Unit], digits: int = 3) -> Unit:
    """Return the largest unit of which the rounded value holds at least one.

    ``units`` runs from large to small; the last is taken where the value is smaller than all, and for
    a value that is zero or not finite the one whose factor is 1.
    """
    table = tuple(units)
    if value == 0.0 or not math.isfinite(value):
        return next(u for u in table if u.factor == 1.0)
    for unit in table:
        if float(f"{abs(value) / unit.factor:.{digits - 1}e}") >= 1.0:
            return unit
    return table[-1]


def seconds_unit(values: Iterable[float]) -> Unit:
    """Return one unit of time for an axis or a column: that of the values' geometric middle."""
    logs = [math.log(v) for v in values if v > 0 and math.isfinite(v)]
    return choose_unit(math.exp(sum(logs) / len(logs)) if logs else 0.0, SECONDS)


def format_seconds(value: float, digits: int = 3) -> str:
    """Write a duration: ``12.3 ms``.

    Parameters
    ----------
    value : float
        Seconds.
    digits : int
        Significant digits.
    """
    return _with_unit(value, SECONDS, digits)


def format_bytes(value: float) -> str:
    """Write a size in binary prefixes: ``1.50 MiB``; whole bytes below 1 KiB."""
    unit = choose_unit(value, BYTES)
    return f"{value:.0f} B" if unit.name == "B" and math.isfinite(value) else _with_unit(value, BYTES, 3)


def format_hertz(value: float) -> str:
    """Write a frequency: ``2.50 GHz``."""
    return _with_unit(value, HERTZ, 3)


def format_joules(value: float) -> str:
    """Write an energy: ``12.5 kJ``."""
    return _with_unit(value, JOULES, 3)


def format_flops(value: float) -> str:
    """Write a number of floating-point operations: ``5.42 GFLOP``."""
    return _with_unit(value, FLOPS, 3)


def format_gflops(flops: float, seconds: float) -> str:
    """Write a rate as a bare number of GFLOP/s, for a column that names the unit."""
    return significant(flops / seconds / GIGA) if seconds > 0 and flops > 0 else MISSING


def format_ratio(value: float) -> str:
    """Write a ratio of two times: ``1.93×``."""
    return MISSING if math.isnan(value) else f"{significant(value)}×"


def format_percent(value: float) -> str:
    """Write a share or an efficiency: ``96 %``; a tenth more below 10 %."""
    if not math.isfinite(value):
        return MISSING
    percent = 100.0 * value
    return f"{percent:.0f} %" if round(abs(percent), 1) >= 10.0 or percent == 0.0 else f"{percent:.1f} %"


def format_interval(interval: Interval) -> str:
    """Write the bounds of a median of times, in one unit: ``409–416 ms``, or that n is too small."""
    unit = choose_unit(interval.median, SECONDS)
    return _bounds(interval, unit.factor, f" {unit.name}")


def format_ratio_interval(interval: Interval) -> str:
    """Write the bounds of a ratio: ``1.90–1.96×``, or that n is too small."""
    return _bounds(interval, 1.0, "×")


def format_percent_interval(interval: Interval) -> str:
    """Write the bounds of an efficiency: ``95–98 %``, or that n is too small."""
    return _bounds(interval, 0.01, " %", digits=2)


def has_bounds(interval: Interval) -> bool:
    """Whether there were samples enough for an interval."""
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 rank``, ``2 ranks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: object) -> str:
    """Return text without control characters, on one line: nothing in a file may steer a terminal."""
    plain = str(text)
    if not plain.isprintable():  # which is rare, and a large report asks a million times
        plain = "".join(c if c.isprintable() else " " for c in plain)
    return plain.strip()


def shorten(text: str, length: int) -> str:
    """Cut the middle out of a text longer than ``length`` characters: both ends tell paths apart."""
    if len(text) <= length:
        return text
    tail = (length - 1) * 2 // 3
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def in_two(text: str, length: int) -> list[str]:
    """Break a text longer than ``length`` between two of its parts, so that the longer line is short.

    ``in_two("data 2 × pipeline 2 · 1f1b M4 · numpy", 28)`` is ``["data 2 × pipeline 2", "1f1b M4 · numpy"]``.
    """
    parts = text.split(" · ")
    if len(text) <= length or len(parts) == 1:
        return [text]
    breaks = [[" · ".join(parts[:k]), " · ".join(parts[k:])] for k in range(1, len(parts))]
    return min(breaks, key=lambda lines: max(map(len, lines)))


def _with_unit(value: float, units: tuple[Unit, ...], digits: int) -> str:
    if math.isnan(value):
        return MISSING
    unit = choose_unit(value, units, digits)
    return f"{significant(value / unit.factor, digits)} {unit.name}"


def _bounds(interval: Interval, factor: float, suffix: str, digits: int = 3) -> str:
    if not has_bounds(interval):
        return TOO_FEW
    # More digits only until the two ends can be told apart.
    for places in range(digits, digits + 3):
        low, high = (significant(end / factor, places) for end in (interval.low, interval.high))
        if low != high:
            break
    return f"{low}–{high}{suffix}"
