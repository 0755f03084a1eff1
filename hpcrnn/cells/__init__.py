"""The mathematics of the recurrent cells, in NumPy: forward, backpropagation through time, and what it costs.

One file a cell, forward beside backward.  All arrays are time-major:

====  =============================================================
T     time steps of a chunk
B     rows of the batch
D     input size
H     hidden units, of one shard where a layer is split
G     gates of the cell: Elman 1, GRU 3 (r, z, n), LSTM 4 (i, f, g, o),
      minGRU 2 (z, n), minLSTM 3 (f, i, n)
====  =============================================================

Gate order and equations are those of PyTorch and cuDNN, which have no minGRU and minLSTM: these are as published.
"""

from collections.abc import Callable

from hpcrnn.cells.base import Cell, Tape
from hpcrnn.cells.elman import Elman
from hpcrnn.cells.gru import GRU
from hpcrnn.cells.lstm import LSTM
from hpcrnn.cells.mingru import MinGRU
from hpcrnn.cells.minlstm import MinLSTM
from hpcrnn.errors import SpecError
from hpcrnn.spec import ModelSpec

_GATED: dict[str, Callable[[float, int | None], Cell]] = {"lstm": LSTM, "mingru": MinGRU, "minlstm": MinLSTM}


def make_cell(model: ModelSpec) -> Cell:
    """Return the cell a model asks for.

    Raises
    ------
    SpecError
        The cell has no gate to initialise as asked.
    """
    if model.cell == "elman":
        if model.forget_init != "constant":
            raise SpecError("model.forget_init", model.forget_init, "constant, with cell elman: it has no gate")
        return Elman(activation=model.activation)
    span = model.chrono_span if model.forget_init == "chrono" else None
    if model.cell == "gru":
        return GRU(model.reset, model.forget_bias, span)
    return _GATED[model.cell](model.forget_bias, span)


__all__ = ["GRU", "LSTM", "Cell", "Elman", "MinGRU", "MinLSTM", "Tape", "make_cell"]
