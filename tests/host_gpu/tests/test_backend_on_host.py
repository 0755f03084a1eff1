"""The CuPy backend on the stand-in: what cannot be asked of a real GPU. All that can is in ``tests/gpu``."""

import gc

import numpy as np
import pytest
from gpu.gpu_samples import LayerStack, assert_within
from stand_in import cp

from hpcrnn.backends.layer_case import LayerCase
from hpcrnn.benchmarks.layers import ALLOWED_ERROR, measure_case
from hpcrnn.errors import LaunchError

SIZES = 7, 11, 8, 24  # T, B, D, H


@pytest.mark.parametrize("kernel", ["persistent", "stepwise"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_nothing_is_read_before_it_is_waited_for(cell, kernel, monkeypatch):
    """Work that is done as late as can be gives the same to the bit: somebody waits wherever it matters."""
    stack = LayerStack(cell, *SIZES, kernel=kernel)
    expected = stack.found((2, 3))
    assert_within(expected, stack.expected(), cell, "float32")
    monkeypatch.setattr("cupy._settings.LATE", True)
    found = stack.found((2, 3))
    assert found.loss == expected.loss
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)


def test_the_same_weights_and_tapes_are_used_again_by_graphs():
    """Graphs hold addresses: a second step on other numbers must be that of a new engine."""
    first, second = (LayerStack("gru", *SIZES, kernel="stepwise", seed=seed) for seed in (0, 1))
    engine, extent = first.engine((1, 2)), first.extent((1, 2))
    first.run(engine, extent)
    found, expected = second.run(engine, extent), second.found((1, 2))
    for name, value in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], value, err_msg=name)


def test_an_old_device_steps(monkeypatch):
    monkeypatch.setattr("cupy._settings.CAPABILITY", "75")
    stack = LayerStack("lstm", *SIZES)
    engine = stack.engine()
    assert "compute capability 7.5, below 8.0" in engine.kernel_details
    assert_within(stack.run(engine, stack.extent()), stack.expected(), "lstm", "float32")
    with pytest.raises(LaunchError, match=r"7\.5"):
        LayerStack("lstm", *SIZES, kernel="persistent").engine()


def test_a_layer_too_wide_for_the_device_steps(monkeypatch):
    monkeypatch.setattr("cupy._settings.MULTIPROCESSORS", 1)
    assert "the weights do not fit" in LayerStack("lstm", 2, 3, 4, 256).engine().kernel_details


def test_too_little_memory_is_said_in_one_line(monkeypatch):
    pool = cp.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    # cuBLAS asks for 32 MiB before anything else.
    monkeypatch.setattr("cupy._settings.MEMORY_BYTES", pool.used_bytes() + (34 << 20))
    with pytest.raises(LaunchError, match=r"cupy: about .* of host \(no GPU\)'s memory are needed, .* are free"):
        LayerStack("lstm", 20, 64, 64, 128).engine()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_layer_benchmark_verifies_and_times(cell, precision):
    from hpcrnn.backends.cupy.device import open_device

    timing = measure_case(LayerCase(cell, precision, 8, 6, 32, 16), open_device(shared=True), 1, 0.0, peer=False)
    assert max(timing.errors.values()) <= ALLOWED_ERROR[precision]
    assert all(seconds > 0 for samples in timing.ours_s.values() for seconds in samples)
    assert "forward" in timing.facts["kernel"]


def test_the_layer_benchmark_knows_the_device_and_its_rates():
    from hpcrnn.backends.cupy.device import open_device
    from hpcrnn.backends.cupy.layer import copy_rate, device_facts, free_memory, matrix_rate

    device = open_device(shared=True)
    facts = device_facts(device)
    assert facts["name"] == "host (no GPU)"
    assert facts["memory_bytes"] == 2 << 30
    assert copy_rate(device, 1 << 16) > 0
    assert matrix_rate(device, "bfloat16", 64) > 0
    free_memory()
