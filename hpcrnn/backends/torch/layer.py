"""The peer of :mod:`hpcrnn.backends.cupy.layer`: the same layer through ``torch.nn`` and cuDNN.

cuDNN takes no sequence longer than :data:`LONGEST`. A longer one is cut into equal pieces, the state is carried from
one to the next, and the gradient goes back through all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hpcrnn.backends.layer_case import Array, LayerArrays, LayerCase, Pass
from hpcrnn.schedules.placement import split

_MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
_DTYPES = {"float32": "float32", "tf32": "float32", "float16": "float16", "bfloat16": "bfloat16"}

LONGEST = 65535
"""Steps of a sequence that cuDNN takes."""


def sees_gpu() -> bool:
    """Whether torch can use a GPU here."""
    return bool(torch.cuda.is_available())


def pieces(steps: int) -> tuple[slice, ...]:
    """Cut a sequence into as few pieces, equal but for a step, as cuDNN takes."""
    return split(steps, -(-steps // LONGEST))


def run_pieces(module: Any, inputs: Sequence[Any]) -> list[Any]:
    """Run pieces of a sequence one after another, each from the state the one before left; return their outputs."""
    outputs, state = [], None
    for x in inputs:
        y, state = module(x, state)
        outputs.append(y)
    return outputs


class TorchLayer:
    """A ``torch.nn`` layer on the GPU, its weights in the one block of memory that cuDNN wants.

    Parameters
    ----------
    case : LayerCase
    arrays : LayerArrays
    """

    def __init__(self, case: LayerCase, arrays: LayerArrays) -> None:
        self._case = case
        dtype = getattr(torch, _DTYPES[case.precision])
        self._module = _MODULES[case.cell](case.D, case.H).cuda().to(dtype)
        self._module.flatten_parameters()
        own = dict(self._module.named_parameters())
        parameters = {name: torch.from_numpy(a).cuda().to(dtype) for name, a in arrays.parameters(case).items()}
        with torch.no_grad():
            own["weight_ih_l0"].copy_(parameters["W"].T)
            own["weight_hh_l0"].copy_(parameters["R"].T)
            own["bias_ih_l0"].copy_(parameters["b"])
            own["bias_hh_l0"].zero_()
            if "bR" in parameters:
                own["bias_hh_l0"][-case.H :] = parameters["bR"]
        # Pieces are leaves of their own: gradients of views of one would each be as large as the whole.
        cuts = pieces(case.T)
        self._xs = [torch.from_numpy(arrays.x[cut]).cuda().to(dtype).requires_grad_() for cut in cuts]
        self._dys = [torch.from_numpy(arrays.dy[cut]).cuda().to(dtype) for cut in cuts]
        self._ys: list[Any] = []
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.kernel = f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
        if len(cuts) > 1:
            self.kernel += f", in {len(cuts)} pieces"

    def run(self, which: Pass) -> float:
        tf32 = self._case.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        if which == "training":  # setting gradients to nothing is not part of a pass
            self._module.zero_grad(set_to_none=True)
            for x in self._xs:
                x.grad = None
        torch.cuda.synchronize()
        self._begin.record()
        if which == "training":
            self._ys = run_pieces(self._module, self._xs)
            torch.autograd.backward(self._ys, self._dys)
        else:
            with torch.no_grad():
                run_pieces(self._module, self._xs)
        self._end.record()
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) * 1e-3

    def results(self) -> dict[str, Array]:
        own = {name: p.grad for name, p in self._module.named_parameters()}
        found = {
            "y": torch.cat([y.detach() for y in self._ys]),
            "dx": torch.cat([x.grad for x in self._xs]),
            "dW": own["weight_ih_l0"].T,
            "dR": own["weight_hh_l0"].T,
            "db": own["bias_ih_l0"],
        }
        if self._case.cell == "gru":
            found["dbR"] = own["bias_hh_l0"][-self._case.H :]
        return {name: np.asarray(a.double().cpu().numpy()) for name, a in found.items()}

    def solve_facts(self) -> dict[str, float]:
        return {}
