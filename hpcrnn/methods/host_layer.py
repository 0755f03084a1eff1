"""One layer's folded arrays, as NumPy works on them."""

from __future__ import annotations

from dataclasses import dataclass

from hpcrnn.cells.base import Array, Cell, Parameters, Tape, Workspace
from hpcrnn.methods.folding import Folding
from hpcrnn.methods.strips import Strips


@dataclass
class LayerArrays:
    """One layer's folded arrays.

    Attributes
    ----------
    cell : Cell
    parameters : mapping of str to array
    x : array (S, R, D)
    dy : array (S, R, H), or None in mode ``forward``
    tape : Tape
        Of S steps of R rows.
    work : Workspace
        Of R rows; its weights are laid out.
    folding : Folding
    """

    cell: Cell
    parameters: Parameters
    x: Array
    dy: Array | None
    tape: Tape
    work: Workspace
    folding: Folding

    def __post_init__(self) -> None:
        self.strips = Strips(self.cell, self.parameters, self.tape, self.work)
