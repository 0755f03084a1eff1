"""Closed forms of what a schedule loses when messages take no time."""

from __future__ import annotations


def pipeline_bubble(n_stages: int, n_items: int) -> float:
    """Fraction of a step that the ranks of a layer pipeline idle: (P - 1) / (n + P - 1).

    P stages of equal cost take n items, chunks of micro-batches, one after another; the first item takes P - 1
    steps to reach the last stage (Huang et al. 2019, GPipe, section 2.3; Li et al. 2021, TeraPipe, for chunks of
    a sequence).  It takes B and W as one; where a gradient leaves before the weight gradient is computed, as here,
    the bubble is smaller, see :func:`pipeline_makespan`; without W the two agree.

    Parameters
    ----------
    n_stages : int
        P.
    n_items : int
        n = C M, chunks times micro-batches.
    """
    return (n_stages - 1) / (n_items + n_stages - 1)


def wavefront_efficiency(n_layers: int, n_microbatches: int, n_segments: int) -> float:
    """Fraction of a step that the ranks of time segments work: L M / (L M + P - 1).

    The transpose of the pipeline: the items of a segment are its layers, L for each of M micro-batches, and the
    last of P segments gets its first halo state after P - 1 of them (the wavefront over layers and time of Appleyard
    et al. 2016, *Optimizing Performance of Recurrent Neural Networks on GPUs*, cut into segments).

    Parameters
    ----------
    n_layers, n_microbatches, n_segments : int
        L, M and P.
    """
    return 1.0 - pipeline_bubble(n_segments, n_layers * n_microbatches)


def pipeline_makespan(n_stages: int, n_items: int, F: float, B: float, W: float) -> float:
    """Length of a step of ``fill_drain``, ``1f1b`` or ``seq_1f1b``: n (F + B + W) + (P - 1) (F + B).

    Nobody waits for a W: in the drain the stages follow one another by B alone.

    Parameters
    ----------
    n_stages, n_items : int
        P, and n = C M.
    F, B, W : float
        Time of a task of one stage and one item.
    """
    return n_items * (F + B + W) + (n_stages - 1) * (F + B)


def zero_bubble_makespan(n_stages: int, n_chunks: int, F: float, B: float, W: float) -> float:
    """Length of a step of ``zb_h1`` with one micro-batch: (C + P - 1) (F + B) + C W.

    Parameters
    ----------
    n_stages, n_chunks : int
        P and C.
    F, B, W : float
        Time of a task of one stage and one chunk.
    """
    return (n_chunks + n_stages - 1) * (F + B) + n_chunks * W
