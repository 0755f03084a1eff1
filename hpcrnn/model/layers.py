"""The layers that are not recurrent, in NumPy: embedding, linear, and the losses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def embed(table: Array, tokens: Array, out: Array) -> None:
    """Look rows up.

    Parameters
    ----------
    table : array (V, D)
    tokens : int array (T, B)
    out : array (T, B, D)
    """
    np.take(table, tokens, axis=0, out=out, mode="clip")


def embed_gradient(
    tokens: Array, dy: Array, into: Array, held: Array | None = None, *, accumulate: bool = False
) -> None:
    """Add up the gradients of equal tokens.

    Sorted, equal tokens are a run of rows, and each run one sum.  Of 4096 bytes of text, 512 wide, that takes 1.1 ms,
    ``numpy.add.reduceat`` over all runs 15, and ``numpy.add.at`` 13.

    Parameters
    ----------
    tokens : int array (T, B)
    dy : array (T, B, D)
    into : array (V, D)
        Overwritten, or added to.
    held : bool array (T, B), optional
        Which tokens are there. Zeros of the others would add nothing, but would change how sums are rounded.
    accumulate : bool, optional
        Add to what is there.
    """
    flat = tokens.ravel()
    if held is None:
        order = np.argsort(flat, kind="stable")
    else:
        there = np.flatnonzero(held)
        order = there[np.argsort(flat[there], kind="stable")]
    ordered = flat[order]
    bounds = np.flatnonzero(np.diff(ordered, prepend=-1, append=-1))
    rows = dy.reshape(flat.size, -1)
    if not accumulate:
        into[...] = 0
    for start, stop in pairwise(bounds):
        into[ordered[start]] += rows[order[start:stop]].sum(axis=0)


def cross_entropy(
    logits: Array, targets: Array, weights: Array | None, scale: float, told: Array | None = None
) -> float:
    """Softmax cross-entropy; turns the logits into their gradient, in place.

    Parameters
    ----------
    logits : array (N, V)
        In: scores. Out: gradient of the loss with respect to them.
    targets : int array (N,)
    weights : array (N,) or None
        Weight of each row; None is one.
    scale : float
        Of the whole loss: one over the rows of the global batch.
    told : float64 array (N,), optional
        Takes the logarithm of each target's probability.

    Returns
    -------
    float
        ``scale * sum(weights * -log softmax(logits)[target])``.
    """
    rows = np.arange(len(targets))
    logits -= logits.max(axis=1, keepdims=True)
    picked = logits[rows, targets].astype(np.float64)
    np.exp(logits, out=logits)
    totals = logits.sum(axis=1, keepdims=True)
    terms = np.log(totals[:, 0].astype(np.float64)) - picked
    if told is not None:
        np.negative(terms, out=told)
    logits /= totals
    logits[rows, targets] -= 1
    if weights is None:
        logits *= scale
        return float(terms.sum()) * scale
    logits *= (weights * scale)[:, None].astype(logits.dtype, copy=False)
    return float(np.dot(terms, weights)) * scale


def squared_error(outputs: Array, targets: Array, weights: Array | None, scale: float) -> float:
    """Mean over the outputs of the squared error; turns the outputs into their gradient, in place.

    Parameters
    ----------
    outputs, targets : array (N, O)
    weights : array (N,) or None
    scale : float

    Returns
    -------
    float
        ``scale * sum(weights * mean((outputs - targets)², axis=1))``.
    """
    width = outputs.shape[1]
    outputs -= targets
    terms = np.einsum("no,no->n", outputs, outputs, dtype=np.float64)
    total = float(terms.sum() if weights is None else np.dot(terms, weights))
    if weights is None:
        outputs *= 2 * scale / width
    else:
        outputs *= (weights * (2 * scale / width))[:, None].astype(outputs.dtype, copy=False)
    return float(total * scale / width)
