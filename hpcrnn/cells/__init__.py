"""The mathematics of the recurrent cells, in NumPy: forward, backpropagation through time, and what it costs.

One file a cell, forward beside backward.  All arrays are time-major:

====  =====================================================
T     time steps of a chunk
B     rows of the batch
D     input size
H     hidden units, of one shard where a layer is split
G     gates of the cell: Elman 1, GRU 3 (r, z, n), LSTM 4 (i, f, g, o)
====  =====================================================

Gate order and equations are those of PyTorch and cuDNN.
"""

from hpcrnn.cells.base import Cell, Tape
from hpcrnn.cells.elman import Elman
from hpcrnn.cells.gru import GRU
from hpcrnn.cells.lstm import LSTM
from hpcrnn.spec import ModelSpec


def make_cell(model: ModelSpec) -> Cell:
    """Return the cell a model asks for."""
    if model.cell == "elman":
        return Elman(activation=model.activation)
    if model.cell == "gru":
        return GRU(reset=model.reset)
    return LSTM(forget_bias=model.forget_bias)


__all__ = ["GRU", "LSTM", "Cell", "Elman", "Tape", "make_cell"]
