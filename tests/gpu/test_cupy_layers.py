"""Stacks of recurrent layers on the GPU against the NumPy cells in float64: every cell, precision, kernel and cut."""

import numpy as np
import pytest
from gpu.gpu_samples import CELLS, LayerStack, assert_within, errors
from gpu.which_gpu import on_host

from hpcrnn.errors import LaunchError
from hpcrnn.kernels.variants import PRECISIONS

# Pairwise distinct; H is no multiple of any tile, and the rows are none of eight.
T, B, D, H = (10, 13, 16, 40) if on_host() else (37, 19, 24, 104)
LONG = 301 if on_host() else 70001
WIDE = (3, 37, 21, 96) if on_host() else (4, 70, 130, 256)
LARGE = (3, 12, 16, 256) if on_host() else (6, 20, 16, 1024)

every_cell = pytest.mark.parametrize("cell", CELLS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)
every_kernel = pytest.mark.parametrize("kernel", ["persistent", "stepwise"])


@every_kernel
@every_precision
@every_cell
def test_every_quantity_is_the_float64_cells(cell, precision, kernel):
    stack = LayerStack(cell, T, B, D, H, precision, kernel=kernel)
    assert_within(stack.found(), stack.expected(), cell, precision)


@pytest.mark.parametrize("cut", [(1, 3), (2, 1), (3, 5), (B, T)], ids=str)
@every_kernel
@every_cell
def test_micro_batches_and_chunks_change_nothing(cell, kernel, cut):
    stack = LayerStack(cell, T, B, D, H, kernel=kernel)
    assert_within(stack.found(cut), stack.expected(), cell, "float32")


@pytest.mark.parametrize("sizes", [(5, 3, 2, 7), (9, 1, 3, 8), (6, 33, 5, 40), WIDE], ids=str)
@every_precision
@every_cell
def test_odd_sizes(cell, precision, sizes):
    stack = LayerStack(cell, *sizes, precision)
    assert_within(stack.found(), stack.expected(), cell, precision)


@every_kernel
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_more_steps_than_a_16_bit_number_counts(cell, kernel):
    stack = LayerStack(cell, LONG, 2, 3, 16, layers=1, kernel=kernel)
    assert_within(stack.found((1, 2)), stack.expected(), cell, "float32")


@every_kernel
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_inference_gives_the_same_states(cell, kernel):
    stack = LayerStack(cell, T, B, D, H, "bfloat16", kernel=kernel, mode="forward")
    found = stack.found((2, 3))
    assert not any(name.startswith("gradient ") for name in found.arrays)
    assert_within(found, stack.expected(), cell, "bfloat16")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_large_layers_use_registers_and_shared_memory(cell, precision):
    stack = LayerStack(cell, *LARGE, precision, layers=1, kernel="persistent")
    assert_within(stack.found(), stack.expected(), cell, precision)


@every_precision
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_runs_repeat_to_the_bit(cell, precision):
    stack = LayerStack(cell, T, B, D, H, precision)
    first, second = stack.found(), stack.found()
    for name, value in first.arrays.items():
        np.testing.assert_array_equal(value, second.arrays[name], err_msg=name)


def test_what_runs_is_said():
    for H, tier in ((64, "persistent"), (65, "stepwise")):
        assert f"{tier} forward" in LayerStack("lstm", 4, 8, 16, H).engine().kernel_details


def test_a_persistent_kernel_that_cannot_be_is_refused():
    with pytest.raises(LaunchError, match=r"machine\.kernel = persistent: .*H = 65.*no multiple of 4"):
        LayerStack("lstm", 4, 8, 16, 65, kernel="persistent").engine()


@pytest.mark.peer
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_errors_are_at_most_twice_cudnns(cell, precision):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    stack = LayerStack(cell, 64, 16, 32, 128, precision, layers=1)
    for name in stack.initial:  # the peer is run from zero, and to no gradient of the final state
        stack.initial[name][...] = 0
        stack.cotangent[name][...] = 0
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}[cell]
    theirs = kind(32, 128).cuda().to(getattr(torch, precision))
    p = {name.removeprefix("layer0."): torch.tensor(a) for name, a in stack.parameters.items()}
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(p["W"].T)
        theirs.weight_hh_l0.copy_(p["R"].T)
        theirs.bias_ih_l0.copy_(p["b"])
        theirs.bias_hh_l0.zero_()
        if "bR" in p:
            theirs.bias_hh_l0[-128:] = p["bR"]
    x = torch.tensor(stack.batch.inputs).cuda().to(theirs.weight_ih_l0.dtype).requires_grad_()
    y, _ = theirs(x)
    y.backward(torch.tensor(stack.batch.targets).cuda().to(y.dtype))
    scale = 1 / (64 * 16)
    their_errors, expected = {}, stack.expected()
    found = {
        "layer0.W": theirs.weight_ih_l0.grad.T,
        "layer0.R": theirs.weight_hh_l0.grad.T,
        "layer0.b": theirs.bias_ih_l0.grad,
    }
    for name, gradient in found.items():
        value = expected.arrays[f"gradient {name}"]
        off = gradient.double().cpu().numpy() * scale - value
        their_errors[f"gradient {name}"] = np.linalg.norm(off) / np.linalg.norm(value)
    off = x.grad.double().cpu().numpy().transpose(1, 0, 2) * scale - expected.arrays["dx"]
    their_errors["dx"] = np.linalg.norm(off) / np.linalg.norm(expected.arrays["dx"])
    ours = errors(stack.found(), expected)
    worse = {name: (ours[name], theirs) for name, theirs in their_errors.items() if ours[name] > 2 * theirs}
    assert not worse, worse
