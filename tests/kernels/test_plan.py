"""The planner: what fits is taken, what does not is said; no device needed."""

import pytest

from hpcrnn.kernels.plan import DeviceLimits, make_plan
from hpcrnn.kernels.source import read_source
from hpcrnn.kernels.variants import PRECISIONS, Variant

H200 = DeviceLimits(132, 232448, 65536, (9, 0))
SMALL = DeviceLimits(20, 101376, 65536, (8, 6))

every_device = pytest.mark.parametrize("device", [H200, SMALL], ids=["H200", "small"])
every_direction = pytest.mark.parametrize("direction", ["forward", "backward"])


@every_device
@every_direction
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
@pytest.mark.parametrize("sizes", [(1, 8), (3, 40), (16, 512), (64, 1024), (70, 136), (500, 256)], ids=str)
def test_every_tile_fits_the_device_and_covers_the_layer(cell, precision, direction, device, sizes):
    B, H = sizes
    variant = Variant(cell, precision, direction)
    plan = make_plan(variant, B, H, device, "persistent")
    assert bool(plan.tiles) != bool(plan.reason)
    for tile in plan.tiles:
        columns, rows = tile.grid(B, H)
        assert columns * rows <= device.n_multiprocessors
        assert columns * tile.units >= H
        assert rows * tile.rows * tile.subtiles >= B
        assert tile.k_blocks * tile.warps * variant.k_block >= variant.reduction(H)
        assert tile.k_blocks % tile.k_stage == 0
        assert 0 <= tile.k_in_registers <= tile.k_blocks
        assert tile.shared_bytes(variant) <= device.shared_bytes
        used = tile.weight_registers(variant) + tile.working_registers(variant)
        assert used <= min(255, device.registers // tile.threads)


def plan(B=16, H=512, device=H200, kernel="auto", precision="bfloat16", direction="forward"):
    return make_plan(Variant("lstm", precision, direction), B, H, device, kernel)


def test_the_first_choice_keeps_small_layers_in_registers():
    (tile, *_) = plan().tiles
    assert tile.k_in_registers == tile.k_blocks


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"kernel": "stepwise"}, "asked for"),
        ({"H": 514}, "H = 514 is no multiple of 8"),
        ({"H": 514, "kernel": "persistent"}, "H = 514 is no multiple of 8"),
        ({"H": 4096, "B": 64}, "the weights do not fit on the multiprocessors"),
        ({"device": DeviceLimits(80, 98304, 65536, (7, 0))}, "compute capability 7.0, below 8.0"),
        ({"B": 4096}, "one product a step is faster"),
    ],
)
def test_a_stepwise_loop_has_a_reason(asked, reason):
    found = plan(**asked)
    assert not found.tiles
    assert found.reason == reason


def test_what_is_slow_is_possible_where_it_is_asked_for():
    assert plan(B=4096, kernel="persistent").tiles


def test_a_smaller_device_holds_less():
    assert plan(H=1024, B=64).tiles
    assert not plan(H=1024, B=64, device=SMALL).tiles


def test_sources_are_whole_and_may_have_a_part_replaced():
    source = read_source("persistent.cu")
    assert "#include" not in source
    assert source.count("mma.sync.aligned.m16n8k16.row.col.f32.bf16") == 1
    replaced = read_source("persistent.cu", {"ptx.cuh": "// nothing\n"})
    assert "asm" not in replaced
    assert "// nothing" in replaced
