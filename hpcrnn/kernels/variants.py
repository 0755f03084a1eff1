"""What can be compiled: a cell in a precision, and the tile a persistent kernel works on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "tf32", "float16", "bfloat16"]
Direction = Literal["forward", "backward"]
Exchange = Literal["counter", "data"]

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "float16", "bfloat16")
"""In the order of PRECISION in ``precision.cuh``."""

_CELLS = ("elman", "gru", "lstm")
_GATES = {"elman": 1, "gru": 3, "lstm": 4}
_SLOTS = {"elman": 1, "gru": 4, "lstm": 4}
_VECTOR_BYTES, _LANES_OF_A_ROW = 16, 4


@dataclass(frozen=True)
class Variant:
    """A cell, its precision and the direction of time.

    Attributes
    ----------
    cell : {"elman", "gru", "lstm"}
    precision : {"float32", "tf32", "float16", "bfloat16"}
    direction : {"forward", "backward"}
    relu : bool
        The Elman cell's activation.
    reset_before : bool
        The GRU's reset gate comes before the recurrent product.
    """

    cell: str
    precision: Precision
    direction: Direction
    relu: bool = False
    reset_before: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of a stored number."""
        return 2 if self.precision in ("float16", "bfloat16") else 4

    @property
    def n_gates(self) -> int:
        """Gates of the cell."""
        return _GATES[self.cell]

    @property
    def n_slots(self) -> int:
        """Gradients a step leaves for each unit: one a gate, and dq where a GRU has it."""
        return self.n_gates if self.reset_before else _SLOTS[self.cell]

    @property
    def vector(self) -> int:
        """Numbers a thread loads at once: H must be a multiple of it in a persistent kernel."""
        return _VECTOR_BYTES // self.itemsize

    @property
    def k_block(self) -> int:
        """Numbers of the reduction in one K block."""
        return _LANES_OF_A_ROW * self.vector

    def reduction(self, H: int) -> int:
        """Length of the recurrent product's sum."""
        return H if self.direction == "forward" else self.n_gates * H

    def macros(self) -> dict[str, int]:
        """What the sources want defined."""
        return {
            "CELL": _CELLS.index(self.cell),
            "PRECISION": PRECISIONS.index(self.precision),
            "RELU": int(self.relu),
            self.direction.upper(): 1,
        }


@dataclass(frozen=True)
class Tile:
    """How a persistent kernel is cut; the names are explained at the top of ``persistent.cu``.

    Attributes
    ----------
    warps, units, rows, subtiles : int
    k_blocks, k_in_registers, k_stage : int
    exchange : {"counter", "data"}
    """

    warps: int
    units: int
    rows: int
    subtiles: int
    k_blocks: int
    k_in_registers: int
    k_stage: int
    exchange: Exchange = "data"

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    def grid(self, B: int, H: int) -> tuple[int, int]:
        """Blocks over units and over rows."""
        return math.ceil(H / self.units), math.ceil(B / (self.rows * self.subtiles))

    def m_tiles(self, variant: Variant) -> int:
        """Sixteen rows of weights each."""
        rows = self.units * (variant.n_gates if variant.direction == "forward" else 1)
        return math.ceil(rows / 16)

    def weight_registers(self, variant: Variant) -> int:
        """Registers of a thread that hold weights."""
        return 8 * self.m_tiles(variant) * self.k_in_registers

    def working_registers(self, variant: Variant) -> int:
        """Registers of a thread for sums and for the state on its way."""
        n_tiles = self.rows // 8
        stages = 1 if self.k_stage == self.k_blocks else 2
        return 4 * n_tiles * (self.m_tiles(variant) + stages * self.k_stage)

    def shared_bytes(self, variant: Variant) -> int:
        """Dynamic shared memory: weights that are not in registers, partial sums twice, what is carried."""
        m_tiles = self.m_tiles(variant)
        weights = m_tiles * (self.k_blocks - self.k_in_registers) * 2 * self.threads * _VECTOR_BYTES
        partials = 2 * self.warps * self.rows * (16 * m_tiles + 4) * 4
        items = math.ceil(self.units // 2 * self.rows / self.threads)
        return weights + partials + self.subtiles * items * self.threads * 8

    def macros(self, variant: Variant) -> dict[str, int]:
        """What ``persistent.cu`` wants defined."""
        return variant.macros() | {
            "WARPS": self.warps,
            "UNITS": self.units,
            "ROWS": self.rows,
            "SUBTILES": self.subtiles,
            "K_BLOCKS": self.k_blocks,
            "K_IN_REGISTERS": self.k_in_registers,
            "K_STAGE": self.k_stage,
            "EXCHANGE": int(self.exchange == "data"),
            "SHARED_BYTES": self.shared_bytes(variant),
        }
