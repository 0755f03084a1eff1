"""What is launched covers what there is, and what cannot be launched is not made."""

from stand_in import cp  # noqa: F401 - the module is left out where there is another CuPy

from hpcrnn.backends.cupy import corrections
from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import launch_flat, open_device
from hpcrnn.backends.cupy.loops import make_loop, make_variant
from hpcrnn.cells import LSTM
from hpcrnn.kernels.plan import Plan
from hpcrnn.kernels.variants import Tile


def test_a_thread_for_every_element_however_many():
    for n in (1, 256, 257, (1 << 25) + 1):  # more than 2^16 blocks: the kernels of single steps take no second element
        launched = []
        launch_flat(lambda grid, block, _: launched.append((grid, block)), n, ())  # noqa: B023 - called at once
        ((grid, block),) = launched
        assert n <= grid[0] * block[0] < n + 256


def test_a_tile_of_too_many_subtiles_is_left_to_windows(monkeypatch):
    device = open_device(shared=True)
    with device.stream:
        arithmetic = Arithmetic("float32")
        loop = make_loop(LSTM(), "forward", 64, 16, arithmetic, device, "persistent")
        variant = make_variant(LSTM(), "forward", arithmetic)
        monkeypatch.setattr(corrections, "make_plan", lambda *_: Plan((Tile(4, 8, 8, 32, 1, 1, 1),)))
        made = corrections.make_correction(LSTM(), variant, loop, 64, 16, arithmetic, device, "persistent")
    assert isinstance(made, corrections.WindowedCorrection)
