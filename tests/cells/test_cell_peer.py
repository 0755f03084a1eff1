"""Outputs and gradients against ``torch.nn``."""

import numpy as np
import pytest
from cell_samples import CELLS, D, H, Result, T, make_problem, run

PEERS = {name: CELLS[name] for name in ("elman-tanh", "elman-relu", "lstm", "gru-after")}

# Every value passes through at most T steps, each of a sum of D + H products and about a dozen pointwise operations,
# and back again: that many roundings of half a unit, on values of the order of the largest in the array.
# In float64 that is 3e-14.
ROUNDINGS = 2 * T * (D + H + 12)


def torch_result(torch, cell, problem):
    """The same problem through the module of the same name."""
    sizes = len(problem.x[0, 0]), len(problem.parameters["R"])
    if cell.name == "elman":
        module = torch.nn.RNN(*sizes, nonlinearity=cell.activation)
    else:
        module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell.name](*sizes)
    module = module.to(getattr(torch, problem.x.dtype.name))
    hidden_bias = np.zeros_like(problem.parameters["b"])
    if "bR" in problem.parameters:
        hidden_bias[-sizes[1] :] = problem.parameters["bR"]
    weights = problem.parameters["W"].T, problem.parameters["R"].T, problem.parameters["b"], hidden_bias
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(value))

    x = torch.from_numpy(problem.x).requires_grad_()
    initial = [torch.from_numpy(a)[None].requires_grad_() for a in problem.initial.values()]
    y, final = module(x, tuple(initial) if len(initial) > 1 else initial[0])
    finals = final if isinstance(final, tuple) else (final,)
    cotangents = [torch.from_numpy(problem.dy), *(torch.from_numpy(a)[None] for a in problem.dstate.values())]
    torch.autograd.backward((y, *finals), cotangents)

    dW, dR, db, d_hidden_bias = (parameter.grad.numpy() for parameter in module.parameters())
    gradients = {"W": dW.T, "R": dR.T, "b": db, "x": x.grad.numpy()}
    gradients |= {f"{name}0": a.grad[0].numpy() for name, a in zip(problem.initial, initial, strict=True)}
    if "bR" in problem.parameters:
        gradients["bR"] = d_hidden_bias[-sizes[1] :]
    states = {name: a.detach()[0].numpy() for name, a in zip(problem.initial, finals, strict=True)}
    return Result(y.detach().numpy(), states, gradients)


@pytest.mark.peer
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", PEERS.values(), ids=PEERS)
def test_outputs_and_gradients_are_torchs(cell, dtype):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    problem = make_problem(cell).astype(dtype)
    found, expected = run(cell, problem), dict(torch_result(torch, cell, problem).items())
    assert set(expected) == {name for name, _ in found.items()}
    for name, value in found.items():
        assert value.dtype == dtype
        tolerance = ROUNDINGS * np.finfo(dtype).eps / 2 * max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance, err_msg=name)
