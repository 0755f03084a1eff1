"""Codecs by the names a specification has for them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hpcrnn.compression.low_rank import LowRank
from hpcrnn.compression.rounded import ROUNDINGS, Rounded
from hpcrnn.compression.sparse import TopK
from hpcrnn.compression.stages import Codec, FlatLayout, StageSize


def parse_codec(text: str) -> Codec | None:
    """Return the codec ``parallel.grad_codec`` names; None for ``none``.

    Parameters
    ----------
    text : str
        As validated by the specification: ``int8``, ``topk:0.01``, ``powersgd:4``.
    """
    if text == "none":
        return None
    if text in ROUNDINGS:
        return Rounded(ROUNDINGS[ROUNDINGS.index(text)])
    name, _, amount = text.partition(":")
    if name == "topk":
        return TopK(Fraction(amount) if "." in amount else int(amount))
    return LowRank(int(amount))


def stage_sizes(text: str, layout: FlatLayout, itemsize: int, n_ranks: int) -> tuple[StageSize, ...]:
    """Sizes of the stages that one sum takes with a codec; of ``none`` those of the plain one."""
    codec = parse_codec(text)
    if codec is None:
        return (StageSize("allreduce", "gradient", itemsize * layout.size),)
    return codec.stage_sizes(layout, itemsize, n_ranks)


def payload_bytes(text: str, layouts: Sequence[FlatLayout], itemsize: int, n_ranks: int) -> int:
    """Bytes a rank contributes to the sums of a step.

    Parameters
    ----------
    text : str
        Name of the codec.
    layouts : sequence of FlatLayout
        What is summed together, one for each sum.
    itemsize : int
        Bytes of a number.
    n_ranks : int
    """
    return sum(size.n_bytes for layout in layouts for size in stage_sizes(text, layout, itemsize, n_ranks))


def wire_bytes(text: str, layouts: Sequence[FlatLayout], itemsize: int, n_ranks: int) -> float:
    """Bytes a rank must send for the sums of a step at the least, on average over the ranks."""
    sizes = (size for layout in layouts for size in stage_sizes(text, layout, itemsize, n_ranks))
    return sum(size.wire_bytes(n_ranks) for size in sizes)


def memory_bytes(text: str, layouts: Sequence[FlatLayout], itemsize: int, n_ranks: int) -> int:
    """Bound what a rank allocates for a codec: what is held back and scratch, and what is sent and received."""
    sizes = (size for layout in layouts for size in stage_sizes(text, layout, itemsize, n_ranks))
    flat = sum(layout.size + n_ranks for layout in layouts)
    return 3 * itemsize * flat + sum(size.buffer_bytes(n_ranks) for size in sizes)
