"""Numbers as progress says them."""

from __future__ import annotations

from math import isfinite


def duration(seconds: float) -> str:
    """Say how long something takes: ``0.8 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if not isfinite(seconds):
        return "an unknown time"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def step_time(seconds: float) -> str:
    """Say how long a step takes, to three digits: ``392 ms``, ``1.25 s``."""
    rounded = float(f"{seconds:.3g}")
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if rounded >= scale or unit == "us":
            break
    value = rounded / scale
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def percent(share: float) -> str:
    """Say a share of one to two digits: ``7.1 %``, ``42 %``; ``-`` for NaN."""
    if not isfinite(share):
        return "-"
    if 0 < share < 0.0095:
        return f"{100 * share:.2g} %"
    return f"{share:.1%}".replace("%", " %") if share < 0.0995 else f"{share:.0%}".replace("%", " %")


def bar(share: float, width: int, *, in_ascii: bool = False) -> tuple[str, str]:
    """Cut a bar of some cells in two, the part that is done and the rest; all is done at one only."""
    done = int(min(max(share, 0.0), 1.0) * width) if isfinite(share) else 0
    return ("#" if in_ascii else "━") * done, ("." if in_ascii else "─") * (width - done)


def shortened(text: str, width: int, *, in_ascii: bool = False) -> str:
    """Cut a text to a width, and say so by its last character."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + ("~" if in_ascii else "…")
