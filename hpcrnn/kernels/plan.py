"""Which kernel for which shape: tier 0 or 1, and the tile; from the device's own limits, and without a device.

The order of candidates comes from a model of one step's time whose constants were fitted to timings of some three
hundred tiles on an H200 (``docs/decisions/0010-gpu-kernels.md``). Only the *order* matters here, never the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hpcrnn.kernels.variants import Tile, Variant

Kernel = Literal["auto", "persistent", "stepwise"]

PERSISTENT_CAPABILITY = (8, 0)
"""Compute capability from which there are persistent kernels, bfloat16 and TF32."""

CORRECTION_SPARE = 30
"""Registers that a re-run holds beside a run's: the words it will overwrite."""

# Registers a thread needs beside weights, sums and the state on its way. Measured: 21 to 80 in 16 bits and TF32, where
# the compiler reloads what it can; about 95 where float32 is split in two.
_OTHER_REGISTERS = {"float32": 90, "tf32": 70, "float16": 55, "bfloat16": 55}
_REGISTERS_OF_A_THREAD = 255

# Tiles compiled at the most, each once more with registers to spare.
_TRIED, _LEAN = 4, 40

# What a multiply costs beside one in 16 bits: TF32 reduces half as much at half the rate, and float32 is three of them.
_MULTIPLY_COST = {"float32": 5.5, "tf32": 2.0, "float16": 1.0, "bfloat16": 1.0}


@dataclass(frozen=True)
class DeviceLimits:
    """What a device can hold.

    Attributes
    ----------
    n_multiprocessors : int
    shared_bytes : int
        Of one block, at the most.
    registers : int
        Of one multiprocessor.
    capability : tuple of int
        Major and minor compute capability.
    """

    n_multiprocessors: int
    shared_bytes: int
    registers: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """How a layer's time loop runs in one direction.

    Attributes
    ----------
    tiles : tuple of Tile
        Of the persistent kernel, best first; the first that compiles without spilling and fits is taken. Empty: the
        loop is stepwise.
    reason : str
        Why it is stepwise.
    """

    tiles: tuple[Tile, ...]
    reason: str = ""


def make_plan(variant: Variant, B: int, H: int, device: DeviceLimits, kernel: Kernel = "auto", spare: int = 0) -> Plan:
    """Choose the kernel of one direction of a layer.

    Parameters
    ----------
    variant : Variant
    B, H : int
    device : DeviceLimits
    kernel : {"auto", "persistent", "stepwise"}
        ``persistent`` where it is possible, however slow; ``stepwise`` always is.
    spare : int
        Registers of a thread to leave for what a kernel holds beside the usual.
    """
    reason = "asked for" if kernel == "stepwise" else _hindrance(variant, H, device)
    if reason:
        return Plan((), reason)
    ranked = sorted(_tiles(variant, B, H, device, spare), key=lambda tile: _step_cost(tile, variant, B, H))
    if not ranked:
        return Plan((), "the weights do not fit on the multiprocessors")
    if kernel == "auto" and _step_cost(ranked[0], variant, B, H) > _stepwise_cost(variant, B, H):
        return Plan((), "one product a step is faster")
    # How many registers the compiler takes is not known before: behind each tile one that needs fewer.
    lean = [_fit(tile, variant, device, spare + _LEAN) for tile in ranked[:_TRIED]]
    pairs = zip(ranked[:_TRIED], lean, strict=True)
    return Plan(tuple(dict.fromkeys(tile for pair in pairs for tile in pair if tile is not None)))


def _hindrance(variant: Variant, H: int, device: DeviceLimits) -> str:
    """Say why there is no persistent kernel for a layer; empty where there may be one."""
    if variant.reset_before:
        return "the reset gate comes before the recurrent product"
    if device.capability < PERSISTENT_CAPABILITY:
        return f"compute capability {device.capability[0]}.{device.capability[1]}, below 8.0"
    return f"H = {H} is no multiple of {variant.vector}" if H % variant.vector else ""


def _tiles(variant: Variant, B: int, H: int, device: DeviceLimits, spare: int) -> Iterator[Tile]:
    """Every tile whose weights fit on chip, all blocks at once."""
    for warps in (4, 8):
        k_blocks = math.ceil(variant.reduction(H) / (variant.k_block * warps))
        for units in (4, 8, 12, 16, 24, 32, 48, 64):
            columns = math.ceil(H / units)
            most = device.n_multiprocessors // columns
            for rows in (8, 16) if variant.precision == "float32" else (8, 16, 32):
                tiles = math.ceil(B / rows)
                for over in sorted({math.ceil(tiles / n) for n in range(1, min(most, tiles) + 1)}):
                    made = _fit(Tile(warps, units, rows, over, k_blocks, k_blocks, 1), variant, device, spare)
                    if made is not None:
                        yield made


def _fit(tile: Tile, variant: Variant, device: DeviceLimits, spare: int) -> Tile | None:
    """Divide the weights between registers and shared memory, and choose the stage; None where they do not fit.

    ``spare`` registers are left over for whatever the compiler does with them.
    """
    n_tiles, m_tiles = tile.rows // 8, tile.m_tiles(variant)
    limit = min(_REGISTERS_OF_A_THREAD, device.registers // tile.threads)
    free = limit - spare - _OTHER_REGISTERS[variant.precision] - 4 * n_tiles * m_tiles
    # Where float32 is split in two, a longer stage makes the compiler hold more parts than there are registers.
    longest = 2 if variant.precision == "float32" else 8
    stages = [s for s in range(1, tile.k_blocks + 1) if tile.k_blocks % s == 0 and s * n_tiles <= longest]
    for stage in sorted(stages, reverse=True):
        in_flight = 4 * n_tiles * stage * (1 if stage == tile.k_blocks else 2)
        held = min(tile.k_blocks, (free - in_flight) // (8 * m_tiles))
        if held < 0:
            continue
        made = Tile(tile.warps, tile.units, tile.rows, tile.subtiles, tile.k_blocks, held, stage, tile.exchange)
        if made.shared_bytes(variant) <= device.shared_bytes:
            return made
    return None


def _step_cost(tile: Tile, variant: Variant, B: int, H: int) -> float:
    """About the microseconds of a step.

    The states' way from block to block, the longer the more blocks read them; or the blocks' own work where that
    takes longer: fixed costs, multiplying and adding up, loading.
    """
    columns, _ = tile.grid(B, H)
    m_tiles, n_tiles = tile.m_tiles(variant), tile.rows // 8
    loads = tile.k_blocks * n_tiles
    work = tile.k_blocks * tile.warps / 8 * _MULTIPLY_COST[variant.precision]
    shared = tile.k_blocks - tile.k_in_registers
    own = 0.5 + m_tiles * n_tiles * (0.04 + 0.025 * work) + 0.06 * loads + 0.01 * shared * m_tiles
    waiting = 0.5 if tile.subtiles == 1 else 0.0  # for the states, where no other subtile's step hides it
    return max(1.0 + 0.1 * math.sqrt(columns * loads), own * tile.subtiles + waiting) + 1e-3 * tile.subtiles


def _stepwise_cost(variant: Variant, B: int, H: int) -> float:
    """About the microseconds of a GEMM and a pointwise kernel a step, replayed from a graph.

    Two launches; and arithmetic, or reading the weights from the L2 cache where there are few rows.
    """
    weights = H * variant.n_gates * H
    operations_per_us = {"float32": 25e6, "tf32": 100e6, "float16": 350e6, "bfloat16": 350e6}[variant.precision]
    return 5.0 + max(2 * B * weights / operations_per_us, weights * variant.itemsize / 5e6)
