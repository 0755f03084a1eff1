"""Ranges for a profiler: opened and closed, nothing else."""

_open: list[str] = []


def RangePush(message: str, id_color: int = -1) -> None:  # noqa: N802
    """Open a range."""
    _open.append(message)


def RangePop() -> None:  # noqa: N802
    """Close the one opened last; CUDA ignores one too many, here it is an error."""
    if not _open:
        msg = "nvtx: no range is open"
        raise RuntimeError(msg)
    _open.pop()


def Mark(message: str, id_color: int = -1) -> None:  # noqa: N802
    """Mark an instant."""


def open_ranges() -> tuple[str, ...]:
    """What is open, for tests; not CuPy's."""
    return tuple(_open)
