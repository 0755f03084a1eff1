"""One recurrent layer on the GPU with its segments of time as rows, to be timed as the others are.

It is the engine that runs, on a network of this one layer under a loss whose gradient is given.
"""

from __future__ import annotations

import time

import cupy as cp
import numpy as np

from hpcrnn.backends.base import Extent, LayerSolve
from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.engine import CupyEngine
from hpcrnn.backends.layer_case import Array, LayerArrays, LayerCase, Pass
from hpcrnn.kernels.plan import Kernel
from hpcrnn.model.network import Block, Network
from hpcrnn.records.certificate import UNMET
from hpcrnn.schedules.graph import Value
from hpcrnn.spec import MachineSpec, RecurrenceSpec, TrainingSpec
from hpcrnn.workloads import Batch

_LAYER = "layer0"
_UNIT = (0, 0, 0)
"""Block, micro-batch and chunk of the layer's tasks: there is one of each."""


class CupyFoldedLayer:
    """A layer solved by method ``picard``; every array is on the device before a pass begins.

    A pass is timed on the host's clock, from a drained device to a drained device: between two rounds of a solve the
    host compares and corrects, and after each of the engine's tasks it drains the stream. That is part of a pass, and
    so is its way to the first kernel, which two events would lack.

    Parameters
    ----------
    case : LayerCase
        With a fold.
    arrays : LayerArrays
    kernel : {"auto", "persistent", "stepwise"}
    """

    def __init__(self, case: LayerCase, arrays: LayerArrays, kernel: Kernel = "auto") -> None:
        self._precision = case.precision
        # With a scale of one the gradients are those of the layer by itself.
        recurrence = RecurrenceSpec(method="picard", fold=case.fold, tolerance=case.tolerance)
        whole = (slice(0, case.B),), (slice(0, case.T),)
        self._extent = Extent(case.T, *whole, scale=1.0, mode="gradient", recurrence=recurrence)
        machine = MachineSpec(backend=("cupy",), precision=case.precision, kernel=kernel, allow_shared_gpu=True)
        network = make_network(case)
        self._engine = CupyEngine(network, self._extent, TrainingSpec(mode="gradient"), machine)
        self._engine.load_parameters({f"{_LAYER}.{name}": a for name, a in arrays.parameters(case).items()})
        self._engine.load_batch(Batch(arrays.x, arrays.dy, None))
        zeros = {f"{_LAYER}.{name}": np.zeros((case.B, case.H)) for name in case.make_cell().state_names}
        self._engine.set_boundary(zeros, zeros)
        # The name of the device stands first.
        self.kernel = self._engine.kernel_details.partition("; ")[2]

    def run(self, which: Pass) -> float:
        engine = self._engine
        engine.begin_step()
        begin = time.perf_counter()
        engine.forward(*_UNIT)
        if which == "training":
            engine.backward(*_UNIT)
            engine.weight_gradient(*_UNIT)
        return time.perf_counter() - begin

    def results(self) -> dict[str, Array]:
        pieces = self._engine.part().pieces
        prefix = f"gradient {_LAYER}."
        found = {f"d{name.removeprefix(prefix)}": p.value for name, p in pieces.items() if name.startswith(prefix)}
        found |= {"y": self._output(), "dx": pieces["dx"].value.transpose(1, 0, 2)}
        return {name: a.astype(np.float64) for name, a in found.items()}

    def _output(self) -> Array:
        """Fetch ``y``, as if another rank had the block that takes it."""
        value, arithmetic = Value("y", *_UNIT), Arithmetic(self._precision)
        move = self._engine.mover(value, incoming=False)
        if move is not None:
            move()
        (words,) = self._engine.buffers(value, incoming=False)
        stored = cp.asarray(words.view(arithmetic.stored))
        return np.asarray(self._extent.folding(0).unfold(cp.asnumpy(arithmetic.widen(stored))))

    def solve_facts(self) -> dict[str, float]:
        return {name: value for solved in self._engine.solves() for name, value in _facts(solved).items()}


def make_network(case: LayerCase) -> Network:
    """Lay out one layer on given input, under the inner product of its output with a given array."""
    cell, D, H = case.make_cell(), case.D, case.H
    layer = Block(_LAYER, "recurrent", D, H, cell.parameter_shapes(D, H), cell)
    return Network((layer, Block("head", "cotangent", H, H, {})), H, "linear", "float32", needs_dx=True)


def _facts(solved: LayerSolve) -> dict[str, float]:
    """Rounds, steps one after another, longest meeting length, rows that did not meet, and residual of a direction."""
    way, solve = solved.direction, solved.solve
    met = solve.meeting[solve.meeting != UNMET]
    return {
        f"rounds_{way}": len(solve.steps),
        f"steps_{way}": sum(solve.steps),
        f"meeting_{way}": int(met.max(initial=0)),
        f"unmet_{way}": int((solve.meeting == UNMET).sum()),
        f"residual_{way}": solve.residual,
    }
