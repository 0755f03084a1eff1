"""The peer of the layer benchmark: what cuDNN takes at once, and a sequence in pieces."""

import numpy as np
import pytest

from hpcrnn.backends.layer_case import LayerArrays, LayerCase, solve_layer

pytestmark = pytest.mark.peer


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


LENGTHS = {1: [1], 65535: [65535], 65536: [32768, 32768], 131071: [43691, 43690, 43690]}


@pytest.mark.parametrize(("steps", "lengths"), LENGTHS.items())
def test_as_few_equal_pieces_as_cudnn_takes(torch, steps, lengths):
    from hpcrnn.backends.torch.layer import pieces

    assert [piece.stop - piece.start for piece in pieces(steps)] == lengths


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_pieces_give_what_the_whole_sequence_gives(torch, kind):
    from hpcrnn.backends.torch.layer import run_pieces

    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 5).double()
    x, dy = torch.randn(7, 2, 3, dtype=torch.float64), torch.randn(7, 2, 5, dtype=torch.float64)
    found = []
    for lengths in ([7], [3, 2, 2]):
        module.zero_grad(set_to_none=True)
        xs = [piece.clone().requires_grad_() for piece in x.split(lengths)]
        ys = run_pieces(module, xs)
        torch.autograd.backward(ys, list(dy.split(lengths)))
        found.append([torch.cat(ys), torch.cat([x.grad for x in xs]), *(p.grad for p in module.parameters())])
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(cut, whole)


class Clock:
    """An event of a device that is not there."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        """Take no time."""

    synchronize = record

    def elapsed_time(self, _):
        return 1.0


@pytest.mark.parametrize("longest", [9, 4])
@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_the_peer_is_the_layer_that_ours_is(torch, cell, longest, monkeypatch):
    """On the host, where torch computes the same: parameters in their places, gradients through all pieces."""
    from hpcrnn.backends.torch import layer as torch_layer

    for kind in (torch.Tensor, torch.nn.Module):
        monkeypatch.setattr(kind, "cuda", lambda self: self)
    monkeypatch.setattr(torch.cuda, "Event", Clock)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch_layer, "LONGEST", longest)
    case = LayerCase(cell, "float32", 2, 9, 6, 4)
    arrays = LayerArrays.draw(case, 0)
    layer = torch_layer.TorchLayer(case, arrays)
    for which in ("training", "inference", "training"):
        assert layer.run(which) == pytest.approx(1e-3)
    assert layer.kernel.endswith("pieces") == (longest < 9)
    found, expected = layer.results(), solve_layer(case, arrays)
    assert found.keys() == expected.keys()
    for name, a in expected.items():
        np.testing.assert_allclose(found[name], a, rtol=0, atol=1e-5 * np.abs(a).max(), err_msg=name)
