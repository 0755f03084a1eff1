"""The peer of the layer benchmark: what cuDNN takes at once, and a sequence in pieces."""

import pytest

pytestmark = pytest.mark.peer


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


LENGTHS = {1: [1], 65535: [65535], 65536: [32768, 32768], 131071: [43691, 43690, 43690]}


@pytest.mark.parametrize(("steps", "lengths"), LENGTHS.items())
def test_as_few_equal_pieces_as_cudnn_takes(torch, steps, lengths):
    from hpcrnn.backends.torch_layer import pieces

    assert [piece.stop - piece.start for piece in pieces(steps)] == lengths


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_pieces_give_what_the_whole_sequence_gives(torch, kind):
    from hpcrnn.backends.torch_layer import run_pieces

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
